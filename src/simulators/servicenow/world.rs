//! All data of an instance behind one lock: schema, rows, accounts' names, the history of writes.
//!
//! The lock around a [`World`] is held only inside synchronous functions, never across an await.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::columns::{Kind, TABLES};
use super::faults::{CloseCodes, Faults};
use super::history::Logged;
use super::options::{Options, User};
use super::schema::{Col, Schema, dictionary_type, sys};
use super::storage::{Actors, Row, Store, fold, hex, parse_sys_id, raw, set};
use super::time;

/// See the module.
pub(super) struct World {
    pub schema: Schema,
    pub actors: Actors,
    pub stores: Vec<Store>,
    pub rng: fastrand::Rng,
    pub log: Vec<Logged>,
    /// Whether writes are logged.
    pub keeps_history: bool,
    pub counts: WriteCounts,
    counters: HashMap<usize, u32>,
    clock_offset: i64,
    close_codes: CloseCodes,
}

/// What happened to writes, counted where they are executed.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub(super) struct WriteCounts {
    pub inserts: u64,
    pub updates: u64,
    pub unchanged: u64,
    pub deletes: u64,
    pub refused: u64,
    /// Updates and deletes through REST of rows that were closed, applied or refused.
    pub to_closed_rows: u64,
    pub ghosts_applied: u64,
    pub late_visible: u64,
}

/// An account's sys_id follows from its name, so that it is the same in every run.
pub(super) fn sys_id_of(kind: &str, name: &str) -> u128 {
    let digest = Sha256::digest(format!("{kind}:{name}").as_bytes());
    digest.iter().take(16).fold(0, |id, byte| (id << 8) | u128::from(*byte))
}

const GROUPS: &[&str] = &["Service Desk", "Network", "Database", "Hardware", "Software", "Cloud Operations"];
const CIS: &[(&str, &str)] = &[
    ("cmdb_ci_service", "checkout"),
    ("cmdb_ci_service", "payments"),
    ("cmdb_ci_server", "web-01"),
    ("cmdb_ci_server", "web-02"),
    ("cmdb_ci_server", "db-01"),
];

impl World {
    /// # Errors
    /// The options' extra columns do not fit the schema.
    pub fn new(options: &Options) -> Result<Self, String> {
        let schema = Schema::new(&options.extra_columns)?;
        let mut stores = Vec::new();
        for (at, def) in schema.stores.iter().enumerate() {
            let names: &[&str] = match schema.tables.iter().find(|table| table.store == at).map(|table| table.name) {
                Some("task") => &["correlation_id", "number"],
                Some("sys_journal_field") => &["element_id"],
                Some("sys_audit_delete") => &["documentkey"],
                Some("sys_choice" | "sys_properties" | "sys_dictionary" | "sys_db_object") => &["name"],
                Some("sys_user") => &["user_name", "name"],
                Some("sys_user_group") => &["name"],
                Some("em_event" | "em_alert") => &["message_key"],
                Some("cmdb_ci") => &["name", "correlation_id"],
                _ => &[],
            };
            let columns: Vec<Col> = names.iter().filter_map(|name| def.find(name)).collect();
            stores.push(Store::with_indexes(&columns));
        }
        let mut world = Self {
            schema,
            actors: Actors::default(),
            stores,
            rng: fastrand::Rng::with_seed(options.seed),
            log: Vec::new(),
            keeps_history: options.history,
            counts: WriteCounts::default(),
            counters: HashMap::new(),
            clock_offset: options.switches.clock_offset_seconds,
            close_codes: CloseCodes::New,
        };
        world.seed_rows(&options.users);
        world.obey(&options.faults);
        Ok(world)
    }

    /// The instance's clock, Unix seconds.
    pub fn now(&self) -> i64 {
        time::now_ms().div_euclid(1_000) + self.clock_offset
    }

    pub fn next_sys_id(&mut self) -> u128 {
        self.rng.u128(..)
    }

