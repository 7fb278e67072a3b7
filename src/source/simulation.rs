//! Random histories of an instance, read by the change detector with crashes. The guarantees are checked at the end.
//!
//! The instance is a model with its own implementation of encoded queries. Versions become visible late, many have
//! the same second, reads may come from a lagging replica, rows change during a sweep, rows are deleted and
//! recreated. Transactions are aborted, or committed with the response lost; the detector is then dropped and loaded
//! from the topics. Time advances with every request.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::change_detection::{ChangeDetector, ListRequest, PollPage};
use super::checkpoint::{Checkpoint, decode_checkpoint, decode_state_record, encode_state_record};
use super::rows::PublishedState;
use super::{Settings, Start, timestamp};
use crate::model::Change;
use crate::model::change::{ChangeOrigin, Operation};

const MAX_VISIBILITY_DELAY: i64 = 30;
const MAX_REPLICA_LAG: i64 = 4;

type Fields = BTreeMap<String, String>;

/// A version of a row of any table.
#[derive(Clone)]
struct StoredVersion {
    visible: i64,
    /// `None`: the row was deleted.
    fields: Option<Fields>,
}

#[derive(Default)]
struct Instance {
    now: i64,
    ids: u64,
    tables: HashMap<&'static str, BTreeMap<String, Vec<StoredVersion>>>,
}

