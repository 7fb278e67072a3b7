//! Work notes and comments: `sys_journal_field`. Its rows are only inserted, so they have no versions. They are read
//! with the same paging, and each published entry is recorded by its sys_id.
//!
//! An entry is published with what is known of its row (number, correlation, watched values). If the row is not
//! known, it is read first. If it cannot be read, because it is not visible yet or because the route's filter
//! excludes it, the entry waits as long as the lookback returns it. Then it is dropped and counted.
//!
//! An account without read access to `sys_journal_field` gets 200 and an empty list, as if there were no notes. If
//! the count proves otherwise, a finding reports it.

use std::collections::BTreeMap;

use super::change;
use super::change_detection::{Batch, ChangeDetector, Counts, DetectionError, FailedLookup, PollPage, PollStage};
use super::rows::{InsertOnlyTable, InsertedRow, StateRecord, UnusableRow};
use super::timestamp;
use super::window::{RowKey, is_sys_id};
use crate::model::change::JournalNote;

/// Maximum number of sys_ids in a query, so that the request line is shorter than 4 KB.
const MISSING_ROWS_PER_REQUEST: usize = 100;
const COLUMN: &str = "sys_created_on";

impl ChangeDetector {
    pub(super) fn journal_request(&self) -> Option<(String, String, String, u64)> {
        let progress = &self.checkpoint.as_ref()?.journal;
        let filter = format!("nameIN{}^elementINcomments,work_notes", self.tables());
        let query = progress.query(&self.window(), COLUMN, &filter);
        let columns = "sys_id,element,element_id,value,sys_created_on,sys_created_by".into();
        Some(("sys_journal_field".into(), query, columns, progress.offset()))
    }

    /// The polled table and the classes of its rows, comma-separated: journal and audit contain the real class.
    pub(super) fn tables(&self) -> String {
        let mut tables = vec![self.settings.table.clone()];
        tables.extend(self.published_state.classes());
        tables.join(",")
    }

    pub(super) fn missing_rows_query(&self) -> String {
        let filter = if self.settings.filter.is_empty() { String::new() } else { format!("^{}", self.settings.filter) };
        let ids: Vec<&str> = self.missing_rows.iter().take(MISSING_ROWS_PER_REQUEST).map(String::as_str).collect();
        format!("sys_idIN{}{filter}", ids.join(","))
    }

    pub(super) fn process_journal(&mut self, page: &PollPage, batch: &mut Batch) -> Result<(), DetectionError> {
        let keys = insert_only_keys("sys_journal_field", page)?;
        let hidden = page.rows.is_empty() && page.total.is_some_and(|t| t > 0);
        if hidden {
            let reason = "the instance counts rows in sys_journal_field but returns none: let the bridge's user read the \
                          table; until then work notes and comments are not published";
            self.findings.insert("journal", reason.into());
        } else if !page.rows.is_empty() {
            self.findings.remove("journal");
        }
        // The end of hidden rows is not searched for: they are most likely the whole table.
        let total = page.total.filter(|_| !hidden);
        let window = self.window();
        let checkpoint = self.checkpoint.as_mut().ok_or(DetectionError::UnexpectedPage)?;
        checkpoint.journal = checkpoint.journal.advance(&window, COLUMN, &keys, total, page.now)?;
        for row in &page.rows {
            if self.published_state.is_published(&inserted_row(row)) {
                batch.counts.already_seen += 1;
            } else {
                self.pending_entries.push_back(row.clone());
            }
        }
        self.missing_rows = self.find_missing_rows();
        if self.missing_rows.is_empty() {
            self.publish_pending_entries(batch);
        } else {
            self.enter_stage(PollStage::MissingRows);
        }
        Ok(())
    }

