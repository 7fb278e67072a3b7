//! ServiceNow instances.

use std::time::Duration;

use super::super::raw::{RawAuth, RawInstance};
use super::super::resolved::{Auth, Instance};
use super::super::secret::Secret;
use super::super::units;
use super::super::validate::join;
use super::Context;

/// A placeholder for an invalid instance, with the default values. It is never part of a valid configuration.
pub(super) fn placeholder() -> Instance {
    Instance {
        name: String::new(),
        url: String::new(),
        auth: Auth::Basic { user: String::new(), password: Secret::fixed("") },
        request_deadline: Duration::from_secs(70),
        max_transaction_time: Duration::from_secs(60),
        concurrency: 8,
        rate: None,
        rate_limit_window: Duration::from_secs(3_600),
        proxy: None,
        ca_file: None,
        auth_retry: (Duration::from_secs(60), Duration::from_secs(960)),
    }
}

pub(super) fn resolve(name: String, raw: RawInstance, at: &str, context: &mut Context<'_>) -> Instance {
    let default = placeholder();
    let key = |key| join(at, key);
    let url = raw.url.map(|text| url(&text, raw.allow_http.unwrap_or(false), &key("url"), context)).unwrap_or_default();
    let auth = raw.auth.and_then(|auth| credentials(auth, &key("auth"), context)).unwrap_or(default.auth);
    let request_deadline = context.duration_in(
        &key("request_deadline"),
        raw.request_deadline.as_deref(),
        default.request_deadline,
        ("1s", "10m"),
    );
    let max_transaction_time = context.duration_in(
        &key("max_transaction_time"),
        raw.max_transaction_time.as_deref(),
        default.max_transaction_time,
        ("1s", "1h"),
    );
    let rate =
        raw.rate.and_then(|text| units::rate(&text).map_err(|message| context.error(&key("rate"), &message)).ok());
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
        max_transaction_time,
        concurrency: raw.concurrency.map_or(default.concurrency, |n| n as usize),
        rate,
        rate_limit_window: context.duration_in(
            &key("rate_limit_window"),
            raw.rate_limit_window.as_deref(),
            default.rate_limit_window,
            ("1s", "24h"),
        ),
        proxy,
        ca_file: context.file(&key("ca_file"), raw.ca_file),
        auth_retry: (first, longest),
    }
}

fn url(text: &str, allow_http: bool, at: &str, context: &mut Context<'_>) -> String {
    const EXAMPLE: &str = "use for example `https://example.service-now.com`";
    // Messages don't repeat the text: it may contain a password.
    let Ok(url) = reqwest::Url::parse(text.trim()) else {
        context.error(at, &format!("invalid URL; {EXAMPLE}"));
        return String::new();
    };
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => {
            let message = "credentials would be sent unencrypted; use https, or set `allow_http: true` for a simulator";
            context.error(at, message);
        }
        scheme => context.error(at, &format!("the scheme `{scheme}` is not supported; {EXAMPLE}")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        context.error(at, "the URL must not contain user and password; set them under `auth`");
    }
    if url.host_str().is_none() || !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some()
    {
        context.error(at, &format!("the URL must not have a path, query or fragment; {EXAMPLE}"));
    }
    text.trim().trim_end_matches('/').to_owned()
}

fn proxy(text: &str, at: &str, context: &mut Context<'_>) {
    let is_valid =
        reqwest::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !is_valid {
        context.error(at, "invalid proxy URL; use for example `http://proxy.example.com:3128`");
    }
}

fn credentials(raw: RawAuth, at: &str, context: &mut Context<'_>) -> Option<Auth> {
    match (raw.basic, raw.oauth) {
        (Some(basic), None) => {
            let at = join(at, "basic");
            let password = context.secret(&join(&at, "password"), basic.password)?;
            Some(Auth::Basic { user: check_not_empty(basic.user?, &join(&at, "user"), context), password })
        }
        (None, Some(oauth)) => {
            let at = join(at, "oauth");
            let client_secret = context.secret(&join(&at, "client_secret"), oauth.client_secret)?;
            let user = check_not_empty(oauth.user?, &join(&at, "user"), context);
            let client_id = check_not_empty(oauth.client_id?, &join(&at, "client_id"), context);
            Some(Auth::ClientCredentials { client_id, client_secret, user })
        }
        (Some(_), Some(_)) => {
            context.error(at, "`basic` and `oauth` are mutually exclusive; remove one");
            None
        }
        (None, None) => {
            // If the file contains one of them, its error is already reported.
            if !context.has(&join(at, "basic")) && !context.has(&join(at, "oauth")) {
                context.error(at, "credentials are missing; set `basic` with user and password, or `oauth`");
            }
            None
        }
    }
}

fn check_not_empty(text: String, at: &str, context: &mut Context<'_>) -> String {
    if text.trim().is_empty() {
        context.error(at, "the value is empty; is the environment variable set?");
    }
    text
}
