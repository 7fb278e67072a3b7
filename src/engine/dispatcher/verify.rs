//! Verification of ambiguous writes, and the other requests that change nothing: reads before a write, and look-ups of
//! keys that the ledger may not know (protocol rules 7, 12 to 15).

use super::entry::last_seen;
use super::{Dispatcher, PendingProduce};
use crate::engine::event::{Effect, LedgerKey, LedgerWrite, Observation};
use crate::engine::field_hash::field_hash;
use crate::engine::lane::{AmbiguousWrite, ReadPurpose, Stage};
use crate::engine::mutation::Mutation;
use crate::model::answer::Journal;
use crate::model::entry::ClaimKind;
use crate::model::{
    Answer, Claim, Column, Entry, EventOrder, Failure, FailureClass, FieldHash, Key, LastSeen, Now, Position, Row,
};

/// Seconds. A ticket that was created earlier than this before the claim, by the instance's clock, is an older one. The
/// value is generous: entries outlive the reopen window of their tickets by minutes.
const OLDER_TICKET_MARGIN: i64 = 10;

/// Result of a verification.
enum Verification {
    /// The write was applied; the row after it.
    Applied(Box<Row>),
    NotFound,
    Inconclusive,
}

impl Dispatcher {
    pub(super) fn start_verification(
        &mut self,
        partition: i32,
        key: &Key,
        write: AmbiguousWrite,
        reason: &str,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        Self::observe(out, Observation::WriteAmbiguous(key.clone(), reason.to_owned()));
        let purpose = ReadPurpose::Verify { write, conclusive: false };
        self.wait_for_permit(partition, key, Stage::WaitingToRead(purpose), now);
    }

    /// Handles the answer to a read.
    pub(super) fn read_completed(
        &mut self,
        partition: i32,
        key: &Key,
        purpose: ReadPurpose,
        answer: Answer,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        match (purpose, answer) {
            (ReadPurpose::Verify { write, conclusive }, Answer::Rows { rows, journal }) => {
                self.verification_completed(partition, key, (write, conclusive), (rows, journal), now, out);
            }
            (ReadPurpose::Verify { write, conclusive }, Answer::Failed(Failure { class: FailureClass::Gone, .. })) => {
                let nothing = (Vec::new(), Some(Journal::Read(Vec::new())));
                self.verification_completed(partition, key, (write, conclusive), nothing, now, out);
            }
            (purpose, answer) if answer.is_held_back() => {
                self.wait_for_permit(partition, key, Stage::WaitingToRead(purpose), now);
            }
            (ReadPurpose::Verify { write, .. }, _) => {
                let due = now.mono + self.next_delay(partition, key);
                self.wait_until(partition, key, due, Stage::Ambiguous(write, due));
            }
            (ReadPurpose::ConfirmMissing { by_write }, Answer::Rows { rows, .. }) => {
                self.missing_ticket_searched(partition, key, rows, by_write, now, out);
            }
            (ReadPurpose::DiscoverTicket, Answer::Rows { rows, .. }) => {
                self.adopt_discovered_ticket(partition, key, rows, now);
                self.run_lane(partition, key, now, out);
            }
            (ReadPurpose::RefreshRow | ReadPurpose::ConfirmMissing { .. } | ReadPurpose::DiscoverTicket, _) => {
                self.wait_for_retry(partition, key, now);
            }
        }
    }

    /// A row that answered 404 was searched for by its correlation: lost read access looks the same as a deletion.
    fn missing_ticket_searched(
        &mut self,
        partition: i32,
        key: &Key,
        rows: Vec<Row>,
        by_write: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(sys_id) = self.entry(partition, key).map(|e| e.sys_id.clone()) else {
            return self.enqueue_for_turn(partition, key, now, out);
        };
        if let Some(row) = rows.into_iter().find(|row| row.sys_id == sys_id) {
            let sent_at = self.lane(partition, key).map_or(0, |lane| lane.sent_at);
            self.row_seen(partition, key, row, sent_at, now);
            return if by_write {
                self.wait_for_retry(partition, key, now);
            } else {
                self.enqueue_for_turn(partition, key, now, out);
            };
        }
        self.breaker.rejected(&format!("ticket {sys_id} of {key} is missing"), &self.settings);
        Self::observe(out, Observation::TicketMissing(key.clone(), sys_id.clone()));
        // A missing ticket is treated as closed: it is never written again, and an opening event creates a new one.
        let state = self.settings.states.closed.first().cloned().unwrap_or_default();
        if let Some(p) = self.partitions.get_mut(&partition) {
            if let Some(entry) = p.entries.get_mut(key) {
                entry.ended_by_user |= entry.phase(&self.settings.states).is_open();
                entry.last_seen =
                    LastSeen { state: state.clone(), inactive: true, at: now.unix, ..LastSeen::default() };
            }
            let sent_at = p.lanes.get(key).map_or(0, |lane| lane.sent_at);
            p.rows.put(key.clone(), Row { sys_id, state, inactive: true, ..Row::default() }, sent_at, now.mono);
        }
        self.enqueue_for_turn(partition, key, now, out);
    }

