//! The tables and columns of an instance, with inheritance resolved and custom columns added.
//!
//! The tables of a hierarchy (task and its children) share one store and one numbering of columns. A column is visible
//! in the tables that own it and in their descendants.

use std::collections::HashMap;
use std::sync::Arc;

use super::choices::{CHOICES, close_codes};
use super::columns::{ColumnType, SYSTEM, TABLES};
use super::faults::CloseCodes;
use super::options::ExtraColumn;

/// Index of a column in its store.
pub(super) type Col = u16;

/// Indexes of the system columns, equal in every store.
pub(super) mod sys {
    use super::Col;
    pub(in crate::simulators::servicenow) const ID: Col = 0;
    pub(in crate::simulators::servicenow) const CREATED_ON: Col = 1;
    pub(in crate::simulators::servicenow) const CREATED_BY: Col = 2;
    pub(in crate::simulators::servicenow) const UPDATED_ON: Col = 3;
    pub(in crate::simulators::servicenow) const UPDATED_BY: Col = 4;
    pub(in crate::simulators::servicenow) const MOD_COUNT: Col = 5;
    pub(in crate::simulators::servicenow) const CLASS: Col = 6;
}

pub(super) struct Column {
    pub name: Arc<str>,
    pub label: Box<str>,
    pub kind: ColumnType,
    /// Number of characters; longer values are cut. 0 is unlimited.
    pub max: u32,
    pub default: &'static str,
    owners: Vec<usize>,
}

pub(super) struct Table {
    pub name: &'static str,
    pub label: &'static str,
    pub parent: Option<usize>,
    pub store: usize,
    pub prefix: &'static str,
    pub display: Col,
    /// Visible columns, inherited ones first.
    pub columns: Vec<Col>,
    pub defaults: Vec<(Col, &'static str)>,
}

#[derive(Default)]
pub(super) struct StoreSchema {
    pub columns: Vec<Column>,
    by_name: HashMap<Box<str>, Col>,
}

/// The columns of the task store that the rules use.
pub(super) struct TaskColumns {
    pub number: Col,
    pub state: Col,
    pub incident_state: Col,
    pub problem_state: Col,
    pub active: Col,
    pub impact: Col,
    pub urgency: Col,
    pub priority: Col,
    pub assigned_to: Col,
    pub assignment_group: Col,
    pub reassignment_count: Col,
    pub closed_at: Col,
    pub closed_by: Col,
    pub close_notes: Col,
    pub close_code: Col,
    pub resolved_at: Col,
    pub resolved_by: Col,
    pub reopen_count: Col,
    pub reopened_by: Col,
    pub reopened_time: Col,
    pub hold_reason: Col,
    pub correlation_id: Col,
    pub comments_and_work_notes: Col,
}

pub(super) struct Schema {
    pub tables: Vec<Table>,
    pub stores: Vec<StoreSchema>,
    by_name: HashMap<&'static str, usize>,
    pub task: TaskColumns,
    pub incident: usize,
    pub task_store: usize,
    pub journal_table: usize,
    pub audit_delete_table: usize,
    /// Choice lists by table and column.
    choices: HashMap<(usize, Col), Vec<(&'static str, &'static str)>>,
}

impl Schema {
    /// Creates the schema of the built-in tables and the extra columns.
    ///
    /// # Errors
    /// A message that names the extra column whose table does not exist or whose name is in use.
    pub fn new(extra: &[ExtraColumn]) -> Result<Self, String> {
        let mut stores: Vec<StoreSchema> = Vec::new();
        let mut tables: Vec<Table> = Vec::new();
        let mut by_name = HashMap::new();
        for line in TABLES {
            let index = tables.len();
            let parent = line.parent.and_then(|name| by_name.get(name).copied());
            let store = parent.map_or(stores.len(), |parent: usize| tables[parent].store);
            if parent.is_none() {
                let mut def = StoreSchema::default();
                for &(name, label, kind, max, default) in SYSTEM {
                    def.add(index, name, label, kind, max, default);
                }
                stores.push(def);
            }
            for &(name, label, kind, max, default) in line.columns {
                stores[store].add(index, name, label, kind, max, default);
            }
            by_name.insert(line.name, index);
            tables.push(Table {
                name: line.name,
                label: line.label,
                parent,
                store,
                prefix: line.prefix,
                display: sys::ID,
                columns: Vec::new(),
                defaults: Vec::new(),
            });
        }
        for column in extra {
            let table = *by_name
                .get(column.table.as_str())
                .ok_or_else(|| format!("extra column {}: there is no table {}", column.name, column.table))?;
            let store = &mut stores[tables[table].store];
            if store.by_name.contains_key(column.name.as_str()) {
                return Err(format!("extra column {}.{}: the column exists", column.table, column.name));
            }
            store.add(table, &column.name, &column.name, ColumnType::Text, column.max_length, "");
        }
        for index in 0..tables.len() {
            let chain = ancestry(&tables, index);
            let def = &stores[tables[index].store];
            let columns = (0..def.columns.len())
                .filter(|&col| def.columns[col].owners.iter().any(|owner| chain.contains(owner)))
                .filter_map(|col| Col::try_from(col).ok())
                .collect();
            let defaults =
                TABLES[index].defaults.iter().filter_map(|(name, value)| Some((def.find(name)?, *value))).collect();
            let display = def.find(TABLES[index].display).unwrap_or(sys::ID);
            tables[index].columns = columns;
            tables[index].defaults = defaults;
            tables[index].display = display;
        }
        let incident = by_name["incident"];
        let task_store = tables[incident].store;
        let task = task_columns(&stores[task_store]);
        let mut schema = Self {
            journal_table: by_name["sys_journal_field"],
            audit_delete_table: by_name["sys_audit_delete"],
            tables,
            stores,
            by_name,
            task,
            incident,
            task_store,
            choices: HashMap::new(),
        };
        for (table, column, list) in CHOICES {
            if let Some((table, col)) = schema.column_position(table, column) {
                schema.choices.insert((table, col), list.to_vec());
            }
        }
        schema.set_close_codes(CloseCodes::default());
        Ok(schema)
    }