impl Instance {
    fn id(&mut self) -> String {
        self.ids += 1;
        // Not in the order of creation.
        format!("{:032x}", u128::from(self.ids).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
    }

    fn put(&mut self, table: &'static str, id: &str, visibility_delay: i64, fields: Option<Fields>) {
        let versions = self.tables.entry(table).or_default().entry(id.to_string()).or_default();
        // Versions of a row become visible in order.
        let visible = (self.now + visibility_delay).max(versions.last().map_or(0, |v| v.visible));
        versions.push(StoredVersion { visible, fields });
    }

    fn newest(&self, id: &str) -> Option<&Fields> {
        self.tables.get("incident")?.get(id)?.last()?.fields.as_ref()
    }

    fn write(&mut self, id: &str, by: &str, state: u8, visibility_delay: i64) {
        let now = timestamp::to_raw(self.now);
        let (created, count) = match self.newest(id) {
            Some(old) => (old["sys_created_on"].clone(), old["sys_mod_count"].parse::<u64>().unwrap() + 1),
            None => (now.clone(), 0),
        };
        let fields = [
            ("sys_id", id.to_string()),
            ("number", format!("INC{}", &id[26..])),
            ("sys_class_name", "incident".into()),
            ("sys_mod_count", count.to_string()),
            ("sys_created_on", created),
            ("sys_updated_on", now),
            ("sys_updated_by", by.into()),
            ("correlation_id", format!("key-{}", &id[28..])),
            ("correlation_display", "nowbridge".into()),
            ("state", state.to_string()),
        ];
        let fields = fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        self.put("incident", id, visibility_delay, Some(fields));
    }

    fn note(&mut self, owner: &str, by: &str, visibility_delay: i64) {
        let id = self.id();
        let fields = [
            ("sys_id", id.clone()),
            ("name", "incident".into()),
            ("element", "work_notes".into()),
            ("element_id", owner.into()),
            ("value", format!("note {id}")),
            ("sys_created_on", timestamp::to_raw(self.now)),
            ("sys_created_by", by.into()),
        ];
        self.put(
            "sys_journal_field",
            &id,
            visibility_delay,
            Some(fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect()),
        );
    }

    fn delete(&mut self, owner: &str, by: &str) {
        let id = self.id();
        let fields = [
            ("sys_id", id.clone()),
            ("tablename", "incident".into()),
            ("documentkey", owner.into()),
            ("sys_created_on", timestamp::to_raw(self.now)),
            ("sys_created_by", by.into()),
        ];
        self.put("sys_audit_delete", &id, 0, Some(fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect()));
        self.put("incident", owner, 0, None);
    }

    fn deleted_at(&self, owner: &str) -> i64 {
        let audit = self.tables["sys_audit_delete"].values().filter_map(|v| v[0].fields.as_ref());
        audit.filter(|f| f["documentkey"] == owner).find_map(|f| timestamp::parse(&f["sys_created_on"])).unwrap_or(0)
    }

    fn list(&self, request: &ListRequest, replica_lag: i64) -> PollPage {
        let seen_at = self.now - replica_lag;
        let empty = BTreeMap::new();
        let rows = self.tables.get(request.table.as_str()).unwrap_or(&empty);
        let (condition, sort) = request.query.split_once("^ORDERBY").unwrap_or((&request.query, ""));
        let mut found: Vec<&Fields> = rows
            .values()
            .filter_map(|versions| versions.iter().rfind(|v| v.visible <= seen_at)?.fields.as_ref())
            .filter(|row| condition.split("^NQ").any(|group| group.split('^').all(|c| matches_condition(row, c))))
            .collect();
        let sort = sort.split("^ORDERBY").next().unwrap_or_default();
        found.sort_by_key(|row| (row.get(sort).cloned(), row["sys_id"].clone()));
        let total = Some(found.len() as u64);
        let (skip, take) = (usize::try_from(request.offset).unwrap(), request.limit as usize);
        let rows = found.into_iter().skip(skip).take(take).cloned().collect();
        PollPage { rows, total, now: Some(self.now) }
    }
}

fn matches_condition(row: &Fields, condition: &str) -> bool {
    for (op, test) in [
        (">=", (|a: &str, b: &str| a >= b) as fn(&str, &str) -> bool),
        (">", |a, b| a > b),
        ("IN", |a, b| b.split(',').any(|b| b == a)),
        ("=", |a, b| a == b),
    ] {
        if let Some((column, value)) = condition.split_once(op) {
            return row.get(column).is_some_and(|v| test(v, value));
        }
    }
    condition.is_empty()
}

/// The topics, in their stored form.
#[derive(Default)]
struct Topics {
    changes: Vec<Change>,
    rows: HashMap<String, Vec<u8>>,
    checkpoint: Option<Vec<u8>>,
}

impl Topics {
    fn load(&self, settings: &Settings) -> ChangeDetector {
        let mut published_state = PublishedState::default();
        for (key, value) in &self.rows {
            published_state.apply(decode_state_record(key.as_bytes(), Some(value)).expect("readable").expect("known"));
        }
        let checkpoint: Option<Checkpoint> =
            self.checkpoint.as_ref().map(|c| decode_checkpoint("r", c).expect("readable"));
        ChangeDetector::new(settings.clone(), published_state, checkpoint).expect("a checkpoint of the same route")
    }
}

struct World {
    rng: fastrand::Rng,
    instance: Instance,
    topics: Topics,
    settings: Settings,
    ids: Vec<String>,
    crashes: u32,
    active: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let settings = Settings {
            start: if rng.bool() { Start::All } else { Start::None },
            lookback: 40,
            safety_lag: rng.i64(0..10),
            page_size: rng.u32(1..40),
            watched: vec!["state".into()],
            publish_echoes: true,
            ..Settings::new("r", "dev", "incident", "nowbridge")
        };
        let instance = Instance { now: 1_700_000_000, ..Instance::default() };
        Self { rng, instance, topics: Topics::default(), settings, ids: Vec::new(), crashes: 0, active: true }
    }

