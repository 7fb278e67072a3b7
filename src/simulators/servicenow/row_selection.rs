//! Row selection of list queries: by index if possible, without rows whose visibility is delayed, and in random order
//! unless the query has an order.

use super::database::Database;
use super::query::{Condition, Query};
use super::schema::sys;
use super::table_storage::{Row, Store, parse_sys_id};
use super::time;

/// One page of a query's result.
pub(super) struct Selection {
    pub rows: Vec<Row>,
    /// Number of all matching rows.
    pub total: usize,
}

/// The page of the result that the request wants.
pub(super) struct PageBounds {
    pub limit: usize,
    pub offset: usize,
    /// Lookups by key see delayed row versions too.
    pub lookups_ignore_delay: bool,
}

/// The rows that can match a query.
enum QueryPlan {
    /// Positions of the rows, from indexes.
    Rows(Vec<u32>),
    /// All rows updated at or after this second.
    UpdatedSince(i64),
}

/// Runs a query on a table and its subclasses.
pub(super) fn select(database: &mut Database, table: usize, query: &Query, page: &PageBounds) -> Selection {
    let seed = database.rng.u64(..);
    let store_at = database.schema.tables[table].store;
    let now = time::now_ms();
    if !database.stores[store_at].delayed.is_empty() {
        database.stores[store_at].delayed.retain(|_, delayed| delayed.visible_at > now);
    }
    let database = &*database;
    let store = &database.stores[store_at];
    let plan = plan(database, table, store, query);
    let sees_delayed = page.lookups_ignore_delay && matches!(plan, QueryPlan::Rows(_));
    let in_update_order = matches!(plan, QueryPlan::UpdatedSince(_)) && store.delayed.is_empty();
    let mut hits: Vec<&Row> = Vec::new();
    let mut consider = |at: u32| {
        let version = if sees_delayed { store.get(at) } else { visible(store, at) };
        if let Some(row) = version
            && database.schema.is_a(row.table, table)
            && query.matches(database, store_at, row)
        {
            hits.push(row);
        }
    };
    match plan {
        QueryPlan::Rows(rows) => rows.into_iter().for_each(&mut consider),
        QueryPlan::UpdatedSince(bound) => store.updated_since(bound).for_each(&mut consider),
    }
    sort(database, store_at, query, in_update_order, seed, &mut hits);
    let total = hits.len();
    let rows = hits.into_iter().skip(page.offset).take(page.limit).cloned().collect();
    Selection { rows, total }
}

fn visible(store: &Store, at: u32) -> Option<&Row> {
    match store.delayed.get(&at) {
        Some(delayed) => delayed.previous.as_ref(),
        None => store.get(at),
    }
}

fn sort(database: &Database, store: usize, query: &Query, in_update_order: bool, seed: u64, hits: &mut [&Row]) {
    let is_keyset_order = match query.order.as_slice() {
        [(first, false)] => first.as_slice() == [sys::UPDATED_ON],
        [(first, false), (second, false)] => first.as_slice() == [sys::UPDATED_ON] && second.as_slice() == [sys::ID],
        _ => false,
    };
    if is_keyset_order && in_update_order || hits.len() < 2 {
        return;
    }
    // Without ORDERBY the order is not guaranteed. Shuffling reveals clients that rely on it.
    fastrand::Rng::with_seed(seed).shuffle(hits);
    if !query.order.is_empty() {
        hits.sort_by(|a, b| query.compare(database, store, a, b));
    }
}

fn plan(database: &Database, table: usize, store: &Store, query: &Query) -> QueryPlan {
    let mut rows: Vec<u32> = Vec::new();
    let mut keyed = true;
    let mut bound = i64::MAX;
    let insert_only = table == database.schema.journal_table || table == database.schema.audit_delete_table;
    for group in &query.groups {
        let single =
            || group.iter().filter_map(|clause| if let [term] = clause.as_slice() { Some(term) } else { None });
        let mut best: Option<Vec<u32>> = None;
        let mut lowest = i64::MIN;
        for term in single() {
            let [col] = *term.path.as_slice() else { continue };
            let wanted: &[String] = match &term.condition {
                Condition::Equal(value) => std::slice::from_ref(value),
                Condition::In(list) => list,
                _ => &[],
            };
            let usable = !wanted.is_empty() && wanted.iter().all(|value| !value.is_empty());
            if usable && (col == sys::ID || store.is_indexed(col)) {
                let found: Vec<u32> = wanted
                    .iter()
                    .flat_map(|value| match col {
                        sys::ID => parse_sys_id(value).and_then(|id| store.find(id)).into_iter().collect(),
                        col => store.equal(col, value).to_vec(),
                    })
                    .collect();
                if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                    best = Some(found);
                }
            }
            let is_update_time = col == sys::UPDATED_ON || insert_only && col == sys::CREATED_ON;
            if let (
                true,
                Condition::Equal(value)
                | Condition::Compare { greater: true, value, .. }
                | Condition::Between(value, _),
            ) = (is_update_time, &term.condition)
            {
                lowest = lowest.max(time::parse(value).unwrap_or(i64::MIN));
            }
        }
        match best {
            Some(found) => rows.extend(found),
            None => keyed = false,
        }
        bound = bound.min(lowest);
    }
    // The index contains only the newest versions: a lookup by key misses a row whose visible version has another key.
    if keyed {
        rows.sort_unstable();
        rows.dedup();
        return QueryPlan::Rows(rows);
    }
    // The index contains the newest versions of delayed rows, whose `sys_updated_on` is never before the visible one's.
    QueryPlan::UpdatedSince(bound)
}
