//! Deletes: `sys_audit_delete`, which names the real class and the sys_id of what was deleted.
//!
//! Not covered: tables with `no_audit_delete`, and rows that merely became invisible (an ACL, another domain).

use std::collections::BTreeMap;

use super::change;
use super::feed::{Batch, Feed, FeedError, PollPage, Subject};
use super::journal::insert_only_keys;
use super::rows::{Mark, MarkKind, RowState, StateRecord};

const COLUMN: &str = "sys_created_on";

impl Feed {
    pub(super) fn deletes_ask(&self) -> Option<(String, String, String, u64)> {
        let track = &self.checkpoint.as_ref()?.deletes;
        let query = track.query(&self.window(), COLUMN, &format!("tablenameIN{}", self.tables()));
        let columns = "sys_id,tablename,documentkey,sys_created_on,sys_created_by".into();
        Some(("sys_audit_delete".into(), query, columns, track.offset()))
    }

    pub(super) fn digest_deletes(&mut self, page: &PollPage, batch: &mut Batch) -> Result<(), FeedError> {
        let keys = insert_only_keys("sys_audit_delete", page)?;
        let hidden = page.rows.is_empty() && page.total.is_some_and(|t| t > 0);
        if hidden {
            let why = "sys_audit_delete counts deletes and shows none: the account needs read access to it; deletes \
                       are not published until then";
            self.findings.insert("deletes", why.into());
        } else {
            self.findings.remove("deletes");
        }
        let total = page.total.filter(|_| !hidden);
        let window = self.window();
        let checkpoint = self.checkpoint.as_mut().ok_or(FeedError::Unasked)?;
        checkpoint.deletes = checkpoint.deletes.advance(&window, COLUMN, &keys, total, page.now)?;
        let (done, from) = (checkpoint.deletes.sweep.is_none(), checkpoint.deletes.from(&window));
        for (row, key) in page.rows.iter().zip(keys) {
            let mark = Mark { at: key.at, kind: MarkKind::Delete, sys_id: key.sys_id };
            if self.memory.marked(&mark) {
                batch.counts.seen += 1;
            } else {
                self.deleted(row, mark, batch);
            }
        }
        if done {
            let expired = self.memory.expired_marks(MarkKind::Delete, from);
            self.remember(expired, batch);
            self.after(Subject::Deletes);
        }
        Ok(())
    }

    fn deleted(&mut self, row: &BTreeMap<String, String>, mark: Mark, batch: &mut Batch) {
        let get = |column: &str| row.get(column).map_or("", String::as_str);
        let (sys_id, by, at) = (get("documentkey"), get("sys_created_by"), mark.at);
        let state = match self.known(sys_id) {
            // The row stands again under the same sys_id: the delete was of the one before it.
            Some(known)
                if known.deleted.is_none()
                    && (known.created_on > at || (known.created_on == at && known.recreated)) =>
            {
                None
            }
            Some(known) => Some(known.clone()),
            // A row that no poll saw: with a filter nobody knows whether it matched.
            None if self.settings.filter.is_empty() && get("tablename") == self.settings.table => {
                Some(RowState::unseen(at))
            }
            None => None,
        };
        if let Some(state) = state {
            let change = change::of_delete(&self.settings, sys_id, &state, &mark.sys_id, by, at);
            self.publish(change, batch);
            let gone = RowState { deleted: Some(at), ..state };
            self.remember(vec![StateRecord::Row(sys_id.into(), Some(Box::new(gone)))], batch);
        }
        self.remember(vec![StateRecord::Mark(mark, true)], batch);
    }
}
