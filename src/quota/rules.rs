//! The instance's rate-limit rules, learned from its responses.
//!
//! A rule allows a user a number of requests per hour, counted in fixed windows, by API, table and method. Every
//! response that a rule matched names the rule, its limit and the end of its window. The instance does not report how
//! much of the limit is left, and it starts to reject requests up to 30 s late (ServiceNow's documentation of inbound
//! rate limits, `sys_rate_limit_rules`). So requests are counted here, and a window never gets more requests than the
//! rule allows: spread evenly over the window, where quota unused so far may be used at once later, and a part that
//! only urgent requests may use before it is due.
//!
//! Two things are unknown: what others send as the same user (give the bridge a user of its own), and what was sent
//! before the first response. Until that window ends, only the requests that become due from then on are sent.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::HttpMethod;

/// The fraction of each rule that is not used: the instance may count a request that timed out here, and its clock
/// differs from the bridge's.
const MARGIN: f64 = 0.02;

/// A window counts as over this long after its end, milliseconds.
const WINDOW_GRACE: u64 = 1_000;

/// The rate-limit headers of a response: the rule that the request was counted against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleHeaders {
    /// `X-RateLimit-Rule`: the rule's sys_id; several tables or methods may share one.
    pub rule: String,
    /// `X-RateLimit-Limit`: requests per window.
    pub limit: u32,
    /// Milliseconds until the window ends, by the instance's own clock.
    pub reset_in: u64,
}

/// The share of a rule that a request may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuotaShare {
    /// This member's fraction of the rule, above 0 and at most 1.
    pub fraction: f64,
    /// The part of `fraction` that is reserved for urgent requests.
    pub urgent_reserve: f64,
    /// The request is urgent.
    pub urgent: bool,
    /// The request is a source's. Requests of sources are counted separately.
    pub source: bool,
    /// Requests in flight: at the end of a window they may be counted in the next one.
    pub in_flight: usize,
}

#[derive(Debug)]
struct Rule {
    limit: f64,
    /// Milliseconds.
    window: u64,
    /// When the window ends, monotonic milliseconds.
    reset_at: u64,
    /// The fraction of the window that had elapsed when the rule was first seen.
    elapsed_when_seen: f64,
    /// Requests sent in this window, by sinks and by sources.
    requests: [f64; 2],
    /// The instance rejects requests until this time, monotonic milliseconds.
    throttled_until: u64,
}

/// The rate-limit rules seen so far.
#[derive(Debug)]
pub struct RateLimitRules {
    /// Milliseconds.
    window: u64,
    /// By rule id.
    rules: HashMap<String, Rule>,
    /// The id of the rule that applies to a table and method.
    rule_ids: HashMap<(String, HttpMethod), String>,
    /// The ends of waits that the instance requested without naming a rule, monotonic milliseconds.
    throttled_until: HashMap<(String, HttpMethod), u64>,
}

impl RateLimitRules {
    /// No rules yet; each will have windows of this length.
    pub fn new(window: Duration) -> Self {
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { window, rules: HashMap::new(), rule_ids: HashMap::new(), throttled_until: HashMap::new() }
    }

    /// Whether a request may be sent now.
    ///
    /// # Errors
    /// It may not; the number is the milliseconds to wait.
    pub fn check(&mut self, table: &str, method: HttpMethod, share: QuotaShare, now: u64) -> Result<(), u64> {
        if self.rule_ids.is_empty() && self.throttled_until.is_empty() {
            return Ok(());
        }
        let scope = (table.to_owned(), method);
        if let Some(&until) = self.throttled_until.get(&scope) {
            if now < until {
                return Err(until - now);
            }
            self.throttled_until.remove(&scope);
        }
        let Some(rule) = self.rule_ids.get(&scope).and_then(|id| self.rules.get_mut(id)) else { return Ok(()) };
        rule.roll_over(share.in_flight, now);
        rule.check(share, now)
    }

    /// Counts a request that is being sent.
    pub fn count(&mut self, table: &str, method: HttpMethod, source: bool) {
        if self.rule_ids.is_empty() {
            return;
        }
        let id = self.rule_ids.get(&(table.to_owned(), method));
        if let Some(rule) = id.and_then(|id| self.rules.get_mut(id)) {
            rule.requests[usize::from(source)] += 1.0;
        }
    }

