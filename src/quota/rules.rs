//! Rate-limit rules of the instance, learned from its answers.
//!
//! A rule allows a user so many requests an hour, counted in fixed windows, by API, table and method. Every answer that
//! a rule matched names it, its limit and when its window ends; how much of it is left nobody says, and a denial comes
//! up to 30 s late (ServiceNow's documentation of inbound rate limits, `sys_rate_limit_rules`). So what was spent is counted here,
//! and never more is sent in a window than the rule allows: evenly over the window, with what a quiet time has saved to
//! be spent at once later, and a part that only urgent requests may spend ahead of time.
//!
//! Not known is what others spend as the same user (give the bridge a user of its own), and what was spent before the
//! first answer: until the window ends, only what would be due from then on is sent.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::HttpMethod;

/// What is left of each rule: its node may count a request that we gave up, and its clock is not ours.
const MARGIN: f64 = 0.02;

/// A window counts as over so long after its end, milliseconds.
const LATE: u64 = 1_000;

/// What an answer says of the rule that it was counted against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleHeaders {
    /// `X-RateLimit-Rule`: the rule's sys_id; several tables or methods may share one.
    pub rule: String,
    /// `X-RateLimit-Limit`: requests in a window.
    pub limit: u32,
    /// Milliseconds until the window ends, by the instance's own clock.
    pub reset_in: u64,
}

/// Who wants to spend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuotaShare {
    /// This member's share of the rule, above 0 and at most 1.
    pub share: f64,
    /// The part of that which is kept for urgent requests.
    pub kept: f64,
    /// Whether this request is urgent.
    pub urgent: bool,
    /// Whether it is a source's: sources have an account of their own.
    pub source: bool,
    /// Requests that are out: where a window ends, they may be counted in the next.
    pub out: usize,
}

#[derive(Debug)]
struct Rule {
    limit: f64,
    window: u64,
    /// When the window ends, on the mono clock.
    reset: u64,
    /// The part of the window that had passed when the rule was met.
    missed: f64,
    /// Requests made in this window, by sinks and by sources.
    spent: [f64; 2],
    /// Denied until this instant.
    denied_until: u64,
}

/// The rules met so far.
#[derive(Debug)]
pub struct Rules {
    /// Their window, milliseconds.
    window: u64,
    known: HashMap<String, Rule>,
    of: HashMap<(String, HttpMethod), String>,
    /// Waits that the instance asked for without naming a rule.
    asked: HashMap<(String, HttpMethod), u64>,
}

impl Rules {
    /// None yet; each will count windows of this length.
    pub fn new(window: Duration) -> Self {
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { window, known: HashMap::new(), of: HashMap::new(), asked: HashMap::new() }
    }

    /// When a request may be sent: now (`Ok`), or in so many milliseconds.
    pub fn check(&mut self, table: &str, method: HttpMethod, part: QuotaShare, now: u64) -> Result<(), u64> {
        if self.of.is_empty() && self.asked.is_empty() {
            return Ok(());
        }
        let bucket = (table.to_owned(), method);
        if let Some(&until) = self.asked.get(&bucket) {
            if now < until {
                return Err(until - now);
            }
            self.asked.remove(&bucket);
        }
        let Some(rule) = self.of.get(&bucket).and_then(|id| self.known.get_mut(id)) else { return Ok(()) };
        rule.turn_over(part.out, now);
        rule.check(part, now)
    }

    /// A request is sent.
    pub fn spend(&mut self, table: &str, method: HttpMethod, source: bool) {
        if self.of.is_empty() {
            return;
        }
        let id = self.of.get(&(table.to_owned(), method));
        if let Some(rule) = id.and_then(|id| self.known.get_mut(id)) {
            rule.spent[usize::from(source)] += 1.0;
        }
    }