    /// Users and the bridge make changes.
    fn make_changes(&mut self) {
        for _ in 0..self.rng.u32(0..4) {
            let visibility_delay = if self.rng.u8(..) < 40 { self.rng.i64(3..=MAX_VISIBILITY_DELAY) } else { 0 };
            let by = ["ada", "nowbridge", "bob"][self.rng.usize(..3)];
            let state = self.rng.u8(1..9);
            match self.rng.u8(..100) {
                0..20 => {
                    let id = self.instance.id();
                    self.instance.write(&id, by, state, visibility_delay);
                    self.ids.push(id);
                }
                // Many in the same second.
                20..25 => {
                    for _ in 0..self.rng.usize(1..60) {
                        self.update_random(by, state, 0);
                    }
                }
                25..32 => self.delete_random(by),
                32..50 => {
                    if let Some(id) = self.rng.choice(self.ids.clone()).filter(|id| self.instance.newest(id).is_some())
                    {
                        self.instance.write(&id, by, state, visibility_delay);
                        self.instance.note(&id, by, visibility_delay);
                    }
                }
                // Two versions by two users between polls.
                50..60 => {
                    if let Some(id) = self.rng.choice(self.ids.clone()).filter(|id| self.instance.newest(id).is_some())
                    {
                        self.instance.write(&id, "ada", state, visibility_delay);
                        self.instance.write(&id, "nowbridge", 2, 0);
                    }
                }
                _ => self.update_random(by, state, visibility_delay),
            }
        }
    }

    fn update_random(&mut self, by: &str, state: u8, visibility_delay: i64) {
        if let Some(id) = self.rng.choice(self.ids.clone()).filter(|id| self.instance.newest(id).is_some()) {
            self.instance.write(&id, by, state, visibility_delay);
        }
    }

    fn delete_random(&mut self, by: &str) {
        if let Some(id) = self.rng.choice(self.ids.clone()).filter(|id| self.instance.newest(id).is_some()) {
            self.instance.delete(&id, by);
            self.ids.retain(|i| *i != id);
        }
    }

    /// One poll with crashes. Returns false if the detector has to be loaded again.
    fn poll(&mut self, detector: &mut ChangeDetector) -> bool {
        detector.start_poll();
        while let Some(request) = detector.next_request() {
            assert!(request.query.len() < 5_000);
            self.instance.now += self.rng.i64(0..2);
            if self.active && self.rng.bool() {
                self.make_changes();
            }
            let replica_lag = if self.rng.u8(..) < 30 { self.rng.i64(0..MAX_REPLICA_LAG) } else { 0 };
            let page = self.instance.list(&request, replica_lag);
            let batch = detector.process_page(&page).expect("the model follows the query");
            let crash = self.active && self.rng.u8(..) < 12;
            if crash && self.rng.bool() {
                self.crashes += 1;
                return false;
            }
            if let Some(checkpoint) = &batch.checkpoint {
                for record in &batch.state_records {
                    let (key, value) = encode_state_record(record).expect("writable");
                    match value {
                        Some(value) => drop(self.topics.rows.insert(key, value)),
                        None => drop(self.topics.rows.remove(&key)),
                    }
                }
                self.topics.changes.extend(batch.changes);
                self.topics.checkpoint = Some(serde_json::to_vec(checkpoint).expect("writable"));
            } else {
                assert!(batch.changes.is_empty() && batch.state_records.is_empty());
            }
            if crash {
                self.crashes += 1;
                return false;
            }
        }
        true
    }

    fn run(&mut self, polls: u32) {
        for _ in 0..self.rng.u32(0..30) {
            self.make_changes();
        }
        let mut detector = self.topics.load(&self.settings);
        for n in 0..polls + 20 {
            self.active = n < polls;
            if !self.poll(&mut detector) {
                detector = self.topics.load(&self.settings);
            }
            self.instance.now += self.rng.i64(1..if self.active { 8 } else { 30 });
        }
    }

    fn check(&self) {
        let first_started =
            decode_checkpoint("r", self.topics.checkpoint.as_ref().expect("stored")).expect("readable").first_started;
        let mut by_row: HashMap<&str, Vec<&Change>> = HashMap::new();
        let mut ids = HashSet::new();
        for change in &self.topics.changes {
            assert!(ids.insert(&change.change_id), "{} was published twice", change.change_id);
            by_row.entry(&change.sys_id).or_default().push(change);
        }
        for (sys_id, versions) in self.instance.tables.get("incident").into_iter().flatten() {
            let changes = by_row.get(sys_id.as_str()).map_or(&[][..], Vec::as_slice);
            self.check_row(sys_id, versions, changes, first_started);
        }
        for (id, versions) in self.instance.tables.get("sys_journal_field").into_iter().flatten() {
            let entry = versions[0].fields.as_ref().expect("insert-only");
            let due = self.settings.start == Start::All
                || timestamp::parse(&entry["sys_created_on"]).unwrap() >= first_started;
            let row_exists = self.instance.newest(&entry["element_id"]).is_some();
            let times = self.topics.changes.iter().filter(|c| c.note.as_ref().is_some_and(|n| n.sys_id == *id)).count();
            assert!(
                times <= 1 && (times == 1 || !due || !row_exists),
                "journal entry {id} was published {times} times"
            );
        }
    }

