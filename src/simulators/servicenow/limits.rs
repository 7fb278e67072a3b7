//! Limits on requests: one transaction per session, the threads for inbound integrations, rate-limit rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::Account;
use super::database::sys_id_of;
use super::faults::Faults;
use super::instance::{Instance, lock};
use super::options::{ApiInt, RateLimit};
use super::reply::Reply;
use super::table_storage::hex;
use super::time;

/// A session. It runs one transaction at a time.
pub(super) struct Session {
    pub cookie: String,
    semaphore: Arc<Semaphore>,
    waiting: AtomicU32,
    last_used: AtomicI64,
    pub account: Arc<Account>,
}

impl Session {
    /// Waits until no other transaction of the session runs. `None` if `queue_size` requests wait already.
    pub async fn acquire(&self, queue_size: u32) -> Option<OwnedSemaphorePermit> {
        self.last_used.store(time::now_ms(), Ordering::Relaxed);
        if let Ok(permit) = self.semaphore.clone().try_acquire_owned() {
            return Some(permit);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= queue_size {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let permit = self.semaphore.clone().acquire_owned().await.ok();
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

    pub fn open_session(&mut self, account: Arc<Account>) -> Arc<Session> {
        if self.open.len() >= self.prune_at {
            // An integration's session expires a minute after its last request.
            let oldest = time::now_ms() - 60_000;
            self.open.retain(|_, session| session.last_used.load(Ordering::Relaxed) > oldest);
            self.prune_at = (self.open.len() * 2).max(1_024);
        }
        let cookie = format!("{:032X}", self.rng.u128(..));
        let session = Arc::new(Session {
            cookie: cookie.clone(),
            semaphore: Arc::new(Semaphore::new(1)),
            waiting: AtomicU32::new(0),
            last_used: AtomicI64::new(time::now_ms()),
            account,
        });
        self.open.insert(cookie, session.clone());
        session
    }
}

/// Returns the session cookie of a `Cookie` header.
pub(super) fn session_cookie(header: &str) -> Option<&str> {
    header.split(';').find_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        matches!(name, "JSESSIONID" | "glide_session_store").then_some(value)
    })
}

/// The `Set-Cookie` values of a new session.
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

/// The threads for inbound integrations (semaphore `API_INT`), and their queue.
pub(super) struct IntegrationThreads {
    /// `None`: unlimited.
    threads: Option<Arc<Semaphore>>,
    queue: usize,
    waiting: AtomicUsize,
}

impl IntegrationThreads {
    pub fn new(options: ApiInt) -> Self {
        let threads = (options.threads > 0).then(|| Arc::new(Semaphore::new(options.threads)));
        Self { threads, queue: options.queue, waiting: AtomicUsize::new(0) }
    }

    pub fn is_limited(&self) -> bool {
        self.threads.is_some()
    }

    /// Waits for a free thread. `None` without a limit.
    ///
    /// # Errors
    /// The queue is full.
    pub async fn acquire(&self) -> Result<Option<OwnedSemaphorePermit>, ()> {
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
    /// Number of the window since the Unix epoch.
    index: u64,
    /// Requests counted in it.
    count: u64,
    /// When the count exceeded the limit, Unix seconds.
    exceeded_at: Option<u64>,
}

/// The counters of the rate-limit rules, by rule index and user.
#[derive(Default)]
pub(super) struct RateLimitCounters {
    windows: HashMap<(usize, String), Window>,
}

/// The state of the rate-limit rule that matches a request.
pub(super) struct RateLimitStatus {
    pub limit: u64,
    /// End of the window, Unix seconds.
    pub reset: u64,
    /// sys_id of the rule.
    pub rule: String,
    /// Seconds to wait, if the request exceeds the limit.
    pub retry_after: Option<u64>,
    /// Length of the window, seconds.
    pub window_seconds: u64,
}

impl RateLimitCounters {
    /// Counts a request against the most specific matching rule: first those for a user, then for a role, then others.
    pub fn count(
        &mut self,
        rules: &[RateLimit],
        account: &Account,
        method: &str,
        table: &str,
    ) -> Option<RateLimitStatus> {
        let applies = |rule: &RateLimit| {
            rule.user.as_ref().is_none_or(|user| *user == account.user.name)
                && rule.role.as_ref().is_none_or(|role| account.user.roles.contains(role))
                && rule.table.as_ref().is_none_or(|wanted| wanted == table)
                && rule.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
        };
        let rank = |rule: &RateLimit| (rule.user.is_none(), rule.role.is_none(), rule.requests);
        let (at, rule) =
            rules.iter().enumerate().filter(|(_, rule)| applies(rule)).min_by_key(|(_, rule)| rank(rule))?;
        let now = u64::try_from(time::now_ms()).unwrap_or(0) / 1_000;
        let window_seconds = rule.window_seconds.max(1);
        let index = now / window_seconds;
        let window = self
            .windows
            .entry((at, account.user.name.clone()))
            .and_modify(|window| {
                if window.index != index {
                    *window = Window { index, count: 0, exceeded_at: None };
                }
            })
            .or_insert(Window { index, count: 0, exceeded_at: None });
        window.count += 1;
        let over = window.count > rule.requests;
        if over && window.exceeded_at.is_none() {
            window.exceeded_at = Some(now);
        }
        let reset = (index + 1) * window_seconds;
        let enforced = over && window.exceeded_at.is_some_and(|at| now >= at + rule.enforcement_delay_seconds);
        Some(RateLimitStatus {
            limit: rule.requests,
            reset,
            rule: hex(sys_id_of("sys_rate_limit_rules", &at.to_string())),
            retry_after: enforced.then(|| (reset - now).max(1)),
            window_seconds,
        })
    }
}

/// The limit in the headers of a throttle window: so high that it limits no client once the window is over.
const THROTTLE_LIMIT: u32 = 3_600_000;

/// Returns the 429 response while a throttle window is open.
pub(super) fn throttle_response(instance: &Instance, writes: bool, faults: &Faults) -> Option<Reply> {
    let throttle = faults.throttle.as_ref()?;
    if throttle.writes_only && !writes {
        return None;
    }
    let now = u64::try_from(instance.started.elapsed().as_millis()).unwrap_or(0);
    if now % throttle.every_ms.max(1) >= throttle.for_ms {
        return None;
    }
    lock(&instance.fault_injector).count("throttle");
    let Some(seconds) = throttle.retry_after else { return Some(Reply::bare(429)) };
    let reset = time::now_ms().div_euclid(1_000) + i64::try_from(seconds).unwrap_or(0);
    let detail = format!("Rate limit of {THROTTLE_LIMIT} requests per hour for Table API exceeded");
    let reply = Reply::error(429, "Rate limit exceeded", Some(&detail))
        .with("retry-after", seconds.to_string())
        .with("x-ratelimit-limit", THROTTLE_LIMIT.to_string())
        .with("x-ratelimit-reset", reset.to_string())
        .with("x-ratelimit-rule", hex(sys_id_of("sys_rate_limit_rules", "throttle")));
    Some(reply)
}
