//! What the instance does to a task by itself when it is written: state mirror, priority, stamps, data policy, and the
//! business rules that a customer added.

use super::faults::{BusinessRule, Faults};
use super::history::Via;
use super::schema::Col;
use super::storage::{Row, fold, hex, set};
use super::time;
use super::world::World;

/// Why the instance would not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No such row, or it is hidden.
    NoRecord,
    /// Record-level rights; the word is Insert, Update or Delete.
    Acl(&'static str),
    /// Mandatory columns left empty, by label.
    DataPolicy(Vec<&'static str>),
    /// `setAbortAction(true)` in a business rule.
    Aborted { table: &'static str, rule: String, sys_id: u128 },
    /// The client chose a sys_id that exists.
    Duplicate(u128),
}

impl Refusal {
    /// The error's `detail`.
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

/// Whether a state closes a task of that table for good (a resolved incident is still open).
pub(super) fn closes(table: &str, state: &str) -> bool {
    match table {
        "incident" => matches!(state, "7" | "8"),
        "problem" => state == "107",
        "change_request" => matches!(state, "3" | "4"),
        _ => matches!(state, "3" | "4" | "7"),
    }
}

/// Impact and urgency to priority, as the out-of-the-box look-up has it.
pub(super) fn priority(impact: &str, urgency: &str) -> &'static str {
    match (impact, urgency) {
        ("1", "1") => "1",
        ("1", "2") | ("2", "1") => "2",
        ("1", "3") | ("2", "2") | ("3", "1") => "3",
        ("2", "3") | ("3", "2") => "4",
        _ => "5",
    }
}

/// A write as the rules see it.
pub(super) struct Change<'a> {
    pub old: Option<&'a Row>,
    pub new: &'a mut Row,
    /// Columns the client named.
    pub sent: &'a [Col],
    pub actor: u32,
    pub now: i64,
    pub via: Via,
}

/// Runs the customer's rules, then the instance's own, then the data policies.
pub(super) fn run(world: &World, change: &mut Change, faults: &Faults, data_policy: bool) -> Result<(), Refusal> {
    for rule in &faults.business_rules {
        business_rule(world, change, rule)?;
    }
    let table = &world.schema.tables[change.new.table];
    if table.store != world.schema.task_store {
        return Ok(());
    }
    task_rules(world, change);
    if change.new.table == world.schema.incident {
        incident_rules(world, change);
        if data_policy {
            return resolution_policy(world, change.new);
        }
    }
    Ok(())
}

fn business_rule(world: &World, change: &mut Change, rule: &BusinessRule) -> Result<(), Refusal> {
    let applies = world.schema.table(&rule.table).is_some_and(|table| world.schema.is_a(change.new.table, table));
    if !applies || rule.rest_only && change.via == Via::Person {
        return Ok(());
    }
    if let Some(name) = &rule.when {
        let Some(col) = world.schema.column(change.new.table, name) else { return Ok(()) };
        if !fold(&world.raw(change.new, col)).contains(&fold(&rule.contains)) {
            return Ok(());
        }
    }
    if rule.abort {
        let table = world.schema.tables[change.new.table].name;
        let sys_id = super::world::sys_id_of("sys_script", &rule.name);
        return Err(Refusal::Aborted { table, rule: rule.name.clone(), sys_id });
    }
    for (name, value) in &rule.set {
        if let Some(col) = world.schema.column(change.new.table, name) {
            set(&world.schema, change.new, col, value);
        }
    }
    Ok(())
}

impl Change<'_> {
    /// The value before the write; on insert the column's default.
    fn before(&self, world: &World, col: Col) -> String {
        match self.old {
            Some(old) => world.raw(old, col).into_owned(),
            None => world.schema.default(self.new.table, col).into(),
        }
    }

    fn changed(&self, world: &World, col: Col) -> bool {
        self.before(world, col) != *world.raw(self.new, col)
    }

    fn set(&mut self, world: &World, col: Col, value: &str) {
        set(&world.schema, self.new, col, value);
    }

    fn increment(&mut self, world: &World, col: Col) {
        let count: u64 = world.raw(self.new, col).parse().unwrap_or(0);
        self.set(world, col, &(count + 1).to_string());
    }
}

