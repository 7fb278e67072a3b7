//! Work notes and comments: `sys_journal_field`, whose rows are only ever inserted, read by the same paging with marks
//! in the place of versions.
//!
//! An entry is published with what is known of its row (number, correlation, watched values). Where the row is not
//! known it is read first; where it can't be read, because it is not visible yet or the route's filter excludes it,
//! the entry waits as long as the overlap returns it, and is then given up and counted.
//!
//! The trap: an account without rights on `sys_journal_field` gets 200 and an empty list. That looks like "no notes",
//! so it is told as a finding where the count proves otherwise.

use std::collections::BTreeMap;

use super::change;
use super::feed::{Absent, Batch, Counts, Feed, FeedError, PollPage, Subject};
use super::rows::{Mark, MarkKind, StateRecord, UnusableRow};
use super::timestamp;
use super::window::{RowKey, is_sys_id};
use crate::model::change::JournalNote;

/// Most sys_ids in one query: the request line stays below 4 KB.
const OWNERS_AT_ONCE: usize = 100;
const COLUMN: &str = "sys_created_on";

impl Feed {
    pub(super) fn journal_ask(&self) -> Option<(String, String, String, u64)> {
        let track = &self.checkpoint.as_ref()?.journal;
        let filter = format!("nameIN{}^elementINcomments,work_notes", self.tables());
        let query = track.query(&self.window(), COLUMN, &filter);
        let columns = "sys_id,element,element_id,value,sys_created_on,sys_created_by".into();
        Some(("sys_journal_field".into(), query, columns, track.offset()))
    }

    /// The polled table and the classes met in it: journal and audit name the real class.
    pub(super) fn tables(&self) -> String {
        let mut tables = vec![self.settings.table.clone()];
        tables.extend(self.memory.classes());
        tables.join(",")
    }

    pub(super) fn owners_query(&self) -> String {
        let filter = if self.settings.filter.is_empty() { String::new() } else { format!("^{}", self.settings.filter) };
        let ids: Vec<&str> = self.owners.iter().take(OWNERS_AT_ONCE).map(String::as_str).collect();
        format!("sys_idIN{}{filter}", ids.join(","))
    }

    pub(super) fn digest_journal(&mut self, page: &PollPage, batch: &mut Batch) -> Result<(), FeedError> {
        let keys = insert_only_keys("sys_journal_field", page)?;
        let hidden = page.rows.is_empty() && page.total.is_some_and(|t| t > 0);
        if hidden {
            let why = "sys_journal_field counts entries and shows none: the account needs read access to it; work \
                       notes and comments are not published until then";
            self.findings.insert("journal", why.into());
        } else if !page.rows.is_empty() {
            self.findings.remove("journal");
        }
        // A hidden stretch is not searched for its end: it is most likely the whole table.
        let total = page.total.filter(|_| !hidden);
        let window = self.window();
        let checkpoint = self.checkpoint.as_mut().ok_or(FeedError::Unasked)?;
        checkpoint.journal = checkpoint.journal.advance(&window, COLUMN, &keys, total, page.now)?;
        for row in &page.rows {
            if self.memory.marked(&mark(row)) {
                batch.counts.seen += 1;
            } else {
                self.held.push_back(row.clone());
            }
        }
        self.owners = self.missing_owners();
        if self.owners.is_empty() {
            self.publish_held(batch);
        } else {
            self.stage(Subject::Owners);
        }
        Ok(())
    }

    pub(super) fn digest_owners(&mut self, page: &PollPage, batch: &mut Batch) -> Result<(), FeedError> {
        let versions = self.versions(page)?;
        let asked: Vec<String> = self.owners.drain(..self.owners.len().min(OWNERS_AT_ONCE)).collect();
        for version in &versions {
            // Rows that were not asked for mean that the instance dropped the condition.
            if asked.contains(&version.sys_id) {
                self.observe(version, batch);
            }
        }
        for id in asked {
            if self.known(&id).is_none() {
                let polls = self.polls;
                let absent = self.absent.entry(id).or_default();
                *absent = Absent { tries: absent.tries + 1, poll: polls };
            }
        }
        if self.owners.is_empty() {
            self.publish_held(batch);
        }
        Ok(())
    }

    /// The rows of held entries that are not known. One that was looked for in vain is looked for again in every
    /// second, then every fourth poll and so on, so that entries outside a filter don't cost a request each time.
    fn missing_owners(&mut self) -> Vec<String> {
        let mut missing: Vec<String> = Vec::new();
        for id in self.held.iter().filter_map(|row| row.get("element_id")) {
            if !is_sys_id(id) || self.memory.row(id).is_some() || missing.contains(id) {
                continue;
            }
            let polls = self.polls;
            match self.absent.get_mut(id) {
                Some(absent) if absent.poll == polls || !polls.is_multiple_of(1 << absent.tries.min(5)) => {
                    absent.poll = polls;
                }
                _ => missing.push(id.clone()),
            }
        }
        missing
    }

    fn publish_held(&mut self, batch: &mut Batch) {
        while let Some(row) = self.held.pop_front() {
            let get = |column: &str| row.get(column).cloned().unwrap_or_default();
            let owner = get("element_id");
            let Some(state) = self.known(&owner) else { continue };
            let mark = mark(&row);
            let note = JournalNote {
                sys_id: mark.sys_id.clone(),
                kind: if get("element") == "comments" { "comment" } else { "work_note" }.into(),
                body: get("value"),
                author: get("sys_created_by"),
                created_at: timestamp::rfc3339(mark.at),
            };
            let change = change::of_note(&self.settings, &owner, state, note);
            self.publish(change, batch);
            self.remember(vec![StateRecord::Mark(mark, true)], batch);
        }
        self.stage(Subject::Journal);
        let window = self.window();
        let Some(track) = self.checkpoint.as_ref().map(|c| &c.journal) else { return };
        if track.sweep.is_none() {
            let expired = self.memory.expired_marks(MarkKind::Journal, track.from(&window));
            self.remember(expired, batch);
            let (polls, before) = (self.polls, self.absent.len());
            self.absent.retain(|_, a| a.poll == polls);
            let lost = (before - self.absent.len()) as u64;
            batch.counts = Counts { orphans: batch.counts.orphans + lost, ..batch.counts };
            self.after(Subject::Journal);
        }
    }
}

fn mark(row: &BTreeMap<String, String>) -> Mark {
    let at = row.get(COLUMN).and_then(|v| timestamp::parse(v)).unwrap_or_default();
    Mark { at, kind: MarkKind::Journal, sys_id: row.get("sys_id").cloned().unwrap_or_default() }
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
