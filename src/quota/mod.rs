//! When the next request may leave, and on which slot: the quota of an instance and how much it can do at once.
//!
//! Three things say so. The configured rate (`meter`), if there is one; the instance's own rate-limit rules, learned
//! from its answers ([`rules`]); and a number of requests at once that follows how the instance bears it
//! ([`concurrency`]). One pace is shared by all routes of a process that ask one instance. Of members that share the
//! routes each spends its share: the part of the partitions that it holds. A tenth is kept for source routes, where
//! there are any, and of the rest a little for urgent requests.
//!
//! Whoever asks passes the instant in; nothing here reads a clock or sleeps, so the same calls always give the same
//! answers. A slot is a permit and a number at once: the client keeps one connection and one session per slot. The
//! slot given back last is given out first, which keeps sessions warm and leaves the others to close.

pub mod concurrency;
mod meter;
pub mod rules;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::{HttpMethod, QuotaStatus};

use concurrency::{Concurrency, LoadSignal};
use meter::Meter;
use rules::{QuotaShare, RuleHeaders, Rules};

/// The part of the quota that is kept for source routes, where there are any.
const FOR_SOURCES: f64 = 0.1;

/// The part of a learned rule that only urgent requests may spend ahead of time.
const FOR_URGENT: f64 = 0.05;

/// The window of a rate-limit rule.
pub const HOUR: Duration = Duration::from_secs(3_600);

/// A source that found no slot free has the next one, if it asks again within so many milliseconds.
const SOURCE_NEXT: u64 = 200;

/// How much may be asked of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaceSettings {
    /// Most requests in any window of `per`, the burst included; `None`: as many as the slots carry.
    pub rate: Option<NonZeroU32>,
    /// The window: a second, a minute, an hour. Rate-limit rules of an instance count hours.
    pub per: Duration,
    /// The window of the instance's own rate-limit rules: an hour.
    pub rule_window: Duration,
    /// Concurrency slots, at least one: the most requests at once.
    pub slots: usize,
    /// Whether source routes ask the instance as well.
    pub sources: bool,
}

impl Default for PaceSettings {
    fn default() -> Self {
        Self { rate: None, per: Duration::from_secs(1), rule_window: HOUR, slots: 4, sources: false }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestClass {
    /// A sink route.
    Sink,
    /// A sink route, for an alert that must not wait.
    Urgent,
    /// A source route.
    Source,
}

/// A request that wants to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermitRequest<'a> {
    /// The table: rate-limit rules may tell tables apart.
    pub table: &'a str,
    /// The method: and methods.
    pub method: HttpMethod,
    /// Who asks.
    pub class: RequestClass,
}

/// The answer to [`Pace::try_take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermitDecision {
    /// One request may leave now on this slot; give it back with [`Pace::release`].
    Granted {
        /// The slot.
        slot: usize,
    },
    /// Ask again after so many milliseconds.
    Wait(u64),
    /// As `Wait`, but a request of another method or on another table may leave sooner.
    Held(u64),
    /// As many are out as the instance bears: ask again after a release.
    Busy,
}

/// What the requests of one permit told of the instance's quota and crowd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadFeedback {
    /// HTTP requests that were sent; the permit paid for one.
    pub requests: u32,
    /// How the instance bore the last of them, where it said anything.
    pub sign: Option<LoadSignal>,
    /// The rate-limit rule that the last was counted against.
    pub rule: Option<RuleHeaders>,
    /// It was denied by a rule, which asked to wait so many milliseconds.
    pub denied: Option<u64>,
}

/// The pace of one instance, shared by all that ask it.
#[derive(Debug)]
pub struct Pace {
    sources: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    free: Vec<usize>,
    slots: usize,
    concurrency: Concurrency,
    sink: Option<Meter>,
    source: Option<Meter>,
    rules: Rules,
    /// Partitions held, and all of them, by route.
    shares: BTreeMap<String, (usize, usize)>,
    share: f64,
    /// Until when the next free slot is a source's.
    source_next: u64,
    /// Until when the quota has nothing for sinks, as they were told.
    lacking_until: u64,
    spent: [u64; 3],
}

impl Inner {
    fn lack(&mut self, class: RequestClass, wait: u64, now: u64) {
        if class != RequestClass::Source {
            self.lacking_until = now.saturating_add(wait);
        }
    }
}

impl Pace {
    /// A pace with all slots free.
    pub fn new(settings: &PaceSettings) -> Self {
        let slots = settings.slots.max(1);
        let kept = if settings.sources { FOR_SOURCES } else { 0.0 };
        let meter = |part: f64| settings.rate.map(|rate| Meter::new(part_of(rate, part), settings.per));
        let inner = Inner {
            free: (0..slots).rev().collect(),
            slots,
            concurrency: Concurrency::new(slots),
            sink: meter(1.0 - kept),
            source: meter(kept).filter(|_| settings.sources),
            rules: Rules::new(settings.rule_window),
            shares: BTreeMap::new(),
            share: 1.0,
            source_next: 0,
            lacking_until: 0,
            spent: [0; 3],
        };
        Self { sources: settings.sources, inner: Mutex::new(inner) }
    }