    /// Adopts the ticket that the instance has for a key without an entry.
    fn adopt_discovered_ticket(&mut self, partition: i32, key: &Key, rows: Vec<Row>, now: Now) {
        let generation = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        if let Some(lane) = p.lanes.get_mut(key) {
            lane.lookup_done = true;
        }
        let open = rows.iter().rposition(|row| row.phase(&self.settings.states).is_open());
        let Some(row) = rows.get(open.unwrap_or(rows.len().wrapping_sub(1))) else { return };
        let earlier_tickets = rows.iter().filter(|r| r.sys_id != row.sys_id).map(|r| r.sys_id.clone()).collect();
        let row = row.clone();
        let clock_skew = self.clock_skew;
        let ended = !row.phase(&self.settings.states).is_open();
        let ended_at = row.ended_at(&self.settings.states).or(ended.then_some(row.updated_on));
        let entry = Entry {
            token: p.token,
            attempt: crate::model::AttemptId { token: p.token, number: 0 },
            sys_id: row.sys_id.clone(),
            number: row.number.clone(),
            generation,
            position: Position::new(partition, -1, 0),
            partial_note: None,
            fields: Vec::new(),
            earlier_tickets,
            order: EventOrder::UNKNOWN,
            resolved_at: ended_at.map(|at| at.saturating_mul(1000).saturating_sub(clock_skew)),
            event_ids: Vec::new(),
            episode: None,
            ended_by_user: false,
            last_seen: last_seen(&row, now),
            written_at: now.unix,
        };
        p.put_entry(key, entry);
        let sent_at = p.lanes.get(key).map_or(0, |lane| lane.sent_at);
        p.rows.put(key.clone(), row, sent_at, now.mono);
    }

    /// Handles the rows and the journal that a verification found.
    fn verification_completed(
        &mut self,
        partition: i32,
        key: &Key,
        (write, conclusive): (AmbiguousWrite, bool),
        (rows, journal): (Vec<Row>, Option<Journal>),
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(claim) = self.lane(partition, key).and_then(|l| l.claim.as_ref()).map(|(_, c)| c.clone()) else {
            return self.enqueue_for_turn(partition, key, now, out);
        };
        let updated_row = rows.first().filter(|_| matches!(claim.kind, ClaimKind::Update { .. })).cloned();
        match self.verify_write(partition, key, &claim, rows, journal, out) {
            Verification::Applied(row) => {
                Self::observe(out, Observation::AmbiguitySettled { key: key.clone(), applied: true });
                let ours = row.updated_by == self.settings.bridge_user;
                if let Some(reason) = self.state_difference(claim.state.as_ref().filter(|_| ours), &row) {
                    Self::observe(out, Observation::WriteIneffective(key.clone(), reason));
                }
                self.settle_applied(partition, key, *row, None, Vec::new(), now, out);
            }
            Verification::NotFound if conclusive => {
                Self::observe(out, Observation::AmbiguitySettled { key: key.clone(), applied: false });
                if let Some(row) = updated_row {
                    self.adopt_matching_values(partition, key, &claim, &row, now, out);
                }
                if let Some(lane) = self.lane(partition, key) {
                    lane.backoff = None;
                }
                self.requeue(partition, key);
                self.enqueue_for_turn(partition, key, now, out);
            }
            Verification::Inconclusive if conclusive => {
                let reason = "the response was lost, and the journal is not readable, so it is unknown whether \
                              the note was written; give the bridge's user read access to sys_journal_field";
                self.reject(partition, key, "ambiguous_note", reason, false, now, out);
            }
            Verification::NotFound | Verification::Inconclusive => {
                let after = u64::from(!self.rules.is_disabled(Mutation::VerifyAtSpanEnd));
                let due = (write.may_commit_until + after).max(now.mono + 1);
                let write = AmbiguousWrite { verified_once: true, ..write };
                self.wait_until(partition, key, due, Stage::Ambiguous(write, due));
            }
        }
    }