    pub(super) fn process_missing_rows(&mut self, page: &PollPage, batch: &mut Batch) -> Result<(), DetectionError> {
        let versions = self.versions(page)?;
        let requested: Vec<String> =
            self.missing_rows.drain(..self.missing_rows.len().min(MISSING_ROWS_PER_REQUEST)).collect();
        for version in &versions {
            // Rows that were not requested mean that the instance ignored the condition.
            if requested.contains(&version.sys_id) {
                self.process_version(version, batch);
            }
        }
        for id in requested {
            if self.known_row(&id).is_none() {
                let polls = self.polls;
                let lookup = self.failed_lookups.entry(id).or_default();
                *lookup = FailedLookup { lookups: lookup.lookups + 1, poll: polls };
            }
        }
        if self.missing_rows.is_empty() {
            self.publish_pending_entries(batch);
        }
        Ok(())
    }

    /// The rows of pending entries that are not known. A row that was not found is looked up again in every second
    /// poll, then in every fourth and so on, so that entries outside a filter do not cost a request each time.
    fn find_missing_rows(&mut self) -> Vec<String> {
        let mut missing: Vec<String> = Vec::new();
        for id in self.pending_entries.iter().filter_map(|row| row.get("element_id")) {
            if !is_sys_id(id) || self.published_state.row(id).is_some() || missing.contains(id) {
                continue;
            }
            let polls = self.polls;
            match self.failed_lookups.get_mut(id) {
                Some(lookup) if lookup.poll == polls || !polls.is_multiple_of(1 << lookup.lookups.min(5)) => {
                    lookup.poll = polls;
                }
                _ => missing.push(id.clone()),
            }
        }
        missing
    }

    fn publish_pending_entries(&mut self, batch: &mut Batch) {
        while let Some(row) = self.pending_entries.pop_front() {
            let get = |column: &str| row.get(column).cloned().unwrap_or_default();
            let row_sys_id = get("element_id");
            let Some(state) = self.known_row(&row_sys_id) else { continue };
            let inserted = inserted_row(&row);
            let note = JournalNote {
                sys_id: inserted.sys_id.clone(),
                kind: if get("element") == "comments" { "comment" } else { "work_note" }.into(),
                body: get("value"),
                author: get("sys_created_by"),
                created_at: timestamp::to_rfc3339(inserted.at),
            };
            let change = change::note_change(&self.settings, &row_sys_id, state, note);
            self.publish(change, batch);
            self.apply_records(vec![StateRecord::Inserted { row: inserted, present: true }], batch);
        }
        self.enter_stage(PollStage::Journal);
        let window = self.window();
        let Some(progress) = self.checkpoint.as_ref().map(|c| &c.journal) else { return };
        if progress.sweep.is_none() {
            let expired =
                self.published_state.expired_inserted_rows(InsertOnlyTable::Journal, progress.lower_bound(&window));
            self.apply_records(expired, batch);
            let (polls, before) = (self.polls, self.failed_lookups.len());
            self.failed_lookups.retain(|_, a| a.poll == polls);
            let orphaned = (before - self.failed_lookups.len()) as u64;
            batch.counts = Counts { orphaned_entries: batch.counts.orphaned_entries + orphaned, ..batch.counts };
            self.finish_stage(PollStage::Journal);
        }
    }
}

fn inserted_row(row: &BTreeMap<String, String>) -> InsertedRow {
    let at = row.get(COLUMN).and_then(|v| timestamp::parse(v)).unwrap_or_default();
    InsertedRow { at, kind: InsertOnlyTable::Journal, sys_id: row.get("sys_id").cloned().unwrap_or_default() }
}

/// The keys of a page of an insert-only table.
pub(super) fn insert_only_keys(table: &str, page: &PollPage) -> Result<Vec<RowKey>, UnusableRow> {
    let get = |row: &BTreeMap<String, String>, column: &'static str| row.get(column).cloned().unwrap_or_default();
    page.rows
        .iter()
        .map(|row| {
            let bad = |column| UnusableRow { table: table.into(), column, value: get(row, column) };
            let sys_id = Some(get(row, "sys_id")).filter(|id| is_sys_id(id)).ok_or_else(|| bad("sys_id"))?;
            let at = timestamp::parse(&get(row, COLUMN)).ok_or_else(|| bad(COLUMN))?;
            Ok(RowKey { at, sys_id })
        })
        .collect()
}