    /// The next of the table's numbers; the first is 10001, as on an instance out of the box.
    pub fn next_number(&mut self, table: usize) -> u32 {
        let counter = self.counters.entry(table).or_insert(10_000);
        *counter += 1;
        *counter
    }

    /// Follows those faults that change data.
    pub fn obey(&mut self, faults: &Faults) {
        if faults.close_codes != self.close_codes {
            self.close_codes = faults.close_codes;
            self.schema.set_close_codes(faults.close_codes);
            self.seed_choices();
        }
    }

    fn add(&mut self, table: &str, sys_id: u128, values: &[(&str, &str)]) {
        let Some(table) = self.schema.table(table) else { return };
        let now = self.now();
        let by = self.actors.id("system");
        let mut row = Row::new(table, sys_id, now, by);
        for (name, value) in values {
            if let Some(col) = self.schema.column(table, name) {
                set(&self.schema, &mut row, col, value);
            }
        }
        let store = self.schema.tables[table].store;
        self.stores[store].insert(&self.schema, row);
    }

    fn seed_rows(&mut self, users: &[User]) {
        for user in users {
            let sys_id = sys_id_of("sys_user", &user.name);
            self.actors.bind(&user.name, sys_id);
            let name = user.display_name.as_deref().unwrap_or(&user.name);
            let email = format!("{}@example.com", user.name);
            let values =
                [("user_name", &*user.name), ("name", name), ("email", &email), ("time_zone", &*user.time_zone)];
            self.add("sys_user", sys_id, &values);
        }
        for name in GROUPS {
            self.add("sys_user_group", sys_id_of("sys_user_group", name), &[("name", name)]);
        }
        for (class, name) in CIS {
            self.add(class, sys_id_of("cmdb_ci", name), &[("name", name)]);
        }
        for (name, value) in [
            ("glide.buildname", "Simulator"),
            ("glide.buildtag", "nowbridge-simulator"),
            ("glide.sys.default.tz", "UTC"),
            ("instance_id", "5a1b0e57000000000000000000000001"),
            ("instance_name", "simulator"),
        ] {
            self.add("sys_properties", sys_id_of("sys_properties", name), &[("name", name), ("value", value)]);
        }
        self.seed_choices();
        self.seed_dictionary();
    }

    fn seed_choices(&mut self) {
        let Some(table) = self.schema.table("sys_choice") else { return };
        let store = self.schema.tables[table].store;
        let old: Vec<u32> = self.stores[store].all().map(|(at, _)| at).collect();
        for at in old {
            self.stores[store].remove(&self.schema, at);
        }
        let mut lines = Vec::new();
        for (table, col, list) in self.schema.all_choices() {
            let element = self.schema.def(self.schema.tables[table].store, col).name.to_string();
            for (sequence, (value, label)) in list.iter().enumerate() {
                lines.push((self.schema.tables[table].name, element.clone(), *value, *label, sequence.to_string()));
            }
        }
        for (name, element, value, label, sequence) in lines {
            let sys_id = sys_id_of("sys_choice", &format!("{name}.{element}.{value}"));
            let values =
                [("name", name), ("element", &element), ("value", value), ("label", label), ("sequence", &sequence)];
            self.add("sys_choice", sys_id, &values);
        }
    }

    fn seed_dictionary(&mut self) {
        let mut lines = Vec::new();
        for (at, table) in self.schema.tables.iter().enumerate() {
            let parent = table.parent.map(|parent| hex(sys_id_of("sys_db_object", self.schema.tables[parent].name)));
            let columns: Vec<_> = self
                .schema
                .own_columns(at)
                .map(|column| {
                    let (kind, max, reference) = dictionary_type(column.kind, column.max);
                    (column.name.to_string(), column.label.to_string(), kind, max.to_string(), reference)
                })
                .collect();
            lines.push((table.name, table.label, parent.unwrap_or_default(), columns));
        }
        for (table, label, parent, columns) in lines {
            let values = [("name", table), ("label", label), ("super_class", &*parent)];
            self.add("sys_db_object", sys_id_of("sys_db_object", table), &values);
            for (element, column_label, kind, max, reference) in columns {
                let sys_id = sys_id_of("sys_dictionary", &format!("{table}.{element}"));
                let values = [
                    ("name", table),
                    ("element", &*element),
                    ("column_label", &*column_label),
                    ("internal_type", kind),
                    ("max_length", &*max),
                    ("reference", reference),
                ];
                self.add("sys_dictionary", sys_id, &values);
            }
        }
        debug_assert_eq!(self.schema.tables.len(), TABLES.len());
    }

