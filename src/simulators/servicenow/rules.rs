//! The rules that run when a task is written: mirrored state, priority, dates, data policy, and the customer's business
//! rules.

use super::database::Database;
use super::faults::{BusinessRule, Faults};
use super::schema::Col;
use super::table_storage::{Row, collation_key, hex, set};
use super::time;
use super::write_log::Via;

/// Why the instance rejected a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WriteError {
    /// The row does not exist or is hidden.
    NoRecord,
    /// Record-level rights. Contains `Insert`, `Update` or `Delete`.
    Acl(&'static str),
    /// Labels of the mandatory columns that are empty.
    DataPolicy(Vec<&'static str>),
    /// A business rule called `setAbortAction(true)`. `sys_id` is the rule's.
    Aborted { table: &'static str, rule: String, sys_id: u128 },
    /// A row with the sys_id that the client sent exists.
    Duplicate(u128),
}

impl WriteError {
    /// Returns the error's `detail`.
    pub fn detail(&self) -> String {
        match self {
            Self::NoRecord => "Record doesn't exist or ACL restricts the record retrieval".into(),
            Self::Acl(what) => format!("ACL Exception {what} Failed due to security constraints"),
            Self::DataPolicy(labels) => {
                format!("Data Policy Exception: \n\tThe following fields are mandatory: {}", labels.join(", "))
            }
            Self::Aborted { table, rule, sys_id } => format!(
                "Operation against file '{table}' was aborted by Business Rule '{rule}^{}'. Business Rule Stack:{rule}",
                hex(*sys_id)
            ),
            Self::Duplicate(sys_id) => format!(
                "Unique Key violation detected by database (Duplicate entry '{}' for key 'PRIMARY')",
                hex(*sys_id)
            ),
        }
    }
}

/// Whether a state closes a task of the table. Resolved incidents are not closed.
pub(super) fn closes(table: &str, state: &str) -> bool {
    match table {
        "incident" => matches!(state, "7" | "8"),
        "problem" => state == "107",
        "change_request" => matches!(state, "3" | "4"),
        _ => matches!(state, "3" | "4" | "7"),
    }
}

/// Returns the priority for impact and urgency, by the out-of-the-box lookup table.
pub(super) fn priority(impact: &str, urgency: &str) -> &'static str {
    match (impact, urgency) {
        ("1", "1") => "1",
        ("1", "2") | ("2", "1") => "2",
        ("1", "3") | ("2", "2") | ("3", "1") => "3",
        ("2", "3") | ("3", "2") => "4",
        _ => "5",
    }
}

/// The input of the rules: a row before and after a write.
pub(super) struct Change<'a> {
    /// `None` for an insert.
    pub old: Option<&'a Row>,
    pub new: &'a mut Row,
    /// Columns that the client sent.
    pub sent: &'a [Col],
    pub actor: u32,
    /// Unix seconds.
    pub now: i64,
    pub via: Via,
}

/// Runs the customer's business rules, then the built-in ones, then the data policy.
pub(super) fn run(
    database: &Database,
    change: &mut Change,
    faults: &Faults,
    data_policy: bool,
) -> Result<(), WriteError> {
    for rule in &faults.business_rules {
        business_rule(database, change, rule)?;
    }
    let table = &database.schema.tables[change.new.table];
    if table.store != database.schema.task_store {
        return Ok(());
    }
    task_rules(database, change);
    if change.new.table == database.schema.incident {
        incident_rules(database, change);
        if data_policy {
            return resolution_policy(database, change.new);
        }
    }
    Ok(())
}

fn business_rule(database: &Database, change: &mut Change, rule: &BusinessRule) -> Result<(), WriteError> {
    let applies = database.schema.table(&rule.table).is_some_and(|table| database.schema.is_a(change.new.table, table));
    if !applies || rule.rest_only && change.via == Via::User {
        return Ok(());
    }
    if let Some(name) = &rule.column {
        let Some(col) = database.schema.column(change.new.table, name) else { return Ok(()) };
        if !collation_key(&database.raw(change.new, col)).contains(&collation_key(&rule.contains)) {
            return Ok(());
        }
    }
    if rule.abort {
        let table = database.schema.tables[change.new.table].name;
        let sys_id = super::database::sys_id_of("sys_script", &rule.name);
        return Err(WriteError::Aborted { table, rule: rule.name.clone(), sys_id });
    }
    for (name, value) in &rule.set {
        if let Some(col) = database.schema.column(change.new.table, name) {
            set(&database.schema, change.new, col, value);
        }
    }
    Ok(())
}

