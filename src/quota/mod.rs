//! Limits the requests to an instance: a configured rate, the instance's rate-limit rules, and adaptive concurrency.
//!
//! A [`RequestLimiter`] decides when the next request may be sent and on which slot. It applies three limits: the
//! configured rate (`rate_limit`), if there is one; the instance's own rate-limit rules, learned from its responses
//! ([`rules`]); and a concurrency limit that adapts to the instance's load ([`concurrency`]). All routes of a process
//! that use one instance share one limiter. Members that share the routes split the quota: each uses the fraction that
//! corresponds to its assigned partitions. Where source routes exist, they have a tenth of the quota; a small part of
//! the rest is reserved for urgent requests.
//!
//! The caller passes the time. Nothing here reads a clock or sleeps, so the same calls always give the same results. A
//! slot is both a permit and a number: the client keeps one connection and one session per slot. The slot released last
//! is granted first, which keeps a few sessions warm and lets the others close.

pub mod concurrency;
mod rate_limit;
pub mod rules;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::{HttpMethod, QuotaStatus, RequestCounts};

use concurrency::{AdaptiveConcurrency, LoadSignal};
use rate_limit::RateLimit;
use rules::{QuotaShare, RateLimitRules, RuleHeaders};

/// The fraction of the quota that is reserved for source routes, where there are any.
const SOURCE_SHARE: f64 = 0.1;

/// The fraction of a learned rule that only urgent requests may use before it is due.
const URGENT_RESERVE: f64 = 0.05;

/// The default window of a rate-limit rule.
pub const RULE_WINDOW: Duration = Duration::from_secs(3_600);

/// Milliseconds for which the next free slot is reserved for a source that found none.
const SOURCE_RESERVATION: u64 = 200;

/// Settings of a [`RequestLimiter`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimiterSettings {
    /// Maximum requests in any window of `per`, bursts included; `None`: no rate limit.
    pub rate: Option<NonZeroU32>,
    /// The window of `rate`: a second, a minute or an hour.
    pub per: Duration,
    /// The window of the instance's own rate-limit rules: an hour.
    pub rate_limit_window: Duration,
    /// Concurrency slots, at least one: the maximum number of concurrent requests.
    pub slots: usize,
    /// Whether source routes use the instance as well.
    pub sources: bool,
}

impl Default for LimiterSettings {
    fn default() -> Self {
        Self { rate: None, per: Duration::from_secs(1), rate_limit_window: RULE_WINDOW, slots: 4, sources: false }
    }
}

/// The class of a request, by which the quota is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestClass {
    /// A request of a sink route that may wait.
    Normal,
    /// A request of a sink route for an alert that must not wait.
    Urgent,
    /// A request of a source route.
    Source,
}

/// A request for a permit to send one HTTP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermitRequest<'a> {
    /// Rate-limit rules may apply to one table only.
    pub table: &'a str,
    /// Rate-limit rules may apply to one method only.
    pub method: HttpMethod,
    pub class: RequestClass,
}

/// The result of [`RequestLimiter::try_acquire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermitDecision {
    /// One request may be sent now on this slot; return it with [`RequestLimiter::release`].
    Granted { slot: usize },
    /// The rate limit is reached; retry after this many milliseconds.
    RateLimited(u64),
    /// The rate-limit rule of this table and method is exhausted; retry after this many milliseconds. A request with
    /// another method or to another table may be permitted sooner.
    RuleLimited(u64),
    /// The concurrency limit is reached; retry after a release.
    AtConcurrencyLimit,
}

/// What the responses to the requests of one permit say about the instance's quota and load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadFeedback {
    /// HTTP requests sent; the permit covers one of them.
    pub requests: u32,
    /// The load signal of the last request; `None` where its response gives none.
    pub signal: Option<LoadSignal>,
    /// The rate-limit rule that the last request was counted against.
    pub rule: Option<RuleHeaders>,
    /// Milliseconds of `Retry-After`, where a rate-limit rule rejected a request (429).
    pub retry_after: Option<u64>,
}