    pub fn raw<'a>(&'a self, row: &'a Row, col: Col) -> Cow<'a, str> {
        raw(&self.schema, &self.actors, row, col)
    }

    /// The row a reference points to.
    pub fn referenced(&self, target: &str, value: &str) -> Option<(usize, &Row)> {
        let table = self.schema.table(target)?;
        let store = self.schema.tables[table].store;
        Some((store, self.stores[store].row(parse_sys_id(value)?)?))
    }

    /// The raw value at the end of a dot-walked path; empty where a reference leads nowhere.
    pub fn walk(&self, store: usize, row: &Row, path: &[Col]) -> String {
        let Some((col, rest)) = path.split_first() else { return String::new() };
        let value = self.raw(row, *col);
        if rest.is_empty() {
            // A journal field holds no value of its own.
            return if self.schema.def(store, *col).kind == Kind::Journal { String::new() } else { value.into_owned() };
        }
        let Kind::Reference(target) = self.schema.def(store, *col).kind else { return String::new() };
        self.referenced(target, &value).map_or_else(String::new, |(store, row)| self.walk(store, row, rest))
    }

    /// The type of the column at the end of a path.
    pub fn kind_at(&self, store: usize, path: &[Col]) -> Option<Kind> {
        let (col, rest) = path.split_first()?;
        let kind = self.schema.def(store, *col).kind;
        match kind {
            _ if rest.is_empty() => Some(kind),
            Kind::Reference(target) => self.kind_at(self.schema.tables[self.schema.table(target)?].store, rest),
            _ => None,
        }
    }

    /// The sys_id of the row of that table whose display column reads so.
    pub fn by_display(&self, target: &str, display: &str) -> Option<u128> {
        let table = self.schema.table(target)?;
        let (store, col) = (self.schema.tables[table].store, self.schema.tables[table].display);
        let wanted = fold(display);
        if self.stores[store].is_indexed(col) {
            let at = *self.stores[store].equal(col, &wanted).first()?;
            return self.stores[store].get(at).map(|row| row.sys_id);
        }
        self.stores[store].all().find(|(_, row)| fold(&self.raw(row, col)) == wanted).map(|(_, row)| row.sys_id)
    }

    /// The instance-wide position of a row of that table, its subclasses included.
    pub fn locate(&self, table: usize, sys_id: u128) -> Option<u32> {
        let store = &self.stores[self.schema.tables[table].store];
        let at = store.find(sys_id)?;
        self.schema.is_a(store.get(at)?.table, table).then_some(at)
    }

    /// Whether the row's state is one that its table regards as closed.
    pub fn is_closed(&self, row: &Row) -> bool {
        self.schema.tables[row.table].store == self.schema.task_store
            && super::rules::closes(self.schema.tables[row.table].name, &self.raw(row, self.schema.task.state))
    }

    /// Entries of a row's journal, oldest first.
    pub fn journal_of(&self, sys_id: u128) -> impl DoubleEndedIterator<Item = &Row> {
        let table = &self.schema.tables[self.schema.journal_table];
        let store = &self.stores[table.store];
        let element_id = self.schema.column(self.schema.journal_table, "element_id").unwrap_or(sys::ID);
        store.equal(element_id, &hex(sys_id)).iter().filter_map(|at| store.get(*at))
    }
}
