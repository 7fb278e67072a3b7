//! A running instance: its data, accounts, faults and counts, each with its own lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::auth::Auth;
use super::database::Database;
use super::fault_injection::FaultInjector;
use super::faults::Faults;
use super::limits::{IntegrationThreads, RateLimitCounters, Sessions};
use super::options::Options;

/// A running instance.
pub(super) struct Instance {
    pub options: Options,
    /// The instance's own URL, without a slash at the end.
    pub url: String,
    pub database: Mutex<Database>,
    faults: RwLock<Arc<Faults>>,
    pub fault_injector: Mutex<FaultInjector>,
    pub auth: Mutex<Auth>,
    pub sessions: Mutex<Sessions>,
    pub rate_limit_counters: Mutex<RateLimitCounters>,
    pub integration_threads: IntegrationThreads,
    pub started: Instant,
    pub stop: CancellationToken,
    stats: Mutex<Stats>,
    transactions: AtomicU64,
    /// Number of [`InFlight`] guards.
    in_flight: AtomicUsize,
}

/// Counts a transaction as in flight until dropped, whether or not the caller still waits.
pub(super) struct InFlight<'a>(&'a Instance);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts of requests, by method, table and status, and of other events.
#[derive(Default)]
struct Stats {
    requests: HashMap<(&'static str, &'static str, u16), u64>,
    counters: BTreeMap<&'static str, u64>,
    dropped_terms: BTreeMap<String, u64>,
}

/// Locks a mutex. After a panic in another holder the instance continues with the data as it is.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Instance {
    /// # Errors
    /// A message that says what is wrong with the options.
    pub fn new(options: Options, url: String) -> Result<Self, String> {
        let mut database = Database::new(&options)?;
        let auth = Auth::new(&options, &mut database)?;
        Ok(Self {
            url,
            database: Mutex::new(database),
            faults: RwLock::new(Arc::new(options.faults.clone())),
            fault_injector: Mutex::new(FaultInjector::new(options.faults.seed)),
            auth: Mutex::new(auth),
            sessions: Mutex::new(Sessions::new(options.seed)),
            rate_limit_counters: Mutex::new(RateLimitCounters::default()),
            integration_threads: IntegrationThreads::new(options.api_int),
            started: Instant::now(),
            stop: CancellationToken::new(),
            stats: Mutex::default(),
            transactions: AtomicU64::new(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            in_flight: AtomicUsize::new(0),
            options,
        })
    }

    pub fn faults(&self) -> Arc<Faults> {
        self.faults.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the active faults. A changed seed restarts the draws.
    pub fn set_faults(&self, faults: Faults) {
        let mut current = self.faults.write().unwrap_or_else(PoisonError::into_inner);
        if current.seed != faults.seed {
            lock(&self.fault_injector).reseed(faults.seed);
        }
        lock(&self.database).apply_faults(&faults);
        *current = Arc::new(faults);
    }

    /// Changes the given fields of the active faults and keeps the others. Returns the active faults.
    ///
    /// # Errors
    /// A message that names the invalid field.
    pub fn change_faults(&self, changes: &Value) -> Result<Value, String> {
        let Some(changes) = changes.as_object() else { return Err("faults must be a JSON object".into()) };
        let mut merged = serde_json::to_value(&*self.faults()).map_err(|error| error.to_string())?;
        let restarts_draws = changes.contains_key("seed");
        if let Some(fields) = merged.as_object_mut() {
            for (name, value) in changes {
                fields.insert(name.clone(), value.clone());
            }
        }
        let faults: Faults = serde_json::from_value(merged.clone()).map_err(|error| error.to_string())?;
        if faults.ghost_delay_ms[0] > faults.ghost_delay_ms[1]
            || faults.visibility_delay_ms[0] > faults.visibility_delay_ms[1]
        {
            return Err("ghost_delay_ms and visibility_delay_ms are [minimum, maximum]".into());
        }
        if restarts_draws {
            lock(&self.fault_injector).reseed(faults.seed);
        }
        self.set_faults(faults);
        Ok(merged)
    }

    pub fn count_request(&self, method: &'static str, table: &'static str, status: u16) {
        *lock(&self.stats).requests.entry((method, table, status)).or_default() += 1;
    }

    /// Increments a counter of `GET /simulator/state`.
    pub fn count(&self, name: &'static str) {
        *lock(&self.stats).counters.entry(name).or_default() += 1;
    }

    pub fn count_dropped_query_terms(&self, terms: &[String]) {
        if terms.is_empty() {
            return;
        }
        let mut stats = lock(&self.stats);
        for term in terms {
            // The bound is for clients whose query terms all differ.
            if stats.dropped_terms.len() < 1_000 || stats.dropped_terms.contains_key(term) {
                *stats.dropped_terms.entry(term.clone()).or_default() += 1;
            }
        }
    }

    /// Counts a transaction as in flight until the guard is dropped.
    pub fn in_flight_guard(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// Returns a new value of `X-Transaction-ID`: twelve hexadecimal digits.
    pub fn transaction_id(&self) -> String {
        let n = self.transactions.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        format!("{:012x}", (n ^ (n >> 29)) & 0xffff_ffff_ffff)
    }

    /// Returns the response of `GET /simulator/state`.
    pub fn state(&self) -> Value {
        let (rows, writes, log) = {
            let database = lock(&self.database);
            let rows: BTreeMap<&str, usize> = database
                .schema
                .tables
                .iter()
                .enumerate()
                .map(|(at, table)| {
                    let store = &database.stores[table.store];
                    let alone = table.parent.is_none()
                        && database.schema.tables.iter().filter(|other| other.store == table.store).count() == 1;
                    let count =
                        if alone { store.len() } else { store.all().filter(|(_, row)| row.table == at).count() };
                    (table.name, count)
                })
                .collect();
            (rows, database.counts.clone(), database.log.len())
        };
        let (requests, counters, dropped) = {
            let stats = lock(&self.stats);
            let mut requests: Vec<_> = stats.requests.iter().map(|(key, count)| (*key, *count)).collect();
            requests.sort_unstable();
            (requests, stats.counters.clone(), stats.dropped_terms.clone())
        };
        let total: u64 = requests.iter().map(|(_, count)| count).sum();
        let requests: Vec<Value> = requests
            .into_iter()
            .map(|((method, table, status), count)| {
                json!({"method": method, "table": table, "status": status, "count": count})
            })
            .collect();
        let (locked, lockouts) = lock(&self.auth).lockouts();
        let (injected, ghost_writes_pending) = {
            let fault_injector = lock(&self.fault_injector);
            (fault_injector.counts().clone(), fault_injector.ghost_writes_pending)
        };
        let sessions = lock(&self.sessions).len();
        json!({
            "uptime_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "requests": requests,
            "requests_total": total,
            "requests_in_flight": self.in_flight.load(Ordering::Relaxed),
            "counters": counters,
            "rows": rows,
            "writes": writes,
            "writes_to_closed_rows": writes.to_closed_rows,
            "rejected_writes": writes.rejected,
            "log_length": log,
            "faults_injected": injected,
            "ghost_writes_pending": ghost_writes_pending,
            "lockouts": lockouts,
            "locked_accounts": locked,
            "sessions": sessions,
            "dropped_query_terms": dropped,
            "faults": &*self.faults(),
        })
    }
}
