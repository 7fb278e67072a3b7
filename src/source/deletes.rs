//! Deletes: `sys_audit_delete`, which contains the real class and the sys_id of the deleted row.
//!
//! Not covered: tables with `no_audit_delete`, and rows that only became invisible (an ACL, another domain).

use std::collections::BTreeMap;

use super::change;
use super::change_detection::{Batch, ChangeDetector, DetectionError, PollPage, PollStage};
use super::journal::insert_only_keys;
use super::rows::{InsertOnlyTable, InsertedRow, RowState, StateRecord};

const COLUMN: &str = "sys_created_on";

impl ChangeDetector {
    pub(super) fn deletes_request(&self) -> Option<(String, String, String, u64)> {
        let progress = &self.checkpoint.as_ref()?.deletes;
        let query = progress.query(&self.window(), COLUMN, &format!("tablenameIN{}", self.tables()));
        let columns = "sys_id,tablename,documentkey,sys_created_on,sys_created_by".into();
        Some(("sys_audit_delete".into(), query, columns, progress.offset()))
    }

    pub(super) fn process_deletes(&mut self, page: &PollPage, batch: &mut Batch) -> Result<(), DetectionError> {
        let keys = insert_only_keys("sys_audit_delete", page)?;
        let hidden = page.rows.is_empty() && page.total.is_some_and(|t| t > 0);
        if hidden {
            let reason = "the instance counts rows in sys_audit_delete but returns none: let the bridge's user read the \
                          table; until then deletes are not published";
            self.findings.insert("deletes", reason.into());
        } else {
            self.findings.remove("deletes");
        }
        let total = page.total.filter(|_| !hidden);
        let window = self.window();
        let checkpoint = self.checkpoint.as_mut().ok_or(DetectionError::UnexpectedPage)?;
        checkpoint.deletes = checkpoint.deletes.advance(&window, COLUMN, &keys, total, page.now)?;
        let (done, from) = (checkpoint.deletes.sweep.is_none(), checkpoint.deletes.lower_bound(&window));
        for (row, key) in page.rows.iter().zip(keys) {
            let inserted = InsertedRow { at: key.at, kind: InsertOnlyTable::Delete, sys_id: key.sys_id };
            if self.published_state.is_published(&inserted) {
                batch.counts.already_seen += 1;
            } else {
                self.deleted(row, inserted, batch);
            }
        }
        if done {
            let expired = self.published_state.expired_inserted_rows(InsertOnlyTable::Delete, from);
            self.apply_records(expired, batch);
            self.finish_stage(PollStage::Deletes);
        }
        Ok(())
    }

    fn deleted(&mut self, row: &BTreeMap<String, String>, inserted: InsertedRow, batch: &mut Batch) {
        let get = |column: &str| row.get(column).map_or("", String::as_str);
        let (sys_id, by, at) = (get("documentkey"), get("sys_created_by"), inserted.at);
        let state = match self.known_row(sys_id) {
            // The row was recreated with the same sys_id: the deleted row is the one before it.
            Some(known)
                if known.deleted.is_none()
                    && (known.created_on > at || (known.created_on == at && known.recreated)) =>
            {
                None
            }
            Some(known) => Some(known.clone()),
            // A row that no poll saw: with a filter it is unknown whether the row matched.
            None if self.settings.filter.is_empty() && get("tablename") == self.settings.table => {
                Some(RowState::unseen(at))
            }
            None => None,
        };
        if let Some(state) = state {
            let change = change::delete_change(&self.settings, sys_id, &state, &inserted.sys_id, by, at);
            self.publish(change, batch);
            let deleted_row = RowState { deleted: Some(at), ..state };
            self.apply_records(vec![StateRecord::Row(sys_id.into(), Some(Box::new(deleted_row)))], batch);
        }
        self.apply_records(vec![StateRecord::Inserted { row: inserted, present: true }], batch);
    }
}
