//! The decisions of a source route, without I/O and without a clock: which request to send next, and which changes a
//! response contains.
//!
//! A *poll* is a sequence of requests: the polled table page by page, then the journal, then the deletes. Each
//! response becomes a [`Batch`], which is one Kafka transaction. [`ChangeDetector::process_page`] updates the
//! detector at once. If it is not certain that the transaction was committed, the detector must be dropped and loaded
//! from the topics again. So nothing has to be undone: a commit whose response was lost is either in the topics or
//! not.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::change;
use super::checkpoint::{Checkpoint, FORMAT_VERSION, StoredStateError};
use super::rows::{PublishedState, RowState, StateRecord, UnusableRow, Version, VersionStatus, compare_version};
use super::settings::{Settings, Start};
use super::window::{PagingError, RowKey, TableProgress, Window};
use crate::model::Change;
use crate::model::change::ChangeOrigin;

/// How many seconds the stored cursor may be older than the current one while nothing is published.
const MAX_CURSOR_AGE: i64 = 30;

/// The stage of a poll: what a request reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollStage {
    /// One row, to learn the instance's clock before the first poll.
    Clock,
    /// The polled table.
    Rows,
    /// `sys_journal_field`.
    Journal,
    /// Rows of journal entries that are not known yet.
    MissingRows,
    /// `sys_audit_delete`.
    Deletes,
}

/// A request for a list of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    pub stage: PollStage,
    pub table: String,
    /// Encoded query; its values need no escaping.
    pub query: String,
    pub columns: String,
    /// Maximum number of rows.
    pub limit: u32,
    /// Number of rows to skip.
    pub offset: u64,
}

/// The response to a [`ListRequest`].
#[derive(Debug, Clone, Default)]
pub struct PollPage {
    /// Raw values by column. Columns that the account may not read are missing.
    pub rows: Vec<BTreeMap<String, String>>,
    /// `X-Total-Count`, if the response has it.
    pub total: Option<u64>,
    /// The instance's clock (`Date` header) minus the duration of the request: not later than the time of the query.
    pub now: Option<i64>,
}

/// The content of one Kafka transaction.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order of publishing.
    pub changes: Vec<Change>,
    /// For the rows topic.
    pub state_records: Vec<StateRecord>,
    /// For the checkpoints topic. `None` if nothing has to be stored; then no transaction is needed.
    pub checkpoint: Option<Checkpoint>,
    pub counts: Counts,
}

/// What happened to the rows of a page.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Rows, journal entries and deletes.
    pub read: u64,
    /// Versions, journal entries and deletes that had been published before.
    pub already_seen: u64,
    /// The bridge's own writes, which are not published.
    pub own_changes_skipped: u64,
    /// Versions that no poll saw.
    pub versions_skipped: u64,
    /// Journal entries that were dropped because their row never became visible.
    pub orphaned_entries: u64,
}