    /// An answer named its rule.
    pub fn learn(&mut self, table: &str, method: HttpMethod, told: &RuleHeaders, out: usize, now: u64) {
        let bucket = (table.to_owned(), method);
        if self.of.get(&bucket) != Some(&told.rule) {
            self.of.insert(bucket, told.rule.clone());
        }
        let (limit, reset) = (f64::from(told.limit), now.saturating_add(told.reset_in.min(self.window)));
        let window = self.window;
        let rule = self.known.entry(told.rule.clone()).or_insert_with(|| {
            let mut rule = Rule { limit, window, reset, missed: 0.0, spent: [0.0; 2], denied_until: 0 };
            // What was spent before is unknown: as much as was due.
            rule.missed = rule.passed(now);
            rule
        });
        rule.limit = limit;
        // Answers of two nodes may say a second more or less.
        if reset > rule.reset + LATE * 2 {
            rule.reset = reset;
            rule.begin(out);
        }
    }

    /// The instance denied a request, and asked to wait so many milliseconds.
    pub fn denied(&mut self, table: &str, method: HttpMethod, wait: u64, now: u64) {
        let (bucket, until) = ((table.to_owned(), method), now.saturating_add(wait));
        match self.of.get(&bucket).and_then(|id| self.known.get_mut(id)) {
            Some(rule) => rule.denied_until = rule.denied_until.max(until),
            None => {
                let asked = self.asked.entry(bucket).or_default();
                *asked = (*asked).max(until);
            }
        }
    }

    /// Requests a second that this method may make on this table in the long run, where a rule says so.
    pub fn rate(&self, table: &str, method: HttpMethod, share: f64) -> Option<f64> {
        let rule = self.known.get(self.of.get(&(table.to_owned(), method))?)?;
        #[expect(clippy::cast_precision_loss, reason = "an hour in milliseconds")]
        Some(rule.limit * (1.0 - MARGIN) * share * 1_000.0 / rule.window as f64)
    }
}