    fn check_row(&self, sys_id: &str, versions: &[StoredVersion], changes: &[&Change], first_started: i64) {
        let author: HashMap<u64, &str> = versions
            .iter()
            .filter_map(|v| v.fields.as_ref())
            .map(|f| (f["sys_mod_count"].parse().unwrap(), f["sys_updated_by"].as_str()))
            .collect();
        let own: Vec<&&Change> =
            changes.iter().filter(|c| c.note.is_none() && c.operation != Operation::Delete).collect();
        for (before, after) in own.iter().zip(own.iter().skip(1)) {
            assert!(before.sys_mod_count < after.sys_mod_count, "{sys_id}: versions out of order");
            assert_eq!(
                before.sys_mod_count + after.versions_skipped + 1,
                after.sys_mod_count,
                "{sys_id}: wrong number of skipped versions"
            );
            assert_eq!(before.after, after.before);
        }
        let mut last: Option<u64> = None;
        for change in &own {
            assert_eq!(change.updated_by, author[&change.sys_mod_count]);
            if change.origin == ChangeOrigin::Bridge {
                let hidden = last.map_or(0, |l| l + 1)..=change.sys_mod_count;
                assert!(
                    hidden.clone().all(|v| author[&v] == "nowbridge"),
                    "{sys_id}: a user's change in {hidden:?} is marked as an echo"
                );
            }
            last = Some(change.sys_mod_count);
        }
        let deletes = changes.iter().filter(|c| c.operation == Operation::Delete).count();
        match versions.last().and_then(|v| v.fields.as_ref()) {
            Some(fields) => {
                let due = self.settings.start == Start::All
                    || timestamp::parse(&fields["sys_updated_on"]).unwrap() >= first_started;
                assert!(!due || last == fields["sys_mod_count"].parse().ok(), "{sys_id}: the last version is missing");
                assert_eq!(deletes, 0);
            }
            None => {
                assert!(deletes <= 1);
                let at = self.instance.deleted_at(sys_id);
                assert!(deletes == 1 || at < first_started, "{sys_id}: the delete is missing");
                assert!(
                    deletes == 0
                        || changes.last().is_some_and(|c| c.operation == Operation::Delete || c.note.is_some())
                );
            }
        }
    }
}

#[test]
fn every_version_is_published_once_in_order_and_the_last_one_always() {
    let histories = std::env::var("NOWBRIDGE_FULL").map_or(200, |_| 20_000);
    let (mut changes, mut crashes, mut skipped, mut mixed, mut deletes) = (0, 0, 0, 0, 0);
    for seed in 0..histories {
        let mut world = World::new(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.run(60);
            world.check();
        }));
        assert!(result.is_ok(), "seed {seed}");
        changes += world.topics.changes.len();
        crashes += world.crashes;
        skipped += world.topics.changes.iter().filter(|c| c.versions_skipped > 0).count();
        mixed += world.topics.changes.iter().filter(|c| c.origin == ChangeOrigin::Mixed).count();
        deletes += world.topics.changes.iter().filter(|c| c.operation == Operation::Delete).count();
    }
    println!("{changes} changes, {crashes} crashes, {skipped} with versions skipped, {mixed} mixed, {deletes} deletes");
    for (case, count) in [("skipped", skipped), ("mixed", mixed), ("deletes", deletes), ("crashes", crashes as usize)] {
        assert!(count > 100, "{case} happened too rarely");
    }
}
