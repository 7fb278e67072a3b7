//! What slows callers down: one transaction per session, the pool of integration threads, rate-limit rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::Account;
use super::faults::Faults;
use super::instance::{Instance, lock};
use super::options::{ApiInt, RateLimit};
use super::reply::Reply;
use super::time;
use super::world::sys_id_of;

/// A session runs one transaction at a time.
pub(super) struct Session {
    pub cookie: String,
    gate: Arc<Semaphore>,
    waiting: AtomicU32,
    last_used: AtomicI64,
    pub account: Arc<Account>,
}

impl Session {
    /// Waits for the session's turn; none if too many wait already.
    pub async fn enter(&self, most: u32) -> Option<OwnedSemaphorePermit> {
        self.last_used.store(time::now_ms(), Ordering::Relaxed);
        if let Ok(permit) = self.gate.clone().try_acquire_owned() {
            return Some(permit);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= most {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let permit = self.gate.clone().acquire_owned().await.ok();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        permit
    }
}

/// Open sessions by cookie.
pub(super) struct Sessions {
    open: HashMap<String, Arc<Session>>,
    rng: fastrand::Rng,
    prune_at: usize,
}

impl Sessions {
    pub fn new(seed: u64) -> Self {
        Self { open: HashMap::new(), rng: fastrand::Rng::with_seed(seed ^ 0x5e55), prune_at: 1_024 }
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn clear(&mut self) {
        self.open.clear();
    }

    pub fn find(&self, cookie: &str) -> Option<Arc<Session>> {
        self.open.get(cookie).cloned()
    }

    pub fn open(&mut self, account: Arc<Account>) -> Arc<Session> {
        if self.open.len() >= self.prune_at {
            // An integration's session expires after a minute without a request.
            let oldest = time::now_ms() - 60_000;
            self.open.retain(|_, session| session.last_used.load(Ordering::Relaxed) > oldest);
            self.prune_at = (self.open.len() * 2).max(1_024);
        }
        let cookie = format!("{:032X}", self.rng.u128(..));
        let session = Arc::new(Session {
            cookie: cookie.clone(),
            gate: Arc::new(Semaphore::new(1)),
            waiting: AtomicU32::new(0),
            last_used: AtomicI64::new(time::now_ms()),
            account,
        });
        self.open.insert(cookie, session.clone());
        session
    }
}

/// The session cookie of a `Cookie` header.
pub(super) fn session_cookie(header: &str) -> Option<&str> {
    header.split(';').find_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        matches!(name, "JSESSIONID" | "glide_session_store").then_some(value)
    })
}

/// The cookies a new session hands out.
pub(super) fn cookies(session: &Session) -> [String; 6] {
    let id = &session.cookie;
    [
        format!("JSESSIONID={id}; Path=/; HttpOnly"),
        format!("glide_session_store={id}; Max-Age=1800; Path=/; HttpOnly"),
        "glide_user=; Max-Age=0; Path=/; HttpOnly".into(),
        "glide_user_session=; Max-Age=0; Path=/; HttpOnly".into(),
        "glide_user_route=glide.5a1b0e57; Max-Age=2147483647; Path=/; HttpOnly".into(),
        "BIGipServerpool_simulator=aa0d; Path=/; HttpOnly".into(),
    ]
}

/// The threads that serve inbound integrations, and their queue.
pub(super) struct Pool {
    threads: Option<Arc<Semaphore>>,
    queue: usize,
    waiting: AtomicUsize,
}

impl Pool {
    pub fn new(options: ApiInt) -> Self {
        let threads = (options.threads > 0).then(|| Arc::new(Semaphore::new(options.threads)));
        Self { threads, queue: options.queue, waiting: AtomicUsize::new(0) }
    }

    pub fn is_limited(&self) -> bool {
        self.threads.is_some()
    }