impl Rule {
    /// A window that is over makes place for the next.
    fn turn_over(&mut self, out: usize, now: u64) {
        if now >= self.reset.saturating_add(LATE) {
            let over = now - self.reset;
            self.reset += (over / self.window + 1) * self.window;
            self.begin(out);
            self.denied_until = self.denied_until.min(now);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a number of connections")]
    fn begin(&mut self, out: usize) {
        self.spent = [out as f64, 0.0];
        self.missed = 0.0;
    }

    /// The part of the window that has passed.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of an hour")]
    fn passed(&self, now: u64) -> f64 {
        let passed = self.window.saturating_sub(self.reset.saturating_sub(now));
        (passed as f64 / self.window as f64).min(1.0)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive wait within the window")]
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of an hour")]
    fn check(&self, part: QuotaShare, now: u64) -> Result<(), u64> {
        if now < self.denied_until {
            return Err(self.denied_until - now);
        }
        let whole = (self.limit * (1.0 - MARGIN) * part.share).floor().max(1.0);
        let (even, ahead) = (whole * (1.0 - part.kept), whole * part.kept);
        let due = even * (self.passed(now) - self.missed);
        let over = self.spent[usize::from(part.source)] + 1.0 - due - if part.urgent { ahead } else { 0.0 };
        // The last request of a window is due when it ends, which is when the next begins.
        if over <= 1e-6 {
            return Ok(());
        }
        let wait = (over / even * self.window as f64).ceil() as u64;
        Err(wait.clamp(1, self.reset.saturating_add(LATE).saturating_sub(now).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "incident";
    const HOUR: u64 = 3_600_000;

    fn told(limit: u32, reset_in: u64) -> RuleHeaders {
        RuleHeaders { rule: "r".into(), limit, reset_in }
    }

    fn part(urgent: bool) -> QuotaShare {
        QuotaShare { share: 1.0, kept: 0.05, urgent, source: false, out: 0 }
    }

    /// Sends whatever may be sent until `end`; how many.
    fn run(rules: &mut Rules, from: u64, end: u64, urgent: bool) -> u32 {
        let (mut now, mut sent) = (from, 0);
        while now < end {
            match rules.check(TABLE, HttpMethod::Post, part(urgent), now) {
                Ok(()) => {
                    rules.spend(TABLE, HttpMethod::Post, false);
                    sent += 1;
                }
                Err(wait) => now += wait,
            }
        }
        sent
    }

    #[test]
    fn without_a_rule_nothing_is_held_back() {
        let mut rules = Rules::new(super::super::HOUR);
        assert_eq!(rules.check(TABLE, HttpMethod::Post, part(false), 0), Ok(()));
    }

    #[test]
    fn a_window_is_spent_evenly_and_almost_whole_and_never_more() {
        let mut rules = Rules::new(super::super::HOUR);
        rules.learn(TABLE, HttpMethod::Post, &told(1_000, HOUR), 0, 0);
        let half = run(&mut rules, 0, HOUR / 2, false);
        assert!((455..=475).contains(&half), "{half}");
        let whole = half + run(&mut rules, HOUR / 2, HOUR, false);
        assert!((920..=980).contains(&whole), "{whole}");
        let next = run(&mut rules, HOUR + LATE, 2 * HOUR, false);
        assert!((920..=980).contains(&next), "{next}");
    }

    #[test]
    fn a_quiet_time_saves_for_a_storm() {
        let mut rules = Rules::new(super::super::HOUR);
        rules.learn(TABLE, HttpMethod::Post, &told(1_000, HOUR), 0, 0);
        let burst = run(&mut rules, HOUR / 2, HOUR / 2 + 1, false);
        assert!((455..=475).contains(&burst), "{burst}");
    }

    #[test]
    fn an_urgent_request_does_not_wait_for_its_time() {
        let mut rules = Rules::new(super::super::HOUR);
        rules.learn(TABLE, HttpMethod::Post, &told(1_000, HOUR), 0, 0);
        run(&mut rules, 0, HOUR / 2, false);
        assert!(rules.check(TABLE, HttpMethod::Post, part(false), HOUR / 2).is_err());
        let urgent = run(&mut rules, HOUR / 2, HOUR / 2 + 1, true);
        assert!((45..=50).contains(&urgent), "{urgent}");
        let all = run(&mut rules, HOUR / 2 + 1, HOUR, true) + run(&mut rules, HOUR - 1, HOUR, false);
        assert!(all <= 980 - 465 - 45 + 5, "{all}: what is spent ahead is missing later");
    }

    #[test]
    fn what_was_spent_before_the_first_answer_is_taken_for_due() {
        let mut rules = Rules::new(super::super::HOUR);
        rules.learn(TABLE, HttpMethod::Post, &told(1_000, HOUR / 2), 0, 0);
        let rest = run(&mut rules, 0, HOUR / 2, false);
        assert!((440..=480).contains(&rest), "{rest}");
    }

    #[test]
    fn a_denial_is_waited_out_by_its_table_and_method_only() {
        let mut rules = Rules::new(super::super::HOUR);
        rules.denied(TABLE, HttpMethod::Post, 3_000_000, 10);
        assert_eq!(rules.check(TABLE, HttpMethod::Post, part(true), 1_000_010), Err(2_000_000));
        assert_eq!(rules.check(TABLE, HttpMethod::Patch, part(false), 10), Ok(()));
        assert_eq!(rules.check("problem", HttpMethod::Post, part(false), 10), Ok(()));
        assert_eq!(rules.check(TABLE, HttpMethod::Post, part(false), 3_000_010), Ok(()));
    }

    #[test]
    fn a_member_spends_its_share() {
        let mut rules = Rules::new(super::super::HOUR);
        rules.learn(TABLE, HttpMethod::Post, &told(1_000, HOUR), 0, 0);
        let mut sent = 0;
        for now in (0..HOUR).step_by(1_000) {
            while rules
                .check(
                    TABLE,
                    HttpMethod::Post,
                    QuotaShare { share: 0.25, kept: 0.0, urgent: false, source: false, out: 0 },
                    now,
                )
                .is_ok()
            {
                rules.spend(TABLE, HttpMethod::Post, false);
                sent += 1;
            }
        }
        assert!((235..=245).contains(&sent), "{sent}");
    }
}
