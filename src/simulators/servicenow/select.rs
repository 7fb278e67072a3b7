//! Which rows a list query returns: by index where one fits, late rows left out, unordered lists shuffled.

use super::query::{Query, Test};
use super::schema::sys;
use super::storage::{Row, Store, parse_sys_id};
use super::time;
use super::world::World;

/// A page and the number of all matches.
pub(super) struct Selection {
    pub rows: Vec<Row>,
    pub total: usize,
}

/// What is asked for besides the query itself.
pub(super) struct PageBounds {
    pub limit: usize,
    pub offset: usize,
    /// Look-ups by key see late rows too.
    pub late_spares_lookups: bool,
}

enum QueryPlan {
    /// These rows are all that can match.
    Rows(Vec<u32>),
    /// Rows updated at or after this second.
    Since(i64),
}

/// Runs a query over a table and its subclasses.
pub(super) fn select(world: &mut World, table: usize, query: &Query, page: &PageBounds) -> Selection {
    let seed = world.rng.u64(..);
    let store_at = world.schema.tables[table].store;
    let now = time::now_ms();
    if !world.stores[store_at].late.is_empty() {
        world.stores[store_at].late.retain(|_, late| late.visible_at > now);
    }
    let world = &*world;
    let store = &world.stores[store_at];
    let plan = plan(world, table, store, query);
    let sees_late = page.late_spares_lookups && matches!(plan, QueryPlan::Rows(_));
    let in_update_order = matches!(plan, QueryPlan::Since(_)) && store.late.is_empty();
    let mut hits: Vec<&Row> = Vec::new();
    let mut consider = |at: u32| {
        let version = if sees_late { store.get(at) } else { visible(store, at) };
        if let Some(row) = version
            && world.schema.is_a(row.table, table)
            && query.matches(world, store_at, row)
        {
            hits.push(row);
        }
    };
    match plan {
        QueryPlan::Rows(rows) => rows.into_iter().for_each(&mut consider),
        QueryPlan::Since(bound) => store.since(bound).for_each(&mut consider),
    }
    arrange(world, store_at, query, in_update_order, seed, &mut hits);
    let total = hits.len();
    let rows = hits.into_iter().skip(page.offset).take(page.limit).cloned().collect();
    Selection { rows, total }
}

fn visible(store: &Store, at: u32) -> Option<&Row> {
    match store.late.get(&at) {
        Some(late) => late.before.as_ref(),
        None => store.get(at),
    }
}

fn arrange(world: &World, store: usize, query: &Query, in_update_order: bool, seed: u64, hits: &mut [&Row]) {
    let keyset = match query.order.as_slice() {
        [(first, false)] => first.as_slice() == [sys::UPDATED_ON],
        [(first, false), (second, false)] => first.as_slice() == [sys::UPDATED_ON] && second.as_slice() == [sys::ID],
        _ => false,
    };
    if keyset && in_update_order || hits.len() < 2 {
        return;
    }
    // An order that was not asked for is not promised: shuffling shows who relied on it.
    fastrand::Rng::with_seed(seed).shuffle(hits);
    if !query.order.is_empty() {
        hits.sort_by(|a, b| query.compare(world, store, a, b));
    }
}

fn plan(world: &World, table: usize, store: &Store, query: &Query) -> QueryPlan {
    let mut rows: Vec<u32> = Vec::new();
    let mut keyed = true;
    let mut bound = i64::MAX;
    let insert_only = table == world.schema.journal_table || table == world.schema.audit_delete_table;
    for group in &query.groups {
        let single =
            || group.iter().filter_map(|clause| if let [term] = clause.as_slice() { Some(term) } else { None });
        let mut best: Option<Vec<u32>> = None;
        let mut lowest = i64::MIN;
        for term in single() {
            let [col] = *term.path.as_slice() else { continue };
            let wanted: &[String] = match &term.test {
                Test::Equal(value) => std::slice::from_ref(value),
                Test::In(list) => list,
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
            let stamp = col == sys::UPDATED_ON || insert_only && col == sys::CREATED_ON;
            if let (true, Test::Equal(value) | Test::Compare(true, _, value) | Test::Between(value, _)) =
                (stamp, &term.test)
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
    // A row whose visible version still has another key or class is not found by key: the index knows the new one only.
    if keyed {
        rows.sort_unstable();
        rows.dedup();
        return QueryPlan::Rows(rows);
    }
    // The index holds the newer versions of late rows, which are never older than the visible ones.
    QueryPlan::Since(bound)
}