impl Change<'_> {
    /// Returns the value before the write; for an insert the column's default.
    fn before(&self, database: &Database, col: Col) -> String {
        match self.old {
            Some(old) => database.raw(old, col).into_owned(),
            None => database.schema.default(self.new.table, col).into(),
        }
    }

    fn changed(&self, database: &Database, col: Col) -> bool {
        self.before(database, col) != *database.raw(self.new, col)
    }

    fn set(&mut self, database: &Database, col: Col, value: &str) {
        set(&database.schema, self.new, col, value);
    }

    fn increment(&mut self, database: &Database, col: Col) {
        let count: u64 = database.raw(self.new, col).parse().unwrap_or(0);
        self.set(database, col, &(count + 1).to_string());
    }
}

fn task_rules(database: &Database, change: &mut Change) {
    let t = &database.schema.task;
    let name = database.schema.tables[change.new.table].name;
    let mirror = match name {
        "incident" => Some(t.incident_state),
        "problem" => Some(t.problem_state),
        _ => None,
    };
    if let Some(mirror) = mirror {
        let (from, to) = if change.changed(database, t.state) { (t.state, mirror) } else { (mirror, t.state) };
        let value = database.raw(change.new, from).into_owned();
        change.set(database, to, &value);
    }
    if matches!(name, "incident" | "problem") {
        let value = priority(&database.raw(change.new, t.impact), &database.raw(change.new, t.urgency));
        change.set(database, t.priority, value);
    }
    if change.old.is_some() && change.changed(database, t.assignment_group) {
        if !change.before(database, t.assignment_group).is_empty() {
            change.increment(database, t.reassignment_count);
        }
        if !change.sent.contains(&t.assigned_to) {
            change.set(database, t.assigned_to, "");
        }
    }
    if !change.changed(database, t.state) {
        return;
    }
    let (was, is) = (
        change.old.is_some() && closes(name, &change.before(database, t.state)),
        closes(name, &database.raw(change.new, t.state)),
    );
    if is && !was {
        let (at, by) = (time::format(change.now), actor_id(database, change.actor));
        change.set(database, t.closed_at, &at);
        change.set(database, t.closed_by, &by);
        change.set(database, t.active, "false");
    } else if was && !is {
        change.set(database, t.closed_at, "");
        change.set(database, t.closed_by, "");
        change.set(database, t.active, "true");
    }
}

fn incident_rules(database: &Database, change: &mut Change) {
    let t = &database.schema.task;
    if !change.changed(database, t.state) {
        return;
    }
    let (before, after) = (change.before(database, t.state), database.raw(change.new, t.state).into_owned());
    let (at, by) = (time::format(change.now), actor_id(database, change.actor));
    if after == "6" {
        change.set(database, t.resolved_at, &at);
        change.set(database, t.resolved_by, &by);
    }
    let done = |state: &str| matches!(state, "6" | "7" | "8");
    if change.old.is_some() && done(&before) && !done(&after) {
        change.increment(database, t.reopen_count);
        change.set(database, t.reopened_by, &by);
        change.set(database, t.reopened_time, &at);
        // Releases differ; newer ones clear these columns.
        change.set(database, t.resolved_at, "");
        change.set(database, t.resolved_by, "");
    }
    if after != "3" {
        change.set(database, t.hold_reason, "");
    }
}

fn actor_id(database: &Database, actor: u32) -> String {
    database.actors.sys_id(actor).map(hex).unwrap_or_default()
}