    fn column_position(&self, table: &str, column: &str) -> Option<(usize, Col)> {
        let table = self.table(table)?;
        Some((table, self.column(table, column)?))
    }

    pub fn set_close_codes(&mut self, set: CloseCodes) {
        let key = (self.incident, self.task.close_code);
        self.choices.insert(key, close_codes(set).into_iter().map(|code| (code, code)).collect());
    }

    pub fn table(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Returns the column of that name; `None` if the table does not have it.
    pub fn column(&self, table: usize, name: &str) -> Option<Col> {
        let col = self.stores[self.tables[table].store].find(name)?;
        self.tables[table].columns.contains(&col).then_some(col)
    }

    pub fn column_at(&self, store: usize, col: Col) -> &Column {
        &self.stores[store].columns[usize::from(col)]
    }

    /// Whether `table` is `ancestor` or one of its descendants.
    pub fn is_a(&self, table: usize, ancestor: usize) -> bool {
        let mut at = Some(table);
        while let Some(index) = at {
            if index == ancestor {
                return true;
            }
            at = self.tables[index].parent;
        }
        false
    }

    /// Returns the choices of a column in a table: the table's own list, otherwise that of its nearest ancestor.
    pub fn choices(&self, table: usize, col: Col) -> Option<&[(&'static str, &'static str)]> {
        let mut at = Some(table);
        while let Some(index) = at {
            if let Some(list) = self.choices.get(&(index, col)) {
                return Some(list);
            }
            at = self.tables[index].parent;
        }
        None
    }

    /// Returns all choice lists, each with the table that defines it.
    pub fn all_choices(&self) -> impl Iterator<Item = (usize, Col, &[(&'static str, &'static str)])> {
        self.choices.iter().map(|((table, col), list)| (*table, *col, list.as_slice()))
    }

    /// Returns the columns that a table adds to those of its parent.
    pub fn own_columns(&self, table: usize) -> impl Iterator<Item = &Column> {
        self.stores[self.tables[table].store].columns.iter().filter(move |column| column.owners.contains(&table))
    }

    /// Returns the value of an unset column, or the name of a computed default (`@...`).
    pub fn default(&self, table: usize, col: Col) -> &'static str {
        let table = &self.tables[table];
        match table.defaults.iter().find(|(at, _)| *at == col) {
            Some((_, value)) => value,
            None => self.stores[table.store].columns[usize::from(col)].default,
        }
    }
}

impl StoreSchema {
    fn add(&mut self, owner: usize, name: &str, label: &str, kind: ColumnType, max: u32, default: &'static str) {
        if let Some(&col) = self.by_name.get(name) {
            self.columns[usize::from(col)].owners.push(owner);
            return;
        }
        let Ok(col) = Col::try_from(self.columns.len()) else { return };
        self.by_name.insert(name.into(), col);
        self.columns.push(Column { name: name.into(), label: label.into(), kind, max, default, owners: vec![owner] });
    }

    pub fn find(&self, name: &str) -> Option<Col> {
        self.by_name.get(name).copied()
    }
}

fn ancestry(tables: &[Table], table: usize) -> Vec<usize> {
    std::iter::successors(Some(table), |&at| tables[at].parent).collect()
}

fn task_columns(def: &StoreSchema) -> TaskColumns {
    // The names are those of `columns.rs`. A missing one would become sys_id, which the tests would show.
    let at = |name: &str| def.find(name).unwrap_or(sys::ID);
    TaskColumns {
        number: at("number"),
        state: at("state"),
        incident_state: at("incident_state"),
        problem_state: at("problem_state"),
        active: at("active"),
        impact: at("impact"),
        urgency: at("urgency"),
        priority: at("priority"),
        assigned_to: at("assigned_to"),
        assignment_group: at("assignment_group"),
        reassignment_count: at("reassignment_count"),
        closed_at: at("closed_at"),
        closed_by: at("closed_by"),
        close_notes: at("close_notes"),
        close_code: at("close_code"),
        resolved_at: at("resolved_at"),
        resolved_by: at("resolved_by"),
        reopen_count: at("reopen_count"),
        reopened_by: at("reopened_by"),
        reopened_time: at("reopened_time"),
        hold_reason: at("hold_reason"),
        correlation_id: at("correlation_id"),
        comments_and_work_notes: at("comments_and_work_notes"),
    }
}

/// Returns internal type, length and reference as in `sys_dictionary`.
pub(super) fn dictionary_type(kind: ColumnType, max: u32) -> (&'static str, u32, &'static str) {
    match kind {
        ColumnType::Text => ("string", if max == 0 { 4000 } else { max }, ""),
        ColumnType::Integer => ("integer", 40, ""),
        ColumnType::Choice => ("string", max, ""),
        ColumnType::Boolean => ("boolean", 40, ""),
        ColumnType::Reference(table) => ("reference", 32, table),
        ColumnType::DateTime => ("glide_date_time", 40, ""),
        ColumnType::Duration => ("glide_duration", 40, ""),
        ColumnType::Journal => ("journal_input", 4000, ""),
        ColumnType::Class => ("sys_class_name", 80, ""),
    }
}