/// The request limiter of one instance, shared by all its routes.
#[derive(Debug)]
pub struct RequestLimiter {
    sources: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    free: Vec<usize>,
    slots: usize,
    concurrency: AdaptiveConcurrency,
    sink: Option<RateLimit>,
    source: Option<RateLimit>,
    rules: RateLimitRules,
    /// By route.
    assignments: BTreeMap<String, Assignment>,
    /// This member's fraction of the sink routes' quota, above 0 and at most 1.
    share: f64,
    /// The next free slot is reserved for a source until this time, milliseconds.
    source_reserved_until: u64,
    /// Sinks have no quota until this time, milliseconds.
    exhausted_until: u64,
    /// Requests since the start, by class.
    requests: RequestCounts,
}

/// Partitions of a sink route's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Assignment {
    /// Assigned to this member.
    assigned: usize,
    total: usize,
}

impl Inner {
    fn requests_of(&mut self, class: RequestClass) -> &mut u64 {
        match class {
            RequestClass::Normal => &mut self.requests.normal,
            RequestClass::Urgent => &mut self.requests.urgent,
            RequestClass::Source => &mut self.requests.source,
        }
    }

    fn note_exhausted(&mut self, class: RequestClass, wait: u64, now: u64) {
        if class != RequestClass::Source {
            self.exhausted_until = now.saturating_add(wait);
        }
    }
}

impl RequestLimiter {
    /// A limiter with all slots free.
    pub fn new(settings: &LimiterSettings) -> Self {
        let slots = settings.slots.max(1);
        let source_share = if settings.sources { SOURCE_SHARE } else { 0.0 };
        let rate_limit = |share: f64| settings.rate.map(|rate| RateLimit::new(share_of(rate, share), settings.per));
        let inner = Inner {
            free: (0..slots).rev().collect(),
            slots,
            concurrency: AdaptiveConcurrency::new(slots),
            sink: rate_limit(1.0 - source_share),
            source: rate_limit(source_share).filter(|_| settings.sources),
            rules: RateLimitRules::new(settings.rate_limit_window),
            assignments: BTreeMap::new(),
            share: 1.0,
            source_reserved_until: 0,
            exhausted_until: 0,
            requests: RequestCounts::default(),
        };
        Self { sources: settings.sources, inner: Mutex::new(inner) }
    }

    /// Tries to acquire a permit for one request at `now`, milliseconds on a monotonic clock. A token of the rate limit
    /// is used only where a slot is free as well.
    pub fn try_acquire(&self, request: PermitRequest<'_>, now: u64) -> PermitDecision {
        let share = self.quota_share(request.class);
        let mut inner = self.lock();
        let in_flight = inner.slots - inner.free.len();
        // Urgent requests may exceed the adaptive limit by one, so that the load that delays others does not delay
        // them.
        let limit = inner.concurrency.limit() + usize::from(request.class == RequestClass::Urgent);
        let is_source = request.class == RequestClass::Source;
        // Sinks request permits far more often than a source does, and would take every slot that is released.
        let reserved = usize::from(!is_source && now < inner.source_reserved_until);
        let Some(&slot) = inner.free.last().filter(|_| in_flight + reserved < limit) else {
            if is_source {
                inner.source_reserved_until = now + SOURCE_RESERVATION;
            }
            return PermitDecision::AtConcurrencyLimit;
        };
        let fraction = share.fraction * if is_source { 1.0 } else { inner.share };
        let share = QuotaShare { fraction, in_flight, ..share };
        if let Err(wait) = inner.rules.check(request.table, request.method, share, now) {
            inner.note_exhausted(request.class, wait, now);
            return PermitDecision::RuleLimited(wait);
        }
        let rate_limit = if is_source { &mut inner.source } else { &mut inner.sink };
        if let Some(rate_limit) = rate_limit
            && let Err(wait) = rate_limit.try_acquire(share.urgent, now)
        {
            inner.note_exhausted(request.class, wait, now);
            return PermitDecision::RateLimited(wait);
        }
        inner.rules.count(request.table, request.method, is_source);
        *inner.requests_of(request.class) += 1;
        inner.free.pop();
        if is_source {
            inner.source_reserved_until = 0;
        }
        PermitDecision::Granted { slot }
    }

    /// How many more requests the concurrency limit permits now. Zero under a configured rate limit, and while the
    /// quota is exhausted: then the quota is the bottleneck, not the slots.
    pub fn available(&self, now: u64) -> usize {
        let inner = self.lock();
        let in_flight = inner.slots - inner.free.len();
        let exhausted = inner.sink.is_some() || now < inner.exhausted_until;
        if exhausted { 0 } else { inner.concurrency.limit().saturating_sub(in_flight) }
    }