fn task_rules(world: &World, change: &mut Change) {
    let t = &world.schema.task;
    let name = world.schema.tables[change.new.table].name;
    let mirror = match name {
        "incident" => Some(t.incident_state),
        "problem" => Some(t.problem_state),
        _ => None,
    };
    if let Some(mirror) = mirror {
        let (from, to) = if change.changed(world, t.state) { (t.state, mirror) } else { (mirror, t.state) };
        let value = world.raw(change.new, from).into_owned();
        change.set(world, to, &value);
    }
    if matches!(name, "incident" | "problem") {
        let value = priority(&world.raw(change.new, t.impact), &world.raw(change.new, t.urgency));
        change.set(world, t.priority, value);
    }
    if change.old.is_some() && change.changed(world, t.assignment_group) {
        if !change.before(world, t.assignment_group).is_empty() {
            change.increment(world, t.reassignment_count);
        }
        if !change.sent.contains(&t.assigned_to) {
            change.set(world, t.assigned_to, "");
        }
    }
    if !change.changed(world, t.state) {
        return;
    }
    let (was, is) = (
        change.old.is_some() && closes(name, &change.before(world, t.state)),
        closes(name, &world.raw(change.new, t.state)),
    );
    if is && !was {
        let (at, by) = (time::format(change.now), actor_id(world, change.actor));
        change.set(world, t.closed_at, &at);
        change.set(world, t.closed_by, &by);
        change.set(world, t.active, "false");
    } else if was && !is {
        change.set(world, t.closed_at, "");
        change.set(world, t.closed_by, "");
        change.set(world, t.active, "true");
    }
}

fn incident_rules(world: &World, change: &mut Change) {
    let t = &world.schema.task;
    if !change.changed(world, t.state) {
        return;
    }
    let (before, after) = (change.before(world, t.state), world.raw(change.new, t.state).into_owned());
    let (at, by) = (time::format(change.now), actor_id(world, change.actor));
    if after == "6" {
        change.set(world, t.resolved_at, &at);
        change.set(world, t.resolved_by, &by);
    }
    let done = |state: &str| matches!(state, "6" | "7" | "8");
    if change.old.is_some() && done(&before) && !done(&after) {
        change.increment(world, t.reopen_count);
        change.set(world, t.reopened_by, &by);
        change.set(world, t.reopened_time, &at);
        // Releases differ here; clearing is what the newer ones do.
        change.set(world, t.resolved_at, "");
        change.set(world, t.resolved_by, "");
    }
    if after != "3" {
        change.set(world, t.hold_reason, "");
    }
}

fn actor_id(world: &World, actor: u32) -> String {
    world.actors.sys_id(actor).map(hex).unwrap_or_default()
}