fn resolution_policy(database: &Database, row: &Row) -> Result<(), WriteError> {
    let t = &database.schema.task;
    if !matches!(&*database.raw(row, t.state), "6" | "7") {
        return Ok(());
    }
    let mut missing = Vec::new();
    if database.raw(row, t.close_code).is_empty() {
        missing.push("Resolution code");
    }
    if database.raw(row, t.close_notes).is_empty() {
        missing.push("Close notes");
    }
    if missing.is_empty() { Ok(()) } else { Err(WriteError::DataPolicy(missing)) }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::simulators::servicenow::CloseCodes;
    use crate::simulators::servicenow::options::{Options, Settings};
    use crate::simulators::servicenow::write::{Op, Write, execute};

    struct Fixture {
        database: Database,
        settings: Settings,
    }

    impl Fixture {
        fn new() -> Self {
            Self { database: Database::new(&Options::default()).expect("a database"), settings: Settings::default() }
        }

        fn write(&mut self, table: &str, op: Op, fields: &[(&str, &str)]) -> Result<u128, WriteError> {
            let table = self.database.schema.table(table).expect("a table");
            let write = Write {
                op,
                method: "POST",
                table,
                fields: fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
                actor: self.database.actors.id("nowbridge"),
                admin: false,
                via: Via::Rest,
                zone: TimeZone::UTC,
                input_display_value: false,
                suppress_auto_sys_fields: false,
                visibility_delay_ms: None,
            };
            let at = execute(&mut self.database, &write, &Faults::default(), &self.settings)?.expect("a row");
            let store = self.database.schema.tables[table].store;
            Ok(self.database.stores[store].get(at).expect("a row").sys_id)
        }

        fn value(&self, id: u128, name: &str) -> String {
            let row = self.database.stores[self.database.schema.task_store].row(id).expect("a row");
            let col = self.database.schema.column(row.table, name).expect("a column");
            self.database.raw(row, col).into_owned()
        }
    }

    #[test]
    fn the_priority_depends_on_impact_and_urgency_and_not_on_the_sent_value() {
        let mut fixture = Fixture::new();
        for (impact, urgency, wanted) in
            [("1", "1", "1"), ("2", "1", "2"), ("2", "2", "3"), ("3", "2", "4"), ("3", "3", "5")]
        {
            let sent = [("impact", impact), ("urgency", urgency), ("priority", "1")];
            let id = fixture.write("incident", Op::Insert, &sent).expect("written");
            assert_eq!(fixture.value(id, "priority"), wanted);
        }
    }

    #[test]
    fn hold_and_reassignment_update_the_dependent_columns() {
        let mut fixture = Fixture::new();
        let id =
            fixture.write("incident", Op::Insert, &[("assignment_group", "g"), ("assigned_to", "a")]).expect("written");
        fixture.write("incident", Op::Update(id), &[("state", "3"), ("hold_reason", "1")]).expect("written");
        assert_eq!((fixture.value(id, "incident_state"), fixture.value(id, "hold_reason")), ("3".into(), "1".into()));
        fixture.write("incident", Op::Update(id), &[("state", "2"), ("assignment_group", "h")]).expect("written");
        assert_eq!(
            (fixture.value(id, "hold_reason"), fixture.value(id, "assigned_to")),
            (String::new(), String::new())
        );
        assert_eq!(
            (fixture.value(id, "reassignment_count"), fixture.value(id, "sys_mod_count")),
            ("1".into(), "2".into())
        );
    }

    #[test]
    fn unknown_choices_are_ignored_and_close_codes_depend_on_the_set() {
        let mut fixture = Fixture::new();
        let id = fixture.write("incident", Op::Insert, &[("urgency", "9"), ("category", "weather")]).expect("written");
        assert_eq!((fixture.value(id, "urgency"), fixture.value(id, "category")), ("3".into(), "inquiry".into()));
        let close_codes = |close_codes| Faults { close_codes, ..Faults::default() };
        let old = [("state", "6"), ("close_code", "Solved (Permanently)"), ("close_notes", "x")];
        fixture.database.apply_faults(&close_codes(CloseCodes::New));
        let rejected = fixture.write("incident", Op::Update(id), &old);
        assert_eq!(rejected, Err(WriteError::DataPolicy(vec!["Resolution code"])));
        fixture.database.apply_faults(&close_codes(CloseCodes::Old));
        fixture.write("incident", Op::Update(id), &old).expect("written");
        assert_eq!(fixture.value(id, "resolved_by"), hex(super::super::database::sys_id_of("sys_user", "nowbridge")));
    }

    #[test]
    fn by_default_the_close_codes_of_all_releases_exist() {
        for code in ["Solved (Permanently)", "Solution provided"] {
            let mut fixture = Fixture::new();
            let id = fixture.write("incident", Op::Insert, &[]).expect("written");
            let resolved = [("state", "6"), ("close_code", code), ("close_notes", "x")];
            fixture.write("incident", Op::Update(id), &resolved).expect("written");
            assert_eq!(fixture.value(id, "close_code"), code);
        }
    }

    #[test]
    fn closed_rows_can_be_protected_and_a_base_table_sees_only_its_own_columns() {
        let mut fixture = Fixture::new();
        let id = fixture.write("incident", Op::Insert, &[("state", "8")]).expect("written");
        assert_eq!(fixture.value(id, "active"), "false");
        fixture.write("task", Op::Update(id), &[("category", "network"), ("description", "d")]).expect("written");
        assert_eq!((fixture.value(id, "category"), fixture.value(id, "description")), ("inquiry".into(), "d".into()));
        fixture.settings.reject_closed_writes = true;
        assert_eq!(fixture.write("incident", Op::Update(id), &[("urgency", "1")]), Err(WriteError::Acl("Update")));
        assert_eq!((fixture.database.counts.to_closed_rows, fixture.database.counts.rejected), (2, 1));
    }
}