    /// Releases a slot. A slot that is not in use is ignored.
    pub fn release(&self, slot: usize) {
        let mut inner = self.lock();
        if slot < inner.slots && !inner.free.contains(&slot) {
            inner.free.push(slot);
        }
    }

    /// Records the feedback of a permit's requests. Call it before the slot is released.
    pub fn record(&self, request: PermitRequest<'_>, feedback: &LoadFeedback, now: u64) {
        let mut inner = self.lock();
        let in_flight = inner.slots - inner.free.len();
        if let Some(signal) = feedback.signal {
            inner.concurrency.record(request.method, signal, in_flight, now);
        }
        let is_source = request.class == RequestClass::Source;
        if let Some(rule) = &feedback.rule {
            inner.rules.learn(request.table, request.method, rule, in_flight, now);
        }
        let more = feedback.requests.saturating_sub(1);
        (0..more).for_each(|_| inner.rules.count(request.table, request.method, is_source));
        *inner.requests_of(request.class) += u64::from(more);
        let rate_limit = if is_source { &mut inner.source } else { &mut inner.sink };
        if let Some(rate_limit) = rate_limit {
            rate_limit.add_debt(more);
        }
        if let Some(wait) = feedback.retry_after {
            inner.rules.throttle(request.table, request.method, wait, now);
        }
    }

    /// Sets how many of a sink route's partitions are assigned to this member. The member's share of the quota is its
    /// share of the partitions of all routes.
    pub fn set_share(&self, route: &str, assigned: usize, total: usize, now: u64) {
        let mut inner = self.lock();
        let assignment = Assignment { assigned, total };
        if inner.assignments.get(route) == Some(&assignment) {
            return;
        }
        inner.assignments.insert(route.to_owned(), assignment);
        let sum = |(assigned, total), route: &Assignment| {
            (assigned + route.assigned, total + route.total.max(route.assigned))
        };
        let (assigned, total) = inner.assignments.values().fold((0, 0), sum);
        #[expect(clippy::cast_precision_loss, reason = "numbers of partitions")]
        // A member without partitions sends nothing.
        let share = if assigned == 0 { 1.0 } else { assigned as f64 / total as f64 };
        inner.share = share;
        if let Some(rate_limit) = &mut inner.sink {
            rate_limit.set_share(share, now);
        }
    }

    /// Slots in use.
    pub fn in_flight(&self) -> usize {
        let inner = self.lock();
        inner.slots - inner.free.len()
    }

    /// The quota's limits and usage, for writes to this table.
    pub fn status(&self, table: &str) -> QuotaStatus {
        let fraction = self.quota_share(RequestClass::Normal).fraction;
        let inner = self.lock();
        let rule = |method| inner.rules.rate(table, method, fraction * inner.share);
        let rule = [rule(HttpMethod::Post), rule(HttpMethod::Patch)].into_iter().flatten().reduce(f64::min);
        let rate = inner.sink.as_ref().map(RateLimit::per_second);
        let latency = |method| inner.concurrency.latency(method);
        QuotaStatus {
            requests_per_second: [rate, rule].into_iter().flatten().reduce(f64::min),
            batch_size: None,
            concurrency_limit: inner.concurrency.limit(),
            max_concurrency: inner.slots,
            in_flight: inner.slots - inner.free.len(),
            share: inner.share,
            requests: inner.requests,
            write_latency_ms: [latency(HttpMethod::Patch), latency(HttpMethod::Post)]
                .into_iter()
                .flatten()
                .reduce(f64::max),
        }
    }

    /// The share of a learned rule that a class of requests has, before members split it.
    fn quota_share(&self, class: RequestClass) -> QuotaShare {
        let sink_share = 1.0 - if self.sources { SOURCE_SHARE } else { 0.0 };
        let source = class == RequestClass::Source;
        QuotaShare {
            fraction: if source { SOURCE_SHARE } else { sink_share },
            urgent_reserve: if source { 0.0 } else { URGENT_RESERVE },
            urgent: class != RequestClass::Normal,
            source,
            in_flight: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
fn share_of(rate: NonZeroU32, share: f64) -> NonZeroU32 {
    NonZeroU32::new((f64::from(rate.get()) * share) as u32).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests;