    /// Records the rule that a response named.
    pub fn learn(&mut self, table: &str, method: HttpMethod, headers: &RuleHeaders, in_flight: usize, now: u64) {
        let scope = (table.to_owned(), method);
        if self.rule_ids.get(&scope) != Some(&headers.rule) {
            self.rule_ids.insert(scope, headers.rule.clone());
        }
        let (limit, reset_at) = (f64::from(headers.limit), now.saturating_add(headers.reset_in.min(self.window)));
        let window = self.window;
        let rule = self.rules.entry(headers.rule.clone()).or_insert_with(|| {
            let mut rule =
                Rule { limit, window, reset_at, elapsed_when_seen: 0.0, requests: [0.0; 2], throttled_until: 0 };
            // The number of earlier requests is unknown; assume that all that were due have been sent.
            rule.elapsed_when_seen = rule.elapsed(now);
            rule
        });
        rule.limit = limit;
        // The responses of two nodes may differ by a second.
        if reset_at > rule.reset_at + WINDOW_GRACE * 2 {
            rule.reset_at = reset_at;
            rule.start_window(in_flight);
        }
    }

    /// Records that the instance rejected a request and requested a wait of this many milliseconds.
    pub fn throttle(&mut self, table: &str, method: HttpMethod, wait: u64, now: u64) {
        let (scope, until) = ((table.to_owned(), method), now.saturating_add(wait));
        match self.rule_ids.get(&scope).and_then(|id| self.rules.get_mut(id)) {
            Some(rule) => rule.throttled_until = rule.throttled_until.max(until),
            None => {
                let throttled_until = self.throttled_until.entry(scope).or_default();
                *throttled_until = (*throttled_until).max(until);
            }
        }
    }

    /// Requests per second that a rule allows for this table and method in the long run; `None` where no rule is known.
    pub fn rate(&self, table: &str, method: HttpMethod, share: f64) -> Option<f64> {
        let rule = self.rules.get(self.rule_ids.get(&(table.to_owned(), method))?)?;
        #[expect(clippy::cast_precision_loss, reason = "an hour in milliseconds")]
        Some(rule.limit * (1.0 - MARGIN) * share * 1_000.0 / rule.window as f64)
    }
}

