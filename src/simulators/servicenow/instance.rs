//! A running instance: its data, accounts, faults and counts, each behind a lock of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::auth::Auth;
use super::fault_injection::Strikes;
use super::faults::Faults;
use super::options::Options;
use super::pressure::{Pool, Rates, Sessions};
use super::world::World;

/// See the module.
pub(super) struct Instance {
    pub options: Options,
    /// The instance's own address, without a slash at the end.
    pub url: String,
    pub world: Mutex<World>,
    faults: RwLock<Arc<Faults>>,
    pub strikes: Mutex<Strikes>,
    pub auth: Mutex<Auth>,
    pub sessions: Mutex<Sessions>,
    pub rates: Mutex<Rates>,
    pub pool: Pool,
    pub started: Instant,
    pub stop: CancellationToken,
    stats: Mutex<Stats>,
    transactions: AtomicU64,
    running: AtomicUsize,
}

/// A transaction that is being worked on, whether or not its caller still waits.
pub(super) struct Running<'a>(&'a Instance);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Requests by method, table and status, and other counts of the front end.
#[derive(Default)]
struct Stats {
    requests: HashMap<(&'static str, &'static str, u16), u64>,
    other: BTreeMap<&'static str, u64>,
    dropped_terms: BTreeMap<String, u64>,
}

/// A panic while a lock was held must not silence the instance: the data stays usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Instance {
    /// # Errors
    /// What is wrong with the options.
    pub fn new(options: Options, url: String) -> Result<Self, String> {
        let mut world = World::new(&options)?;
        let auth = Auth::new(&options, &mut world)?;
        Ok(Self {
            url,
            world: Mutex::new(world),
            faults: RwLock::new(Arc::new(options.faults.clone())),
            strikes: Mutex::new(Strikes::new(options.faults.seed)),
            auth: Mutex::new(auth),
            sessions: Mutex::new(Sessions::new(options.seed)),
            rates: Mutex::new(Rates::default()),
            pool: Pool::new(options.api_int),
            started: Instant::now(),
            stop: CancellationToken::new(),
            stats: Mutex::default(),
            transactions: AtomicU64::new(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            running: AtomicUsize::new(0),
            options,
        })
    }

    pub fn faults(&self) -> Arc<Faults> {
        self.faults.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts faults in force; a changed seed restarts the draws.
    pub fn set_faults(&self, faults: Faults) {
        let mut current = self.faults.write().unwrap_or_else(PoisonError::into_inner);
        if current.seed != faults.seed {
            lock(&self.strikes).reseed(faults.seed);
        }
        lock(&self.world).obey(&faults);
        *current = Arc::new(faults);
    }

    /// Lays the named fields over the faults in force.
    ///
    /// # Errors
    /// Which field is wrong.
    pub fn change_faults(&self, changes: &Value) -> Result<Value, String> {
        let Some(changes) = changes.as_object() else { return Err("faults must be a JSON object".into()) };
        let mut merged = serde_json::to_value(&*self.faults()).map_err(|error| error.to_string())?;
        let reseeds = changes.contains_key("seed");
        if let Some(fields) = merged.as_object_mut() {
            for (name, value) in changes {
                fields.insert(name.clone(), value.clone());
            }
        }
        let faults: Faults = serde_json::from_value(merged.clone()).map_err(|error| error.to_string())?;
        if faults.ghost_ms[0] > faults.ghost_ms[1] || faults.late_ms[0] > faults.late_ms[1] {
            return Err("ghost_ms and late_ms are [at least, at most]".into());
        }
        if reseeds {
            lock(&self.strikes).reseed(faults.seed);
        }
        self.set_faults(faults);
        Ok(merged)
    }

    pub fn count_request(&self, method: &'static str, table: &'static str, status: u16) {
        *lock(&self.stats).requests.entry((method, table, status)).or_default() += 1;
    }

    pub fn count(&self, what: &'static str) {
        *lock(&self.stats).other.entry(what).or_default() += 1;
    }

    pub fn count_dropped_terms(&self, terms: &[String]) {
        if terms.is_empty() {
            return;
        }
        let mut stats = lock(&self.stats);
        for term in terms {
            // A client that puts changing text there would otherwise grow this for ever.
            if stats.dropped_terms.len() < 1_000 || stats.dropped_terms.contains_key(term) {
                *stats.dropped_terms.entry(term.clone()).or_default() += 1;
            }
        }
    }

    /// Counts a transaction as running until what it returns is dropped.
    pub fn run(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self)
    }

    /// Twelve hexadecimal digits, as in `X-Transaction-ID`.
    pub fn transaction_id(&self) -> String {
        let n = self.transactions.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        format!("{:012x}", (n ^ (n >> 29)) & 0xffff_ffff_ffff)
    }

    pub fn state(&self) -> Value {
        let (rows, writes, log) = {
            let world = lock(&self.world);
            let rows: BTreeMap<&str, usize> = world
                .schema
                .tables
                .iter()
                .enumerate()
                .map(|(at, table)| {
                    let store = &world.stores[table.store];
                    let alone = table.parent.is_none()
                        && world.schema.tables.iter().filter(|other| other.store == table.store).count() == 1;
                    let count =
                        if alone { store.len() } else { store.all().filter(|(_, row)| row.table == at).count() };
                    (table.name, count)
                })
                .collect();
            (rows, world.counts.clone(), world.log.len())
        };
        let (requests, other, dropped) = {
            let stats = lock(&self.stats);
            let mut requests: Vec<_> = stats.requests.iter().map(|(key, count)| (*key, *count)).collect();
            requests.sort_unstable();
            (requests, stats.other.clone(), stats.dropped_terms.clone())
        };
        let total: u64 = requests.iter().map(|(_, count)| count).sum();
        let requests: Vec<Value> = requests
            .into_iter()
            .map(|((method, table, status), count)| {
                json!({"method": method, "table": table, "status": status, "count": count})
            })
            .collect();
        let (locked, lockouts) = lock(&self.auth).lockouts();
        let (struck, ghosts_pending) = {
            let strikes = lock(&self.strikes);
            (strikes.counts().clone(), strikes.ghosts_pending)
        };
        let sessions = lock(&self.sessions).len();
        json!({
            "uptime_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "requests": requests,
            "requests_total": total,
            "requests_running": self.running.load(Ordering::Relaxed),
            "counts": other,
            "rows": rows,
            "writes": writes,
            "writes_to_closed_rows": writes.to_closed_rows,
            "refused_writes": writes.refused,
            "log_length": log,
            "faults_struck": struck,
            "ghosts_pending": ghosts_pending,
            "lockouts": lockouts,
            "locked_out": locked,
            "sessions": sessions,
            "dropped_query_terms": dropped,
            "faults": &*self.faults(),
        })
    }
}