    /// A thread, at once or after waiting; an error if the queue is full.
    pub async fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, ()> {
        let Some(threads) = &self.threads else { return Ok(None) };
        if let Ok(permit) = threads.clone().try_acquire_owned() {
            return Ok(Some(permit));
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.queue {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(());
        }
        let permit = threads.clone().acquire_owned().await.ok();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(permit)
    }
}

struct Window {
    index: u64,
    count: u64,
    reached_at: Option<u64>,
}

/// Counters of the rate-limit rules.
#[derive(Default)]
pub(super) struct Rates {
    windows: HashMap<(usize, String), Window>,
}

/// What the matching rule says of a request.
pub(super) struct Verdict {
    pub limit: u64,
    /// Unix seconds.
    pub reset: u64,
    pub rule: String,
    /// Seconds to wait, where the request is denied.
    pub denied: Option<u64>,
    /// The rule's window in seconds.
    pub window: u64,
}

impl Rates {
    /// Counts a request against the most specific matching rule: user before role before all.
    pub fn count(&mut self, rules: &[RateLimit], account: &Account, method: &str, table: &str) -> Option<Verdict> {
        let fits = |rule: &RateLimit| {
            rule.user.as_ref().is_none_or(|user| *user == account.user.name)
                && rule.role.as_ref().is_none_or(|role| account.user.roles.contains(role))
                && rule.table.as_ref().is_none_or(|wanted| wanted == table)
                && rule.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
        };
        let rank = |rule: &RateLimit| (rule.user.is_none(), rule.role.is_none(), rule.requests);
        let (at, rule) = rules.iter().enumerate().filter(|(_, rule)| fits(rule)).min_by_key(|(_, rule)| rank(rule))?;
        let now = u64::try_from(time::now_ms()).unwrap_or(0) / 1_000;
        let length = rule.window_seconds.max(1);
        let index = now / length;
        let window = self
            .windows
            .entry((at, account.user.name.clone()))
            .and_modify(|window| {
                if window.index != index {
                    *window = Window { index, count: 0, reached_at: None };
                }
            })
            .or_insert(Window { index, count: 0, reached_at: None });
        window.count += 1;
        let over = window.count > rule.requests;
        if over && window.reached_at.is_none() {
            window.reached_at = Some(now);
        }
        let reset = (index + 1) * length;
        let enforced = over && window.reached_at.is_some_and(|at| now >= at + rule.lag_seconds);
        Some(Verdict {
            limit: rule.requests,
            reset,
            rule: super::storage::hex(sys_id_of("sys_rate_limit_rules", &at.to_string())),
            denied: enforced.then(|| (reset - now).max(1)),
            window: length,
        })
    }
}

/// The limit of the rule that a throttle window pretends to: so high that it bounds nothing once the window is over.
const THROTTLE: u32 = 3_600_000;

/// The denial of a throttle window, if one is open.
pub(super) fn throttled(instance: &Instance, writes: bool, faults: &Faults) -> Option<Reply> {
    let throttle = faults.throttle.as_ref()?;
    if throttle.writes_only && !writes {
        return None;
    }
    let now = u64::try_from(instance.started.elapsed().as_millis()).unwrap_or(0);
    if now % throttle.every_ms.max(1) >= throttle.for_ms {
        return None;
    }
    lock(&instance.strikes).count("throttle");
    let Some(seconds) = throttle.retry_after else { return Some(Reply::bare(429)) };
    let reset = time::now_ms().div_euclid(1_000) + i64::try_from(seconds).unwrap_or(0);
    let detail = format!("Rate limit of {THROTTLE} requests per hour for Table API exceeded");
    let reply = Reply::error(429, "Rate limit exceeded", Some(&detail))
        .with("retry-after", seconds.to_string())
        .with("x-ratelimit-limit", THROTTLE.to_string())
        .with("x-ratelimit-reset", reset.to_string())
        .with("x-ratelimit-rule", super::storage::hex(sys_id_of("sys_rate_limit_rules", "throttle")));
    Some(reply)
}