fn resolution_policy(world: &World, row: &Row) -> Result<(), Refusal> {
    let t = &world.schema.task;
    if !matches!(&*world.raw(row, t.state), "6" | "7") {
        return Ok(());
    }
    let mut missing = Vec::new();
    if world.raw(row, t.close_code).is_empty() {
        missing.push("Resolution code");
    }
    if world.raw(row, t.close_notes).is_empty() {
        missing.push("Close notes");
    }
    if missing.is_empty() { Ok(()) } else { Err(Refusal::DataPolicy(missing)) }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::simulators::servicenow::options::{Options, Switches};
    use crate::simulators::servicenow::write::{Op, Write, execute};

    struct Desk {
        world: World,
        switches: Switches,
    }

    impl Desk {
        fn new() -> Self {
            Self { world: World::new(&Options::default()).expect("a world"), switches: Switches::default() }
        }

        fn write(&mut self, table: &str, op: Op, fields: &[(&str, &str)]) -> Result<u128, Refusal> {
            let table = self.world.schema.table(table).expect("a table");
            let write = Write {
                op,
                method: "POST",
                table,
                fields: fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
                actor: self.world.actors.id("nowbridge"),
                admin: false,
                via: Via::Rest,
                zone: TimeZone::UTC,
                by_label: false,
                keeps_stamps: false,
                late_ms: None,
            };
            let at = execute(&mut self.world, &write, &Faults::default(), &self.switches)?.expect("a row");
            let store = self.world.schema.tables[table].store;
            Ok(self.world.stores[store].get(at).expect("a row").sys_id)
        }

        fn value(&self, id: u128, name: &str) -> String {
            let row = self.world.stores[self.world.schema.task_store].row(id).expect("a row");
            let col = self.world.schema.column(row.table, name).expect("a column");
            self.world.raw(row, col).into_owned()
        }
    }

    #[test]
    fn priority_follows_impact_and_urgency_whatever_was_sent() {
        let mut desk = Desk::new();
        for (impact, urgency, wanted) in
            [("1", "1", "1"), ("2", "1", "2"), ("2", "2", "3"), ("3", "2", "4"), ("3", "3", "5")]
        {
            let sent = [("impact", impact), ("urgency", urgency), ("priority", "1")];
            let id = desk.write("incident", Op::Insert, &sent).expect("written");
            assert_eq!(desk.value(id, "priority"), wanted);
        }
    }

    #[test]
    fn holding_and_reassigning_leave_their_marks() {
        let mut desk = Desk::new();
        let id =
            desk.write("incident", Op::Insert, &[("assignment_group", "g"), ("assigned_to", "a")]).expect("written");
        desk.write("incident", Op::Update(id), &[("state", "3"), ("hold_reason", "1")]).expect("written");
        assert_eq!((desk.value(id, "incident_state"), desk.value(id, "hold_reason")), ("3".into(), "1".into()));
        desk.write("incident", Op::Update(id), &[("state", "2"), ("assignment_group", "h")]).expect("written");
        assert_eq!((desk.value(id, "hold_reason"), desk.value(id, "assigned_to")), (String::new(), String::new()));
        assert_eq!((desk.value(id, "reassignment_count"), desk.value(id, "sys_mod_count")), ("1".into(), "2".into()));
    }

    #[test]
    fn unknown_choices_are_ignored_and_codes_follow_the_set() {
        let mut desk = Desk::new();
        let id = desk.write("incident", Op::Insert, &[("urgency", "9"), ("category", "weather")]).expect("written");
        assert_eq!((desk.value(id, "urgency"), desk.value(id, "category")), ("3".into(), "inquiry".into()));
        let old = [("state", "6"), ("close_code", "Solved (Permanently)"), ("close_notes", "x")];
        let refused = desk.write("incident", Op::Update(id), &old);
        assert_eq!(refused, Err(Refusal::DataPolicy(vec!["Resolution code"])));
        desk.world.obey(&Faults { close_codes: crate::simulators::servicenow::CloseCodes::Old, ..Faults::default() });
        desk.write("incident", Op::Update(id), &old).expect("written");
        assert_eq!(desk.value(id, "resolved_by"), hex(super::super::world::sys_id_of("sys_user", "nowbridge")));
    }

    #[test]
    fn closed_rows_can_be_guarded_and_a_base_table_sees_its_own_columns() {
        let mut desk = Desk::new();
        let id = desk.write("incident", Op::Insert, &[("state", "8")]).expect("written");
        assert_eq!(desk.value(id, "active"), "false");
        desk.write("task", Op::Update(id), &[("category", "network"), ("description", "d")]).expect("written");
        assert_eq!((desk.value(id, "category"), desk.value(id, "description")), ("inquiry".into(), "d".into()));
        desk.switches.refuse_closed_writes = true;
        assert_eq!(desk.write("incident", Op::Update(id), &[("urgency", "1")]), Err(Refusal::Acl("Update")));
        assert_eq!((desk.world.counts.to_closed_rows, desk.world.counts.refused), (2, 1));
    }
}