    /// Asks to send one request at `now`, milliseconds on a clock that never steps. A token of the rate is spent only
    /// where a slot is free as well.
    pub fn try_take(&self, ask: PermitRequest<'_>, now: u64) -> PermitDecision {
        let part = self.part(ask.class);
        let mut inner = self.lock();
        let out = inner.slots - inner.free.len();
        // The most urgent has one more than the instance seems to bear: what has the others wait must not hold it up too.
        let at_once = inner.concurrency.limit() + usize::from(ask.class == RequestClass::Urgent);
        let is_source = ask.class == RequestClass::Source;
        // Many ask for what comes free, and a source asks seldom.
        let spoken_for = usize::from(!is_source && now < inner.source_next);
        let Some(&slot) = inner.free.last().filter(|_| out + spoken_for < at_once) else {
            if is_source {
                inner.source_next = now + SOURCE_NEXT;
            }
            return PermitDecision::Busy;
        };
        let part = QuotaShare { share: part.share * if is_source { 1.0 } else { inner.share }, out, ..part };
        if let Err(wait) = inner.rules.check(ask.table, ask.method, part, now) {
            inner.lack(ask.class, wait, now);
            return PermitDecision::Held(wait);
        }
        let meter = if is_source { &mut inner.source } else { &mut inner.sink };
        if let Some(meter) = meter
            && let Err(wait) = meter.take(part.urgent, now)
        {
            inner.lack(ask.class, wait, now);
            return PermitDecision::Wait(wait);
        }
        inner.rules.spend(ask.table, ask.method, is_source);
        inner.spent[ask.class as usize] += 1;
        inner.free.pop();
        if is_source {
            inner.source_next = 0;
        }
        PermitDecision::Granted { slot }
    }

    /// How many requests could leave at once now, as far as is known without asking for them. Under a rate limit, and
    /// while a rule lets nothing through, it says none: then the quota, not slots, is what is waited for.
    pub fn room(&self, now: u64) -> usize {
        let inner = self.lock();
        let out = inner.slots - inner.free.len();
        let lacks = inner.sink.is_some() || now < inner.lacking_until;
        if lacks { 0 } else { inner.concurrency.limit().saturating_sub(out) }
    }

    /// Gives a slot back. One that was not taken is ignored.
    pub fn release(&self, slot: usize) {
        let mut inner = self.lock();
        if slot < inner.slots && !inner.free.contains(&slot) {
            inner.free.push(slot);
        }
    }

    /// Takes in what the requests of a permit told, before its slot is given back.
    pub fn record(&self, ask: PermitRequest<'_>, feedback: &LoadFeedback, now: u64) {
        let mut inner = self.lock();
        let out = inner.slots - inner.free.len();
        if let Some(sign) = feedback.sign {
            inner.concurrency.record(ask.method, sign, out, now);
        }
        let is_source = ask.class == RequestClass::Source;
        if let Some(told) = &feedback.rule {
            inner.rules.learn(ask.table, ask.method, told, out, now);
        }
        let more = feedback.requests.saturating_sub(1);
        (0..more).for_each(|_| inner.rules.spend(ask.table, ask.method, is_source));
        inner.spent[ask.class as usize] += u64::from(more);
        let meter = if is_source { &mut inner.source } else { &mut inner.sink };
        if let Some(meter) = meter {
            meter.owe(more);
        }
        if let Some(wait) = feedback.denied {
            inner.rules.denied(ask.table, ask.method, wait, now);
        }
    }

    /// A sink route holds so many of its partitions: the quota is shared by what members hold of all routes.
    pub fn set_share(&self, route: &str, held: usize, all: usize, now: u64) {
        let mut inner = self.lock();
        if inner.shares.get(route) == Some(&(held, all)) {
            return;
        }
        inner.shares.insert(route.to_owned(), (held, all));
        let (held, all) = inner.shares.values().fold((0, 0), |(h, a), &(held, all)| (h + held, a + all.max(held)));
        #[expect(clippy::cast_precision_loss, reason = "numbers of partitions")]
        // Who holds nothing has nothing to send.
        let share = if held == 0 { 1.0 } else { held as f64 / all as f64 };
        inner.share = share;
        if let Some(meter) = &mut inner.sink {
            meter.set_share(share, now);
        }
    }

    /// Slots in use.
    pub fn in_flight(&self) -> usize {
        let inner = self.lock();
        inner.slots - inner.free.len()
    }

    /// How the quota is spent, for writes to this table.
    pub fn plan(&self, table: &str) -> QuotaStatus {
        let share = self.part(RequestClass::Sink).share;
        let inner = self.lock();
        let rule = |method| inner.rules.rate(table, method, share * inner.share);
        let rule = [rule(HttpMethod::Post), rule(HttpMethod::Patch)].into_iter().flatten().reduce(f64::min);
        let rate = inner.sink.as_ref().map(Meter::per_second);
        let latency = |method| inner.concurrency.latency(method);
        QuotaStatus {
            per_second: [rate, rule].into_iter().flatten().reduce(f64::min),
            per_call: None,
            at_once: (inner.concurrency.limit(), inner.slots),
            out: inner.slots - inner.free.len(),
            share: inner.share,
            spent: inner.spent,
            latency: [latency(HttpMethod::Patch), latency(HttpMethod::Post)].into_iter().flatten().reduce(f64::max),
        }
    }

    /// The part of a learned rule that a spender has, before members share it.
    fn part(&self, class: RequestClass) -> QuotaShare {
        let kept = if self.sources { FOR_SOURCES } else { 0.0 };
        match class {
            RequestClass::Source => QuotaShare { share: FOR_SOURCES, kept: 0.0, urgent: true, source: true, out: 0 },
            RequestClass::Sink => {
                QuotaShare { share: 1.0 - kept, kept: FOR_URGENT, urgent: false, source: false, out: 0 }
            }
            RequestClass::Urgent => {
                QuotaShare { share: 1.0 - kept, kept: FOR_URGENT, urgent: true, source: false, out: 0 }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a u32")]
fn part_of(rate: NonZeroU32, part: f64) -> NonZeroU32 {
    NonZeroU32::new((f64::from(rate.get()) * part) as u32).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests;