/// A response that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DetectionError {
    #[error(transparent)]
    Paging(#[from] PagingError),
    #[error(transparent)]
    Row(#[from] UnusableRow),
    #[error(transparent)]
    StoredState(#[from] StoredStateError),
    /// A page was processed while no poll was running.
    #[error("received a page while no poll was running")]
    UnexpectedPage,
}

/// Detects the changes of one route.
#[derive(Debug)]
pub struct ChangeDetector {
    pub(super) settings: Settings,
    pub(super) published_state: PublishedState,
    pub(super) checkpoint: Option<Checkpoint>,
    stored_cursor: i64,
    stage: Option<PollStage>,
    pub(super) polls: u64,
    pub(super) pending_entries: VecDeque<BTreeMap<String, String>>,
    pub(super) missing_rows: Vec<String>,
    pub(super) failed_lookups: HashMap<String, FailedLookup>,
    pub(super) findings: BTreeMap<&'static str, String>,
}

/// A row that was looked up and not found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FailedLookup {
    pub(super) lookups: u32,
    pub(super) poll: u64,
}

impl ChangeDetector {
    /// Creates a detector that continues from the content of the topics.
    ///
    /// # Errors
    /// If the checkpoint belongs to another table or instance.
    pub fn new(
        settings: Settings,
        published_state: PublishedState,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Self, DetectionError> {
        if let Some(c) = &checkpoint
            && (c.table != settings.table || c.instance != settings.instance)
        {
            let (route, table, instance) = (c.route.clone(), c.table.clone(), c.instance.clone());
            return Err(StoredStateError::WrongTable { route, table, instance }.into());
        }
        Ok(Self {
            settings,
            published_state,
            stored_cursor: checkpoint.as_ref().map_or(i64::MIN, |c| c.rows.cursor),
            checkpoint,
            stage: None,
            polls: 0,
            pending_entries: VecDeque::new(),
            missing_rows: Vec::new(),
            failed_lookups: HashMap::new(),
            findings: BTreeMap::new(),
        })
    }

    /// Starts a poll, unless one is already running.
    pub fn start_poll(&mut self) {
        if self.stage.is_none() {
            self.polls += 1;
            self.stage = Some(if self.checkpoint.is_none() { PollStage::Clock } else { PollStage::Rows });
        }
    }

    /// The next request. `None` if the poll is complete.
    pub fn next_request(&self) -> Option<ListRequest> {
        let settings = &self.settings;
        let stage = self.stage?;
        let (table, query, columns, offset) = match stage {
            PollStage::Clock => (settings.table.clone(), String::new(), "sys_id".into(), 0),
            PollStage::Rows => {
                let progress = &self.checkpoint.as_ref()?.rows;
                let query = progress.query(&self.window(), "sys_updated_on", &settings.filter);
                (settings.table.clone(), query, settings.columns(), progress.offset())
            }
            PollStage::MissingRows => (settings.table.clone(), self.missing_rows_query(), settings.columns(), 0),
            PollStage::Journal => self.journal_request()?,
            PollStage::Deletes => self.deletes_request()?,
        };
        let limit = if stage == PollStage::Clock { 1 } else { settings.page_size };
        Some(ListRequest { stage, table, query, columns, limit, offset })
    }

    /// Processes the response to the last request; returns the content of the transaction. See the module for what
    /// must follow.
    ///
    /// # Errors
    /// If the response contradicts the query or lacks data that decisions depend on. The detector is unchanged then.
    pub fn process_page(&mut self, page: &PollPage) -> Result<Batch, DetectionError> {
        let stage = self.stage.ok_or(DetectionError::UnexpectedPage)?;
        let mut batch =
            Batch { counts: Counts { read: page.rows.len() as u64, ..Counts::default() }, ..Batch::default() };
        match stage {
            PollStage::Clock => self.start_first_time(page, &mut batch)?,
            PollStage::Rows => self.process_rows(page, &mut batch)?,
            PollStage::MissingRows => self.process_missing_rows(page, &mut batch)?,
            PollStage::Journal => self.process_journal(page, &mut batch)?,
            PollStage::Deletes => self.process_deletes(page, &mut batch)?,
        }
        self.add_checkpoint(&mut batch);
        Ok(batch)
    }

    /// Skips the journal or the deletes in this poll because the instance rejected the request. Their progress is
    /// kept, so nothing is lost once the account is allowed to read them. Returns false if the stage cannot be
    /// skipped.
    pub fn skip_stage(&mut self, reason: String) -> bool {
        match self.stage {
            Some(PollStage::Journal | PollStage::MissingRows) => {
                self.findings.insert("journal", reason);
                self.pending_entries.clear();
                self.missing_rows.clear();
                self.finish_stage(PollStage::Journal);
            }
            Some(PollStage::Deletes) => {
                self.findings.insert("deletes", reason);
                self.finish_stage(PollStage::Deletes);
            }
            _ => return false,
        }
        true
    }

    /// Problems that do not stop the route and that a user should know.
    pub fn findings(&self) -> &BTreeMap<&'static str, String> {
        &self.findings
    }

    /// The instant up to which everything was read, in Unix seconds. `None` before the first checkpoint.
    pub fn cursor(&self) -> Option<i64> {
        self.checkpoint.as_ref().map(|c| c.rows.cursor)
    }

    /// Number of rows whose last published state is known.
    pub fn known_rows(&self) -> usize {
        self.published_state.len()
    }

    pub(super) fn window(&self) -> Window {
        let Settings { lookback, safety_lag, page_size, .. } = self.settings;
        Window { lookback, safety_lag, page_size, start_from: self.checkpoint.as_ref().map_or(0, |c| c.start_from) }
    }

    /// Enters the stage after `done`.
    pub(super) fn finish_stage(&mut self, done: PollStage) {
        self.stage = match done {
            PollStage::Clock => Some(PollStage::Rows),
            PollStage::Rows if self.settings.journal => Some(PollStage::Journal),
            PollStage::Rows | PollStage::Journal | PollStage::MissingRows if self.settings.deletes => {
                Some(PollStage::Deletes)
            }
            _ => None,
        };
    }

    pub(super) fn enter_stage(&mut self, stage: PollStage) {
        self.stage = Some(stage);
    }

    fn start_first_time(&mut self, page: &PollPage, batch: &mut Batch) -> Result<(), DetectionError> {
        let now = page.now.ok_or(PagingError::NoDate)?;
        let start_from = match self.settings.start {
            Start::All => 0,
            Start::Since(at) => at.max(0),
            Start::None => now,
        };
        self.checkpoint = Some(Checkpoint {
            v: FORMAT_VERSION,
            route: self.settings.route.clone(),
            instance: self.settings.instance.clone(),
            table: self.settings.table.clone(),
            seq: 0,
            first_started: now,
            start_from,
            rows: TableProgress::at(start_from),
            journal: TableProgress::at(start_from),
            deletes: TableProgress::at(start_from.max(now.saturating_sub(self.settings.safety_lag))),
        });
        // Stored first, so that a crash from here on does not change the start.
        batch.counts = Counts::default();
        self.finish_stage(PollStage::Clock);
        Ok(())
    }

    fn process_rows(&mut self, page: &PollPage, batch: &mut Batch) -> Result<(), DetectionError> {
        let versions = self.versions(page)?;
        let keys: Vec<RowKey> =
            versions.iter().map(|v| RowKey { at: v.updated_on, sys_id: v.sys_id.clone() }).collect();
        let window = self.window();
        let checkpoint = self.checkpoint.as_mut().ok_or(DetectionError::UnexpectedPage)?;
        checkpoint.rows = checkpoint.rows.advance(&window, "sys_updated_on", &keys, page.total, page.now)?;
        let (done, from) = (checkpoint.rows.sweep.is_none(), checkpoint.rows.lower_bound(&window));
        for version in &versions {
            self.process_version(version, batch);
        }
        if done {
            let expired = self.published_state.expired_rows(from);
            self.apply_records(expired, batch);
            self.finish_stage(PollStage::Rows);
        }
        Ok(())
    }

    pub(super) fn versions(&self, page: &PollPage) -> Result<Vec<Version>, DetectionError> {
        page.rows.iter().map(|row| Ok(Version::read(row, &self.settings)?)).collect()
    }

    /// Processes a version of a row: publishes it if it is new and not an echo.
    pub(super) fn process_version(&mut self, version: &Version, batch: &mut Batch) {
        let known = self.published_state.row(&version.sys_id);
        let status = compare_version(version, known);
        if status == VersionStatus::Stale {
            batch.counts.already_seen += 1;
            return;
        }
        let first_started = self.checkpoint.as_ref().map_or(i64::MAX, |c| c.first_started);
        let change = change::version_change(&self.settings, version, status, known, first_started);
        let state = change::state_after(&self.settings, version, status, known);
        batch.counts.versions_skipped += change.versions_skipped;
        self.publish(change, batch);
        self.apply_records(vec![StateRecord::Row(version.sys_id.clone(), Some(Box::new(state)))], batch);
    }

    pub(super) fn publish(&self, change: Change, batch: &mut Batch) {
        if change.origin == ChangeOrigin::Bridge && !self.settings.publish_echoes {
            batch.counts.own_changes_skipped += 1;
        } else {
            batch.changes.push(change);
        }
    }

    pub(super) fn apply_records(&mut self, state_records: Vec<StateRecord>, batch: &mut Batch) {
        for record in state_records {
            self.published_state.apply(record.clone());
            batch.state_records.push(record);
        }
    }

    /// Adds a checkpoint to a batch that needs one.
    fn add_checkpoint(&mut self, batch: &mut Batch) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        let behind = checkpoint.rows.cursor.saturating_sub(self.stored_cursor);
        if checkpoint.seq == 0
            || !batch.changes.is_empty()
            || !batch.state_records.is_empty()
            || behind >= MAX_CURSOR_AGE
        {
            checkpoint.seq += 1;
            self.stored_cursor = checkpoint.rows.cursor;
            batch.checkpoint = Some(checkpoint.clone());
        }
    }

    pub(super) fn known_row(&self, sys_id: &str) -> Option<&RowState> {
        self.published_state.row(sys_id)
    }
}
