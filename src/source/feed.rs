//! The source's decisions, without I/O and without a clock: what to ask the instance next, and what an answer means.
//!
//! A *poll* is a row of asks: the polled table page by page, then the journal, then the deletes. Each answer becomes a
//! [`Batch`], which is one Kafka transaction. [`Feed::digest`] moves the feed on at once; where the transaction then
//! does not commit for certain, the feed must be thrown away and loaded from the topics again. So nothing needs to be
//! undone, and a commit whose answer was lost is found there or is not.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::change;
use super::checkpoint::{Checkpoint, FORM, WireError};
use super::rows::{Memory, RowState, StateRecord, UnusableRow, Verdict, Version, judge};
use super::settings::{Settings, Start};
use super::window::{PagingError, RowKey, Track, Window};
use crate::model::Change;
use crate::model::change::ChangeOrigin;

/// Seconds that the stored cursor may be behind while nothing is published.
const STORE_EVERY: i64 = 30;

/// What an ask is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// One row, to learn the instance's clock before the first poll.
    Clock,
    /// The polled table.
    Rows,
    /// `sys_journal_field`.
    Journal,
    /// Rows that journal entries belong to and that are not known yet.
    Owners,
    /// `sys_audit_delete`.
    Deletes,
}

/// A list request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What it is about.
    pub subject: Subject,
    /// The table.
    pub table: String,
    /// Encoded query; its values need no escaping.
    pub query: String,
    /// Columns, comma-separated.
    pub columns: String,
    /// Most rows.
    pub limit: u32,
    /// Rows to pass over.
    pub offset: u64,
}

/// An answered list.
#[derive(Debug, Clone, Default)]
pub struct PollPage {
    /// Raw values; columns that may not be read are absent.
    pub rows: Vec<BTreeMap<String, String>>,
    /// `X-Total-Count`, if it came.
    pub total: Option<u64>,
    /// The instance's clock (Date header), less what the request took: not later than when the query ran.
    pub now: Option<i64>,
}

/// One transaction.
#[derive(Debug, Default)]
pub struct Batch {
    /// To publish, in this order.
    pub changes: Vec<Change>,
    /// For the rows topic.
    pub memos: Vec<StateRecord>,
    /// For the checkpoints topic; `None` where nothing needs storing, and no transaction is needed.
    pub checkpoint: Option<Checkpoint>,
    /// For the statistics.
    pub counts: Counts,
}

/// What happened to the rows of a page.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Rows, entries and deletes read.
    pub read: u64,
    /// Known already.
    pub seen: u64,
    /// Our own writes that were left out.
    pub echoes: u64,
    /// Versions that no poll saw.
    pub skipped: u64,
    /// Journal entries given up because their row never became visible.
    pub orphans: u64,
}