impl Rule {
    /// Starts the next window if the current one is over.
    fn roll_over(&mut self, in_flight: usize, now: u64) {
        if now >= self.reset_at.saturating_add(WINDOW_GRACE) {
            let over = now - self.reset_at;
            self.reset_at += (over / self.window + 1) * self.window;
            self.start_window(in_flight);
            self.throttled_until = self.throttled_until.min(now);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a number of connections")]
    fn start_window(&mut self, in_flight: usize) {
        self.requests = [in_flight as f64, 0.0];
        self.elapsed_when_seen = 0.0;
    }

    /// The fraction of the window that has elapsed.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of an hour")]
    fn elapsed(&self, now: u64) -> f64 {
        let elapsed = self.window.saturating_sub(self.reset_at.saturating_sub(now));
        (elapsed as f64 / self.window as f64).min(1.0)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive wait within the window")]
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of an hour")]
    fn check(&self, share: QuotaShare, now: u64) -> Result<(), u64> {
        if now < self.throttled_until {
            return Err(self.throttled_until - now);
        }
        let quota = (self.limit * (1.0 - MARGIN) * share.fraction).floor().max(1.0);
        let (even, reserve) = (quota * (1.0 - share.urgent_reserve), quota * share.urgent_reserve);
        let due = even * (self.elapsed(now) - self.elapsed_when_seen);
        let excess = self.requests[usize::from(share.source)] + 1.0 - due - if share.urgent { reserve } else { 0.0 };
        // The last request of a window is due when the window ends, which is when the next one starts.
        if excess <= 1e-6 {
            return Ok(());
        }
        let wait = (excess / even * self.window as f64).ceil() as u64;
        Err(wait.clamp(1, self.reset_at.saturating_add(WINDOW_GRACE).saturating_sub(now).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "incident";
    const HOUR: u64 = 3_600_000;

    fn headers(limit: u32, reset_in: u64) -> RuleHeaders {
        RuleHeaders { rule: "r".into(), limit, reset_in }
    }

    fn share(urgent: bool) -> QuotaShare {
        QuotaShare { fraction: 1.0, urgent_reserve: 0.05, urgent, source: false, in_flight: 0 }
    }

    /// Sends all requests that are permitted until `end`; returns their number.
    fn run(rules: &mut RateLimitRules, from: u64, end: u64, urgent: bool) -> u32 {
        let (mut now, mut sent) = (from, 0);
        while now < end {
            match rules.check(TABLE, HttpMethod::Post, share(urgent), now) {
                Ok(()) => {
                    rules.count(TABLE, HttpMethod::Post, false);
                    sent += 1;
                }
                Err(wait) => now += wait,
            }
        }
        sent
    }

    #[test]
    fn without_a_rule_every_request_is_permitted() {
        let mut rules = RateLimitRules::new(super::super::RULE_WINDOW);
        assert_eq!(rules.check(TABLE, HttpMethod::Post, share(false), 0), Ok(()));
    }

    #[test]
    fn a_window_is_used_evenly_and_almost_fully_but_never_exceeded() {
        let mut rules = RateLimitRules::new(super::super::RULE_WINDOW);
        rules.learn(TABLE, HttpMethod::Post, &headers(1_000, HOUR), 0, 0);
        let half = run(&mut rules, 0, HOUR / 2, false);
        assert!((455..=475).contains(&half), "{half}");
        let whole = half + run(&mut rules, HOUR / 2, HOUR, false);
        assert!((920..=980).contains(&whole), "{whole}");
        let next = run(&mut rules, HOUR + WINDOW_GRACE, 2 * HOUR, false);
        assert!((920..=980).contains(&next), "{next}");
    }

    #[test]
    fn unused_quota_is_available_for_a_burst() {
        let mut rules = RateLimitRules::new(super::super::RULE_WINDOW);
        rules.learn(TABLE, HttpMethod::Post, &headers(1_000, HOUR), 0, 0);
        let burst = run(&mut rules, HOUR / 2, HOUR / 2 + 1, false);
        assert!((455..=475).contains(&burst), "{burst}");
    }

    #[test]
    fn an_urgent_request_is_sent_before_it_is_due() {
        let mut rules = RateLimitRules::new(super::super::RULE_WINDOW);
        rules.learn(TABLE, HttpMethod::Post, &headers(1_000, HOUR), 0, 0);
        run(&mut rules, 0, HOUR / 2, false);
        assert!(rules.check(TABLE, HttpMethod::Post, share(false), HOUR / 2).is_err());
        let urgent = run(&mut rules, HOUR / 2, HOUR / 2 + 1, true);
        assert!((45..=50).contains(&urgent), "{urgent}");
        let all = run(&mut rules, HOUR / 2 + 1, HOUR, true) + run(&mut rules, HOUR - 1, HOUR, false);
        assert!(all <= 980 - 465 - 45 + 5, "{all}: requests sent early reduce the later ones");
    }

    #[test]
    fn requests_due_before_the_first_response_count_as_sent() {
        let mut rules = RateLimitRules::new(super::super::RULE_WINDOW);
        rules.learn(TABLE, HttpMethod::Post, &headers(1_000, HOUR / 2), 0, 0);
        let rest = run(&mut rules, 0, HOUR / 2, false);
        assert!((440..=480).contains(&rest), "{rest}");
    }

    #[test]
    fn a_429_delays_only_its_table_and_method() {
        let mut rules = RateLimitRules::new(super::super::RULE_WINDOW);
        rules.throttle(TABLE, HttpMethod::Post, 3_000_000, 10);
        assert_eq!(rules.check(TABLE, HttpMethod::Post, share(true), 1_000_010), Err(2_000_000));
        assert_eq!(rules.check(TABLE, HttpMethod::Patch, share(false), 10), Ok(()));
        assert_eq!(rules.check("problem", HttpMethod::Post, share(false), 10), Ok(()));
        assert_eq!(rules.check(TABLE, HttpMethod::Post, share(false), 3_000_010), Ok(()));
    }

    #[test]
    fn a_member_uses_only_its_share() {
        let mut rules = RateLimitRules::new(super::super::RULE_WINDOW);
        rules.learn(TABLE, HttpMethod::Post, &headers(1_000, HOUR), 0, 0);
        let quarter = QuotaShare { fraction: 0.25, urgent_reserve: 0.0, urgent: false, source: false, in_flight: 0 };
        let mut sent = 0;
        for now in (0..HOUR).step_by(1_000) {
            while rules.check(TABLE, HttpMethod::Post, quarter, now).is_ok() {
                rules.count(TABLE, HttpMethod::Post, false);
                sent += 1;
            }
        }
        assert!((235..=245).contains(&sent), "{sent}");
    }
}
