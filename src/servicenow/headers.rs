//! What an answer's headers say beside its content: the instance's clock, its quota, and how long the request waited
//! for a thread. A header that is missing or unreadable says nothing; none of them is trusted with more than waiting.

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::classify::{self, Head};
use crate::quota::LoadFeedback;
use crate::quota::concurrency::LoadSignal;
use crate::quota::rules::RuleHeaders;

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// What the classification needs.
pub(super) fn head(answer: &reqwest::Response) -> Head {
    let headers = answer.headers();
    let date = text(headers, DATE.as_str()).and_then(classify::http_date);
    Head {
        status: answer.status().as_u16(),
        date,
        retry_after: text(headers, RETRY_AFTER.as_str()).and_then(|value| classify::retry_after(value, date)),
        total: text(headers, "x-total-count").and_then(|value| value.parse().ok()),
    }
}

/// Notes what an answer that took `latency` milliseconds tells of quota and crowd.
pub(super) fn press(feedback: &mut LoadFeedback, head: &Head, headers: &HeaderMap, latency: u64) {
    feedback.requests += 1;
    feedback.rule = rule(headers, head.date).or(feedback.rule.take());
    feedback.sign = Some(match (head.status, head.retry_after) {
        // By a rule; that says nothing of the crowd.
        (429, Some(wait)) => {
            feedback.denied = Some(wait);
            return;
        }
        (429 | 503, _) => LoadSignal::Refused,
        _ => LoadSignal::Answered { latency, waited: waited(headers).unwrap_or(0) },
    });
}

/// `X-RateLimit-Rule`, `-Limit` and `-Reset` (Unix seconds of the instance's clock, which only its `Date` tells).
fn rule(headers: &HeaderMap, date: Option<i64>) -> Option<RuleHeaders> {
    let number = |name| text(headers, name).and_then(|value| value.parse::<i64>().ok());
    let limit = u32::try_from(number("x-ratelimit-limit")?).ok().filter(|limit| *limit > 0)?;
    let reset = number("x-ratelimit-reset")?.checked_sub(date?)?;
    let rule = text(headers, "x-ratelimit-rule").unwrap_or("");
    // An unknown rule of endless name would be a leak.
    let rule = rule.chars().take(64).collect();
    Some(RuleHeaders { rule, limit, reset_in: u64::try_from(reset).unwrap_or(0).saturating_mul(1_000) })
}

/// `Server-Timing: sem_wait;dur=12, sesh_wait;dur=0`: milliseconds spent waiting for a thread.
fn waited(headers: &HeaderMap) -> Option<u64> {
    let timing = text(headers, "server-timing")?;
    let entry = timing.split(',').find_map(|entry| entry.trim().strip_prefix("sem_wait"))?;
    let duration = entry.split(';').find_map(|parameter| parameter.trim().strip_prefix("dur="))?;
    let duration = duration.trim_matches('"').parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms >= 0.0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
    Some(duration as u64)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    fn pressed(status: u16, retry_after: Option<u64>, pairs: &[(&'static str, &'static str)]) -> LoadFeedback {
        let mut feedback = LoadFeedback::default();
        let head = Head { status, date: Some(1_800_000_000), retry_after, total: None };
        press(&mut feedback, &head, &headers(pairs), 40);
        feedback
    }

    #[test]
    fn the_wait_for_a_thread_is_read_from_server_timing() {
        let sign = |value| pressed(200, None, &[("server-timing", value)]).sign;
        assert_eq!(sign("sem_wait;dur=12, sesh_wait;dur=3"), Some(LoadSignal::Answered { latency: 40, waited: 12 }));
        assert_eq!(sign("sesh_wait;dur=3, sem_wait;dur=7.9"), Some(LoadSignal::Answered { latency: 40, waited: 7 }));
        for odd in ["", "sem_wait", "sem_wait;dur=x", "sem_wait;dur=-1", "sem_wait;dur=NaN", "db;dur=5"] {
            assert_eq!(sign(odd), Some(LoadSignal::Answered { latency: 40, waited: 0 }), "{odd}");
        }
    }

    #[test]
    fn a_rule_is_read_where_all_of_it_is_there() {
        const LIMIT: (&str, &str) = ("x-ratelimit-limit", "1000");
        const RESET: (&str, &str) = ("x-ratelimit-reset", "1800001800");
        const RULE: (&str, &str) = ("x-ratelimit-rule", "abc");
        let told = pressed(200, None, &[LIMIT, RESET, RULE]).rule;
        assert_eq!(told, Some(RuleHeaders { rule: "abc".into(), limit: 1_000, reset_in: 1_800_000 }));
        assert_eq!(pressed(200, None, &[LIMIT, RULE]).rule, None);
        assert_eq!(pressed(200, None, &[("x-ratelimit-limit", "0"), RESET, RULE]).rule, None);
    }

    #[test]
    fn a_denial_by_a_rule_is_no_crowd_and_a_bare_one_is() {
        let denied = pressed(429, Some(5_000), &[]);
        assert_eq!((denied.denied, denied.sign), (Some(5_000), None));
        let bare = pressed(429, None, &[]);
        assert_eq!((bare.denied, bare.sign), (None, Some(LoadSignal::Refused)));
        assert_eq!(pressed(503, Some(30_000), &[]).sign, Some(LoadSignal::Refused));
    }
}