    /// A user wrote the row last, so it is unknown whether our write was applied before that. Values that equal those
    /// of the claim are not a user's decision against ours, and count as written by us.
    fn adopt_matching_values(
        &mut self,
        partition: i32,
        key: &Key,
        claim: &Claim,
        row: &Row,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let leased = self.holds_lease(partition, now);
        let column = &self.settings.states.column;
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(entry) = p.entries.get_mut(key) else { return };
        let mut changed = false;
        for (name, sent) in &claim.fields {
            let value = if **name == **column { Some(&row.state) } else { row.values.get(&**name) };
            if value.is_none_or(|v| field_hash(v) != *sent) {
                continue;
            }
            let adopted = FieldHash { sent: *sent, stored: None, kept: None };
            changed = true;
            match entry.fields.binary_search_by(|(c, _)| c.cmp(name)) {
                Ok(at) => entry.fields[at].1 = adopted,
                Err(at) => entry.fields.insert(at, (name.clone(), adopted)),
            }
        }
        if changed && leased {
            let previous_token = std::mem::replace(&mut entry.token, p.token);
            let (entry, load_generation) = (Box::new(entry.clone()), p.load_generation);
            if previous_token != p.token {
                p.stale.entry(LedgerKey::Entry(key.clone())).or_default().push(previous_token);
            }
            let pending = PendingProduce::Unawaited(partition, load_generation);
            self.produce(partition, LedgerWrite::Entry(key.clone(), entry), pending, out);
        }
    }

    /// Decides whether the claim's write was applied (protocol rule 14).
    fn verify_write(
        &self,
        partition: i32,
        key: &Key,
        claim: &Claim,
        rows: Vec<Row>,
        journal: Option<Journal>,
        out: &mut Vec<Effect>,
    ) -> Verification {
        match &claim.kind {
            ClaimKind::Create { .. } => self.verify_create(key, claim, rows, out),
            ClaimKind::Update { .. } => {
                let Some(row) = rows.into_iter().next() else { return Verification::NotFound };
                self.verify_update(self.entry(partition, key).as_deref(), claim, row, journal)
            }
        }
    }

    fn verify_create(&self, key: &Key, claim: &Claim, rows: Vec<Row>, out: &mut Vec<Effect>) -> Verification {
        let known = Self::known_sys_ids(claim);
        let adopt_any = self.rules.is_disabled(Mutation::NoKnownSysIds);
        let since = claim.instance_time.div_euclid(1000) - OLDER_TICKET_MARGIN;
        let mut rows: Vec<Row> =
            rows.into_iter().filter(|r| adopt_any || (!known.contains(&r.sys_id) && r.created_on >= since)).collect();
        if rows.len() > 1 {
            Self::observe(out, Observation::DuplicateTickets(key.clone(), rows.len()));
        }
        if rows.is_empty() { Verification::NotFound } else { Verification::Applied(Box::new(rows.swap_remove(0))) }
    }

    fn verify_update(&self, entry: Option<&Entry>, claim: &Claim, row: Row, journal: Option<Journal>) -> Verification {
        let is_in_row = |(c, d): &(Column, u64)| {
            let value = if **c == *self.settings.states.column { Some(&row.state) } else { row.values.get(&**c) };
            value.is_some_and(|v| field_hash(v) == *d)
        };
        // One request contains all values, so one value that was not in the row before proves the write, although a
        // business rule may have changed others. A value that was there before proves nothing.
        let is_new = |(c, d): &(Column, u64)| {
            entry.is_some_and(|e| match e.fields.binary_search_by(|(known, _)| known.cmp(c)) {
                Ok(at) => {
                    let known = e.fields[at].1;
                    known.sent != *d && known.stored != Some(*d) && known.kept != Some(*d)
                }
                Err(_) => false,
            })
        };
        let found = claim.fields.iter().any(|field| is_new(field) && is_in_row(field));
        let since_claim = row.updated_on >= claim.instance_time.div_euclid(1000);
        let ours = row.updated_by == self.settings.bridge_user && since_claim;
        let by_values = found && ours;
        if claim.markers.is_empty() || self.rules.is_disabled(Mutation::NoNoteMarkers) {
            return if by_values { Verification::Applied(Box::new(row)) } else { Verification::NotFound };
        }
        match journal {
            Some(Journal::Read(markers)) if claim.markers.iter().any(|m| markers.contains(m)) => {
                Verification::Applied(Box::new(row))
            }
            Some(Journal::Read(_)) => Verification::NotFound,
            // One request contains values and notes together, so the values prove the notes.
            Some(Journal::Inconclusive) | None if by_values => Verification::Applied(Box::new(row)),
            Some(Journal::Inconclusive) | None => Verification::Inconclusive,
        }
    }
}
