//! Response headers: the instance's clock, its rate-limit rule and how long the request waited for a thread. A missing
//! or unreadable header is ignored. Headers influence only when requests are sent.

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::classify::{self, ResponseHead};
use crate::quota::LoadFeedback;
use crate::quota::concurrency::LoadSignal;
use crate::quota::rules::RuleHeaders;

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Extracts the headers that classification needs.
pub(super) fn response_head(response: &reqwest::Response) -> ResponseHead {
    let headers = response.headers();
    let date = text(headers, DATE.as_str()).and_then(classify::http_date);
    ResponseHead {
        status: response.status().as_u16(),
        date,
        retry_after: text(headers, RETRY_AFTER.as_str()).and_then(|value| classify::retry_after(value, date)),
        total: text(headers, "x-total-count").and_then(|value| value.parse().ok()),
    }
}

/// Records what a response with this latency (milliseconds) says about the instance's quota and load.
pub(super) fn record_load(feedback: &mut LoadFeedback, head: &ResponseHead, headers: &HeaderMap, latency: u64) {
    feedback.requests += 1;
    feedback.rule = rule(headers, head.date).or(feedback.rule.take());
    feedback.signal = Some(match (head.status, head.retry_after) {
        // Rejected by a rate-limit rule, which says nothing about the load.
        (429, Some(wait)) => {
            feedback.retry_after = Some(wait);
            return;
        }
        (429 | 503, _) => LoadSignal::Overloaded,
        _ => LoadSignal::Response { latency, queue_time: queue_time(headers).unwrap_or(0) },
    });
}

/// Parses `X-RateLimit-Rule`, `-Limit` and `-Reset` (Unix seconds of the instance's clock, given by its `Date`).
fn rule(headers: &HeaderMap, date: Option<i64>) -> Option<RuleHeaders> {
    let number = |name| text(headers, name).and_then(|value| value.parse::<i64>().ok());
    let limit = u32::try_from(number("x-ratelimit-limit")?).ok().filter(|limit| *limit > 0)?;
    let reset = number("x-ratelimit-reset")?.checked_sub(date?)?;
    let rule = text(headers, "x-ratelimit-rule").unwrap_or("");
    // Bounds the memory for the names of unknown rules.
    let rule = rule.chars().take(64).collect();
    Some(RuleHeaders { rule, limit, reset_in: u64::try_from(reset).unwrap_or(0).saturating_mul(1_000) })
}

/// Parses `Server-Timing: sem_wait;dur=12, sesh_wait;dur=0`: milliseconds spent waiting for a thread.
fn queue_time(headers: &HeaderMap) -> Option<u64> {
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

    fn recorded(status: u16, retry_after: Option<u64>, pairs: &[(&'static str, &'static str)]) -> LoadFeedback {
        let mut feedback = LoadFeedback::default();
        let head = ResponseHead { status, date: Some(1_800_000_000), retry_after, total: None };
        record_load(&mut feedback, &head, &headers(pairs), 40);
        feedback
    }

    #[test]
    fn queue_time_is_read_from_server_timing() {
        let signal = |value| recorded(200, None, &[("server-timing", value)]).signal;
        assert_eq!(
            signal("sem_wait;dur=12, sesh_wait;dur=3"),
            Some(LoadSignal::Response { latency: 40, queue_time: 12 })
        );
        assert_eq!(
            signal("sesh_wait;dur=3, sem_wait;dur=7.9"),
            Some(LoadSignal::Response { latency: 40, queue_time: 7 })
        );
        for odd in ["", "sem_wait", "sem_wait;dur=x", "sem_wait;dur=-1", "sem_wait;dur=NaN", "db;dur=5"] {
            assert_eq!(signal(odd), Some(LoadSignal::Response { latency: 40, queue_time: 0 }), "{odd}");
        }
    }

    #[test]
    fn a_rule_needs_both_limit_and_reset() {
        const LIMIT: (&str, &str) = ("x-ratelimit-limit", "1000");
        const RESET: (&str, &str) = ("x-ratelimit-reset", "1800001800");
        const RULE: (&str, &str) = ("x-ratelimit-rule", "abc");
        let rule = recorded(200, None, &[LIMIT, RESET, RULE]).rule;
        assert_eq!(rule, Some(RuleHeaders { rule: "abc".into(), limit: 1_000, reset_in: 1_800_000 }));
        assert_eq!(recorded(200, None, &[LIMIT, RULE]).rule, None);
        assert_eq!(recorded(200, None, &[("x-ratelimit-limit", "0"), RESET, RULE]).rule, None);
    }

    #[test]
    fn a_429_with_retry_after_is_a_rate_limit_and_one_without_is_overload() {
        let limited = recorded(429, Some(5_000), &[]);
        assert_eq!((limited.retry_after, limited.signal), (Some(5_000), None));
        let bare = recorded(429, None, &[]);
        assert_eq!((bare.retry_after, bare.signal), (None, Some(LoadSignal::Overloaded)));
        assert_eq!(recorded(503, Some(30_000), &[]).signal, Some(LoadSignal::Overloaded));
    }
}