/// An answer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// See [`PagingError`].
    #[error(transparent)]
    Paging(#[from] PagingError),
    /// See [`UnusableRow`].
    #[error(transparent)]
    Row(#[from] UnusableRow),
    /// See [`WireError`].
    #[error(transparent)]
    Stored(#[from] WireError),
    /// An answer that nothing asked for.
    #[error("an answer came while nothing was asked")]
    Unasked,
}

/// The feed of one route.
#[derive(Debug)]
pub struct Feed {
    pub(super) settings: Settings,
    pub(super) memory: Memory,
    pub(super) checkpoint: Option<Checkpoint>,
    stored: i64,
    stage: Option<Subject>,
    pub(super) polls: u64,
    pub(super) held: VecDeque<BTreeMap<String, String>>,
    pub(super) owners: Vec<String>,
    pub(super) absent: HashMap<String, Absent>,
    pub(super) findings: BTreeMap<&'static str, String>,
}

/// A row that was looked for and not found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Absent {
    pub(super) tries: u32,
    pub(super) poll: u64,
}

impl Feed {
    /// A feed that goes on from what the topics hold.
    ///
    /// # Errors
    /// Where the checkpoint belongs to another table or instance.
    pub fn new(settings: Settings, memory: Memory, checkpoint: Option<Checkpoint>) -> Result<Self, FeedError> {
        if let Some(c) = &checkpoint
            && (c.table != settings.table || c.instance != settings.instance)
        {
            let (route, table, instance) = (c.route.clone(), c.table.clone(), c.instance.clone());
            return Err(WireError::Foreign { route, table, instance }.into());
        }
        Ok(Self {
            settings,
            memory,
            stored: checkpoint.as_ref().map_or(i64::MIN, |c| c.rows.cursor),
            checkpoint,
            stage: None,
            polls: 0,
            held: VecDeque::new(),
            owners: Vec::new(),
            absent: HashMap::new(),
            findings: BTreeMap::new(),
        })
    }

    /// Begins a poll. A poll under way goes on.
    pub fn begin(&mut self) {
        if self.stage.is_none() {
            self.polls += 1;
            self.stage = Some(if self.checkpoint.is_none() { Subject::Clock } else { Subject::Rows });
        }
    }

    /// The next request; `None` where the poll is over.
    pub fn ask(&self) -> Option<Ask> {
        let settings = &self.settings;
        let subject = self.stage?;
        let (table, query, columns, offset) = match subject {
            Subject::Clock => (settings.table.clone(), String::new(), "sys_id".into(), 0),
            Subject::Rows => {
                let track = &self.checkpoint.as_ref()?.rows;
                let query = track.query(&self.window(), "sys_updated_on", &settings.filter);
                (settings.table.clone(), query, settings.columns(), track.offset())
            }
            Subject::Owners => (settings.table.clone(), self.owners_query(), settings.columns(), 0),
            Subject::Journal => self.journal_ask()?,
            Subject::Deletes => self.deletes_ask()?,
        };
        let limit = if subject == Subject::Clock { 1 } else { settings.page };
        Some(Ask { subject, table, query, columns, limit, offset })
    }

    /// What the answer to the last ask means, as one transaction. See the module for what must follow.
    ///
    /// # Errors
    /// Where the answer contradicts the query or lacks what decisions rest on; the feed is unchanged then.
    pub fn digest(&mut self, page: &PollPage) -> Result<Batch, FeedError> {
        let subject = self.stage.ok_or(FeedError::Unasked)?;
        let mut batch =
            Batch { counts: Counts { read: page.rows.len() as u64, ..Counts::default() }, ..Batch::default() };
        match subject {
            Subject::Clock => self.first_start(page, &mut batch)?,
            Subject::Rows => self.digest_rows(page, &mut batch)?,
            Subject::Owners => self.digest_owners(page, &mut batch)?,
            Subject::Journal => self.digest_journal(page, &mut batch)?,
            Subject::Deletes => self.digest_deletes(page, &mut batch)?,
        }
        self.store(&mut batch);
        Ok(batch)
    }

    /// Leaves out the journal or the deletes for this poll, because the instance refuses them. Their track stays, so
    /// that nothing is lost once it allows them. Returns false where the subject cannot be left out.
    pub fn leave_out(&mut self, why: String) -> bool {
        match self.stage {
            Some(Subject::Journal | Subject::Owners) => {
                self.findings.insert("journal", why);
                self.held.clear();
                self.owners.clear();
                self.after(Subject::Journal);
            }
            Some(Subject::Deletes) => {
                self.findings.insert("deletes", why);
                self.after(Subject::Deletes);
            }
            _ => return false,
        }
        true
    }

    /// What a person should know and that does not stop the route.
    pub fn findings(&self) -> &BTreeMap<&'static str, String> {
        &self.findings
    }

    /// Everything before this instant has been read (Unix seconds), once there is a checkpoint.
    pub fn cursor(&self) -> Option<i64> {
        self.checkpoint.as_ref().map(|c| c.rows.cursor)
    }

    /// Rows remembered.
    pub fn remembered(&self) -> usize {
        self.memory.len()
    }

    pub(super) fn window(&self) -> Window {
        let Settings { overlap, lag, page, .. } = self.settings;
        Window { overlap, lag, page, floor: self.checkpoint.as_ref().map_or(0, |c| c.floor) }
    }

    /// Moves on after a subject is done.
    pub(super) fn after(&mut self, done: Subject) {
        self.stage = match done {
            Subject::Clock => Some(Subject::Rows),
            Subject::Rows if self.settings.journal => Some(Subject::Journal),
            Subject::Rows | Subject::Journal | Subject::Owners if self.settings.deletes => Some(Subject::Deletes),
            _ => None,
        };
    }

    pub(super) fn stage(&mut self, subject: Subject) {
        self.stage = Some(subject);
    }

    fn first_start(&mut self, page: &PollPage, batch: &mut Batch) -> Result<(), FeedError> {
        let now = page.now.ok_or(PagingError::NoDate)?;
        let floor = match self.settings.start {
            Start::All => 0,
            Start::Since(at) => at.max(0),
            Start::None => now,
        };
        self.checkpoint = Some(Checkpoint {
            v: FORM,
            route: self.settings.route.clone(),
            instance: self.settings.instance.clone(),
            table: self.settings.table.clone(),
            seq: 0,
            born: now,
            floor,
            rows: Track::at(floor),
            journal: Track::at(floor),
            deletes: Track::at(floor.max(now.saturating_sub(self.settings.lag))),
        });
        // Stored before anything else, so that a crash now does not move the start.
        batch.counts = Counts::default();
        self.after(Subject::Clock);
        Ok(())
    }

    fn digest_rows(&mut self, page: &PollPage, batch: &mut Batch) -> Result<(), FeedError> {
        let versions = self.versions(page)?;
        let keys: Vec<RowKey> =
            versions.iter().map(|v| RowKey { at: v.updated_on, sys_id: v.sys_id.clone() }).collect();
        let window = self.window();
        let checkpoint = self.checkpoint.as_mut().ok_or(FeedError::Unasked)?;
        checkpoint.rows = checkpoint.rows.advance(&window, "sys_updated_on", &keys, page.total, page.now)?;
        let (done, from) = (checkpoint.rows.sweep.is_none(), checkpoint.rows.from(&window));
        for version in &versions {
            self.observe(version, batch);
        }
        if done {
            let expired = self.memory.expired_rows(from);
            self.remember(expired, batch);
            self.after(Subject::Rows);
        }
        Ok(())
    }

    pub(super) fn versions(&self, page: &PollPage) -> Result<Vec<Version>, FeedError> {
        page.rows.iter().map(|row| Ok(Version::read(row, &self.settings)?)).collect()
    }

    /// Takes in a version: publishes it if it is news, and not an echo.
    pub(super) fn observe(&mut self, version: &Version, batch: &mut Batch) {
        let known = self.memory.row(&version.sys_id);
        let verdict = judge(version, known);
        if verdict == Verdict::Stale {
            batch.counts.seen += 1;
            return;
        }
        let born = self.checkpoint.as_ref().map_or(i64::MAX, |c| c.born);
        let change = change::of_version(&self.settings, version, verdict, known, born);
        let state = change::state_after(&self.settings, version, verdict, known);
        batch.counts.skipped += change.versions_skipped;
        self.publish(change, batch);
        self.remember(vec![StateRecord::Row(version.sys_id.clone(), Some(Box::new(state)))], batch);
    }

    pub(super) fn publish(&self, change: Change, batch: &mut Batch) {
        if change.origin == ChangeOrigin::Bridge && !self.settings.publish_echoes {
            batch.counts.echoes += 1;
        } else {
            batch.changes.push(change);
        }
    }

    pub(super) fn remember(&mut self, memos: Vec<StateRecord>, batch: &mut Batch) {
        for memo in memos {
            self.memory.apply(memo.clone());
            batch.memos.push(memo);
        }
    }

    /// Puts a checkpoint into a batch that needs one.
    fn store(&mut self, batch: &mut Batch) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        let behind = checkpoint.rows.cursor.saturating_sub(self.stored);
        if checkpoint.seq == 0 || !batch.changes.is_empty() || !batch.memos.is_empty() || behind >= STORE_EVERY {
            checkpoint.seq += 1;
            self.stored = checkpoint.rows.cursor;
            batch.checkpoint = Some(checkpoint.clone());
        }
    }

    pub(super) fn known(&self, sys_id: &str) -> Option<&RowState> {
        self.memory.row(sys_id)
    }
}
