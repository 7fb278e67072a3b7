//! The data of an instance: schema, rows, names of writers, log of writes.
//!
//! One lock protects it. Only synchronous functions hold the lock, never across an await.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::columns::{ColumnType, TABLES};
use super::faults::{CloseCodes, Faults};
use super::options::{Options, User};
use super::schema::{Col, Schema, dictionary_type, sys};
use super::table_storage::{Actors, Row, Store, collation_key, hex, parse_sys_id, raw, set};
use super::time;
use super::write_log::LogEntry;

/// The data of an instance.
pub(super) struct Database {
    pub schema: Schema,
    pub actors: Actors,
    pub stores: Vec<Store>,
    pub rng: fastrand::Rng,
    pub log: Vec<LogEntry>,
    pub keep_write_log: bool,
    pub counts: WriteCounts,
    /// The last number of each table.
    last_numbers: HashMap<usize, u32>,
    /// Seconds.
    clock_offset: i64,
    close_codes: CloseCodes,
}

/// Counts of executed writes by their outcome.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub(super) struct WriteCounts {
    pub inserts: u64,
    pub updates: u64,
    pub unchanged: u64,
    pub deletes: u64,
    pub rejected: u64,
    /// Updates and deletes of closed rows through REST, applied or rejected.
    pub to_closed_rows: u64,
    pub ghost_writes_applied: u64,
    pub delayed_visibility: u64,
}

/// Derives a sys_id from a name, so that it is the same in every run.
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

