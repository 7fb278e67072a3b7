//! ServiceNow instances.

use std::time::Duration;

use super::super::human;
use super::super::raw::{RawAuth, RawInstance};
use super::super::resolved::{Auth, Instance};
use super::super::secret::Secret;
use super::super::shape::join;
use super::Context;

/// What a stand-in or a broken instance gets, so that resolving can go on. Never reaches the caller.
pub(super) fn stand_in() -> Instance {
    Instance {
        name: String::new(),
        url: String::new(),
        auth: Auth::Basic { user: String::new(), password: Secret::fixed("") },
        request_deadline: Duration::from_secs(70),
        settle_time: Duration::from_secs(60),
        concurrency: 8,
        rate: None,
        rule_window: Duration::from_secs(3_600),
        proxy: None,
        ca_file: None,
        auth_retry: (Duration::from_secs(60), Duration::from_secs(960)),
    }
}

pub(super) fn resolve(name: String, raw: RawInstance, at: &str, context: &mut Context<'_>) -> Instance {
    let default = stand_in();
    let key = |key| join(at, key);
    let url = raw.url.map(|text| url(&text, raw.allow_http.unwrap_or(false), &key("url"), context)).unwrap_or_default();
    let auth = raw.auth.and_then(|auth| credentials(auth, &key("auth"), context)).unwrap_or(default.auth);
    let request_deadline = context.duration_in(
        &key("request_deadline"),
        raw.request_deadline.as_deref(),
        default.request_deadline,
        ("1s", "10m"),
    );
    let settle_time =
        context.duration_in(&key("settle_time"), raw.settle_time.as_deref(), default.settle_time, ("1s", "1h"));
    let rate =
        raw.rate.and_then(|text| human::rate(&text).map_err(|message| context.error(&key("rate"), &message)).ok());
    let proxy = raw.proxy.inspect(|text| proxy(text, &key("proxy"), context));
    let delays = raw.auth_retry.unwrap_or_default();
    let delays_at = key("auth_retry");
    let first =
        context.duration_in(&join(&delays_at, "first"), delays.first.as_deref(), default.auth_retry.0, ("1s", "24h"));
    let longest = context.duration_in(
        &join(&delays_at, "longest"),
        delays.longest.as_deref(),
        default.auth_retry.1.max(first),
        ("1s", "24h"),
    );
    if longest < first {
        context.error(&delays_at, "`longest` must not be shorter than `first`");
    }
    Instance {
        name,
        url,
        auth,
        request_deadline,
        settle_time,
        concurrency: raw.concurrency.map_or(default.concurrency, |n| n as usize),
        rate,
        rule_window: context.duration_in(
            &key("rule_window"),
            raw.rule_window.as_deref(),
            default.rule_window,
            ("1s", "24h"),
        ),
        proxy,
        ca_file: context.file(&key("ca_file"), raw.ca_file),
        auth_retry: (first, longest),
    }
}

fn url(text: &str, allow_http: bool, at: &str, context: &mut Context<'_>) -> String {
    const FORM: &str = "write it as `https://example.service-now.com`";
    // The text itself is not repeated: somebody may have put a password into it.
    let Ok(url) = reqwest::Url::parse(text.trim()) else {
        context.error(at, &format!("this is no URL; {FORM}"));
        return String::new();
    };
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => {
            let message = "credentials would travel in the clear; use https, or set `allow_http: true` for a simulator";
            context.error(at, message);
        }
        other => context.error(at, &format!("`{other}` is no scheme for an instance; {FORM}")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        context.error(at, "user and password don't belong in the URL; put them under `auth`");
    }
    if url.host_str().is_none() || !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some()
    {
        context.error(at, &format!("only the host belongs here, without a path; {FORM}"));
    }
    text.trim().trim_end_matches('/').to_owned()
}

fn proxy(text: &str, at: &str, context: &mut Context<'_>) {
    let good = reqwest::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !good {
        context.error(at, "this is no URL of a proxy; write it as `http://proxy.example.com:3128`");
    }
}

fn credentials(raw: RawAuth, at: &str, context: &mut Context<'_>) -> Option<Auth> {
    match (raw.basic, raw.oauth) {
        (Some(basic), None) => {
            let at = join(at, "basic");
            let password = context.secret(&join(&at, "password"), basic.password)?;
            Some(Auth::Basic { user: not_empty(basic.user?, &join(&at, "user"), context), password })
        }
        (None, Some(oauth)) => {
            let at = join(at, "oauth");
            let client_secret = context.secret(&join(&at, "client_secret"), oauth.client_secret)?;
            let user = not_empty(oauth.user?, &join(&at, "user"), context);
            let client_id = not_empty(oauth.client_id?, &join(&at, "client_id"), context);
            Some(Auth::ClientCredentials { client_id, client_secret, user })
        }
        (Some(_), Some(_)) => {
            context.error(at, "both `basic` and `oauth` are given; keep one");
            None
        }
        (None, None) => {
            // Where one of them was there but wrong, that has been said.
            if !context.has(&join(at, "basic")) && !context.has(&join(at, "oauth")) {
                context.error(at, "say how to log in: `basic` with user and password, or `oauth`");
            }
            None
        }
    }
}

fn not_empty(text: String, at: &str, context: &mut Context<'_>) -> String {
    if text.trim().is_empty() {
        context.error(at, "this is empty; is the environment variable set?");
    }
    text
}