impl Database {
    /// Creates the database with its initial rows.
    ///
    /// # Errors
    /// An extra column of the options names an unknown table or an existing column.
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
        let mut database = Self {
            schema,
            actors: Actors::default(),
            stores,
            rng: fastrand::Rng::with_seed(options.seed),
            log: Vec::new(),
            keep_write_log: options.write_log,
            counts: WriteCounts::default(),
            last_numbers: HashMap::new(),
            clock_offset: options.settings.clock_offset_seconds,
            close_codes: CloseCodes::default(),
        };
        database.seed_rows(&options.users);
        database.apply_faults(&options.faults);
        Ok(database)
    }

    /// Returns the time of the instance's clock, Unix seconds.
    pub fn now(&self) -> i64 {
        time::now_ms().div_euclid(1_000) + self.clock_offset
    }

    pub fn next_sys_id(&mut self) -> u128 {
        self.rng.u128(..)
    }

    /// Returns the next number of a table. The first is 10001, as on an instance out of the box.
    pub fn next_number(&mut self, table: usize) -> u32 {
        let counter = self.last_numbers.entry(table).or_insert(10_000);
        *counter += 1;
        *counter
    }

    /// Changes the data according to the faults: the choices of `close_code`.
    pub fn apply_faults(&mut self, faults: &Faults) {
        if faults.close_codes != self.close_codes {
            self.close_codes = faults.close_codes;
            self.schema.set_close_codes(faults.close_codes);
            self.seed_choices();
        }
    }

    fn insert_row(&mut self, table: &str, sys_id: u128, values: &[(&str, &str)]) {
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
            self.insert_row("sys_user", sys_id, &values);
        }
        for name in GROUPS {
            self.insert_row("sys_user_group", sys_id_of("sys_user_group", name), &[("name", name)]);
        }
        for (class, name) in CIS {
            self.insert_row(class, sys_id_of("cmdb_ci", name), &[("name", name)]);
        }
        for (name, value) in [
            ("glide.buildname", "Simulator"),
            ("glide.buildtag", "nowbridge-simulator"),
            ("glide.sys.default.tz", "UTC"),
            ("instance_id", "5a1b0e57000000000000000000000001"),
            ("instance_name", "simulator"),
        ] {
            self.insert_row("sys_properties", sys_id_of("sys_properties", name), &[("name", name), ("value", value)]);
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
        let mut rows = Vec::new();
        for (table, col, list) in self.schema.all_choices() {
            let element = self.schema.column_at(self.schema.tables[table].store, col).name.to_string();
            for (sequence, (value, label)) in list.iter().enumerate() {
                rows.push((self.schema.tables[table].name, element.clone(), *value, *label, sequence.to_string()));
            }
        }
        for (name, element, value, label, sequence) in rows {
            let sys_id = sys_id_of("sys_choice", &format!("{name}.{element}.{value}"));
            let values =
                [("name", name), ("element", &element), ("value", value), ("label", label), ("sequence", &sequence)];
            self.insert_row("sys_choice", sys_id, &values);
        }
    }

    fn seed_dictionary(&mut self) {
        let mut rows = Vec::new();
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
            rows.push((table.name, table.label, parent.unwrap_or_default(), columns));
        }
        for (table, label, parent, columns) in rows {
            let values = [("name", table), ("label", label), ("super_class", &*parent)];
            self.insert_row("sys_db_object", sys_id_of("sys_db_object", table), &values);
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
                self.insert_row("sys_dictionary", sys_id, &values);
            }
        }
        debug_assert_eq!(self.schema.tables.len(), TABLES.len());
    }

    pub fn raw<'a>(&'a self, row: &'a Row, col: Col) -> Cow<'a, str> {
        raw(&self.schema, &self.actors, row, col)
    }

    /// Returns the row that a reference points to, and its store.
    pub fn referenced_row(&self, target: &str, value: &str) -> Option<(usize, &Row)> {
        let table = self.schema.table(target)?;
        let store = self.schema.tables[table].store;
        Some((store, self.stores[store].row(parse_sys_id(value)?)?))
    }

    /// Returns the raw value at the end of a dot-walked path; empty if a reference on the path is unset or dangling.
    pub fn value_at_path(&self, store: usize, row: &Row, path: &[Col]) -> String {
        let Some((col, rest)) = path.split_first() else { return String::new() };
        let value = self.raw(row, *col);
        if rest.is_empty() {
            // A journal column has no value of its own.
            return if self.schema.column_at(store, *col).kind == ColumnType::Journal {
                String::new()
            } else {
                value.into_owned()
            };
        }
        let ColumnType::Reference(target) = self.schema.column_at(store, *col).kind else { return String::new() };
        self.referenced_row(target, &value)
            .map_or_else(String::new, |(store, row)| self.value_at_path(store, row, rest))
    }

    /// Returns the type of the column at the end of a path.
    pub fn type_at(&self, store: usize, path: &[Col]) -> Option<ColumnType> {
        let (col, rest) = path.split_first()?;
        let kind = self.schema.column_at(store, *col).kind;
        match kind {
            _ if rest.is_empty() => Some(kind),
            ColumnType::Reference(target) => self.type_at(self.schema.tables[self.schema.table(target)?].store, rest),
            _ => None,
        }
    }

    /// Returns the sys_id of the row of a table by its display value.
    pub fn find_by_display_value(&self, target: &str, display: &str) -> Option<u128> {
        let table = self.schema.table(target)?;
        let (store, col) = (self.schema.tables[table].store, self.schema.tables[table].display);
        let wanted = collation_key(display);
        if self.stores[store].is_indexed(col) {
            let at = *self.stores[store].equal(col, &wanted).first()?;
            return self.stores[store].get(at).map(|row| row.sys_id);
        }
        self.stores[store]
            .all()
            .find(|(_, row)| collation_key(&self.raw(row, col)) == wanted)
            .map(|(_, row)| row.sys_id)
    }

    /// Returns the position in its store of a row of the table or of one of its subclasses.
    pub fn locate(&self, table: usize, sys_id: u128) -> Option<u32> {
        let store = &self.stores[self.schema.tables[table].store];
        let at = store.find(sys_id)?;
        self.schema.is_a(store.get(at)?.table, table).then_some(at)
    }

    /// Whether the row is a task in a closed state.
    pub fn is_closed(&self, row: &Row) -> bool {
        self.schema.tables[row.table].store == self.schema.task_store
            && super::rules::closes(self.schema.tables[row.table].name, &self.raw(row, self.schema.task.state))
    }

    /// Returns the entries of a row's journal, oldest first.
    pub fn journal_entries(&self, sys_id: u128) -> impl DoubleEndedIterator<Item = &Row> {
        let table = &self.schema.tables[self.schema.journal_table];
        let store = &self.stores[table.store];
        let element_id = self.schema.column(self.schema.journal_table, "element_id").unwrap_or(sys::ID);
        store.equal(element_id, &hex(sys_id)).iter().filter_map(|at| store.get(*at))
    }
}
