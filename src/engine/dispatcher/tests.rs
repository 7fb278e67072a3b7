//! The protocol's steps for one key, checked one by one. Random histories are in `engine/simulation`.

mod different;
mod looks;
mod order;
mod throughput;

use std::sync::Arc;

use super::*;
use crate::engine::event::{
    InstanceRequest, LedgerKey, LedgerState, LoadedClaim, MappedRecord, MarkedNote, ProduceOutcome, RecordContent,
};
use crate::model::{
    Action, Answer, AttemptId, Entry, EventOrder, Failure, FailureClass, Intent, LastSeen, Park, Position,
    PreviousOwner, Record, RecordOrigin, RedriveId, Row, StateModel, Token,
};

const EPOCH: Epoch = Epoch(1);

struct Harness {
    dispatcher: Dispatcher,
    /// Number of writes applied by [`Harness::apply_next_write`].
    writes: u64,
    now: Now,
}

impl Harness {
    /// A loaded partition with an empty ledger.
    fn new() -> Self {
        let (harness, effects) = Self::loaded(LedgerState::default());
        let fetches = |e: &Effect| matches!(e, Effect::StartFetching { start_offset: 0, .. });
        assert!(effects.iter().any(fetches), "fetching begins at offset 0");
        harness
    }

    /// A loaded partition with this ledger.
    fn loaded(ledger: LedgerState) -> (Self, Vec<Effect>) {
        Self::loaded_with(Settings::default(), ledger)
    }

    fn loaded_with(settings: Settings, ledger: LedgerState) -> (Self, Vec<Effect>) {
        let mut harness = Self {
            dispatcher: Dispatcher::new(settings),
            writes: 0,
            now: Now { mono: 1_000, unix: 1_800_000_000_000 },
        };
        harness.apply(Event::Polled { at: 1_000 });
        harness.apply(Event::Assigned { partition: 0, epoch: EPOCH });
        let ledger = Box::new(LedgerState { token: Token(7), ..ledger });
        let effects = harness.apply(Event::LedgerLoaded { partition: 0, epoch: EPOCH, ledger });
        (harness, effects)
    }

    fn grant_lease(&mut self) -> Vec<Effect> {
        self.apply(Event::Committed { partition: 0, epoch: EPOCH, sent_at: self.now.mono, offset: 0 })
    }

    fn apply(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.dispatcher.apply(event, self.now, &mut out);
        out
    }

    fn receive(&mut self, offset: i64, action: Action, title: &str) -> Vec<Effect> {
        self.receive_from(RecordOrigin::Source, offset, action, title)
    }

    /// Receives an event of another key and priority.
    fn receive_for_key(&mut self, key: &str, priority: u8, offset: i64, action: Action) -> Vec<Effect> {
        let intent = Intent { key: key.into(), priority, ..self.intent(offset, action, &offset.to_string()) };
        self.receive_content(RecordOrigin::Source, offset, RecordContent::Intents(vec![intent]))
    }

    fn receive_from(&mut self, origin: RecordOrigin, offset: i64, action: Action, title: &str) -> Vec<Effect> {
        let intent = self.intent(offset, action, title);
        self.receive_content(origin, offset, RecordContent::Intents(vec![intent]))
    }

    fn intent(&self, offset: i64, action: Action, title: &str) -> Intent {
        Intent {
            position: Position::new(0, offset, 0),
            key: "k".into(),
            action,
            fields: vec![("short_description".into(), title.into())],
            closing: Vec::new(),
            note: None,
            event_id: None,
            episode: None,
            occurred_at: self.now.unix + offset,
            order: EventOrder::of_time(self.now.unix + offset),
            priority: 3,
            hold_down: 0,
        }
    }

    fn receive_content(&mut self, origin: RecordOrigin, offset: i64, content: RecordContent) -> Vec<Effect> {
        let raw = Arc::new(Record {
            topic: "alerts".into(),
            partition: 0,
            offset,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        });
        let record = MappedRecord { offset, raw, origin, content };
        self.apply(Event::Received { partition: 0, epoch: EPOCH, record })
    }

    /// Acks all produces, and those that follow from the acks, until there are no more.
    fn ack_all(&mut self, effects: &[Effect]) -> Vec<Effect> {
        let mut all = Vec::new();
        let mut next = self.ack(effects);
        while !next.is_empty() {
            let more = self.ack(&next);
            all.append(&mut next);
            next = more;
        }
        all
    }

    /// Sends the next write, answers it as applied, and acks all that follows.
    fn apply_next_write(&mut self) -> (InstanceRequest, Vec<Effect>) {
        let (id, body) = self.use_permit();
        let mut answer = applied();
        if let Answer::Applied { row, .. } = &mut answer {
            row.mod_count = self.writes;
        }
        self.writes += 1;
        let mut effects = self.complete(id, answer);
        let more = self.ack_all(&effects);
        effects.extend(more);
        (body, effects)
    }

    /// Acks every produce among the effects, and returns the effects of the acks.
    fn ack(&mut self, effects: &[Effect]) -> Vec<Effect> {
        let mut out = Vec::new();
        for effect in effects {
            if let Effect::ProduceLedgerRecord { produce_id, .. } | Effect::ProduceDeadLetter { produce_id, .. } =
                effect
            {
                out.extend(
                    self.apply(Event::ProduceCompleted { produce_id: *produce_id, outcome: ProduceOutcome::Acked }),
                );
            }
        }
        out
    }

    fn use_permit(&mut self) -> (RequestId, InstanceRequest) {
        assert!(self.dispatcher.wants_permit(self.now), "a permit is wanted");
        let effects = self.apply(Event::PermitGranted { without: HttpMethodSet::NONE });
        let request = effects.into_iter().find_map(|e| match e {
            Effect::SendRequest { id, body, .. } => Some((id, body)),
            _ => None,
        });
        request.expect("a permit is used")
    }

    fn complete(&mut self, request: RequestId, answer: Answer) -> Vec<Effect> {
        let issued_at = self.now.mono;
        self.apply(Event::RequestCompleted { request, issued_at, instance_date: None, answer, already_counted: false })
    }

    fn watermark(&self) -> i64 {
        self.dispatcher.snapshot(self.now).watermarks[&0]
    }
}

fn applied() -> Answer {
    Answer::Applied { row: Box::new(row()), warnings: Vec::new() }
}

fn row() -> Row {
    Row {
        sys_id: "a".repeat(32),
        number: "INC1".into(),
        state: "1".into(),
        updated_by: "nowbridge".into(),
        ..Row::default()
    }
}

fn failed(class: FailureClass) -> Answer {
    Answer::Failed(Failure { class, code: "test".into(), message: "the instance's message".into() })
}

fn claims(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::ProduceLedgerRecord { write: LedgerWrite::Claim(..), .. })).count()
}

fn entries(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::ProduceLedgerRecord { write: LedgerWrite::Entry(..), .. })).count()
}

#[test]
fn a_write_is_claimed_before_it_is_sent_and_its_entry_is_acked_before_it_is_resolved() {
    let mut h = Harness::new();
    assert_eq!(claims(&h.receive(0, Action::Open, "one")), 0, "nothing is claimed without a lease");
    let claimed = h.grant_lease();
    assert_eq!(claims(&claimed), 1);
    assert!(!h.dispatcher.wants_permit(h.now), "nothing is sent before the claim is acked");
    h.ack(&claimed);
    let (id, body) = h.use_permit();
    assert!(matches!(body, InstanceRequest::Create { .. }));
    let settled = h.complete(id, applied());
    assert_eq!(entries(&settled), 1);
    assert_eq!(h.watermark(), 0, "nothing is resolved before the entry is acked");
    h.ack(&settled);
    assert_eq!(h.watermark(), 1);
}

#[test]
fn events_that_arrive_during_a_write_are_folded_into_one() {
    let mut h = Harness::new();
    h.receive(0, Action::Open, "one");
    let claimed = h.grant_lease();
    for offset in 1..100 {
        assert_eq!(claims(&h.receive(offset, Action::Update, &format!("title {offset}"))), 0);
    }
    h.ack(&claimed);
    let (id, _) = h.use_permit();
    let settled = h.complete(id, applied());
    let removed = h.ack(&settled);
    assert_eq!(claims(&removed), 0, "the tombstone of the last claim could land over the next one");
    let next = h.ack(&removed);
    assert_eq!(claims(&next), 1);
    h.ack(&next);
    let (id, body) = h.use_permit();
    let InstanceRequest::Update { fields, .. } = body else { panic!("an update") };
    assert_eq!(fields, [("short_description".into(), "title 99".to_owned())]);
    let settled = h.complete(id, applied());
    h.ack(&settled);
    assert_eq!(h.watermark(), 100, "a hundred events, two requests");
}

#[test]
fn a_lost_answer_is_verified_until_the_instance_can_no_longer_commit() {
    let mut h = Harness::new();
    h.receive(0, Action::Open, "one");
    let claimed = h.grant_lease();
    h.ack(&claimed);
    let (id, _) = h.use_permit();
    h.complete(id, failed(FailureClass::Ambiguous { transaction_ended: false }));
    h.receive(1, Action::Update, "two");
    let (verification, body) = h.use_permit();
    assert!(matches!(body, InstanceRequest::Find { .. }), "a create is verified by its correlation");
    h.complete(verification, Answer::Rows { rows: Vec::new(), journal: None });
    assert!(!h.dispatcher.wants_permit(h.now), "the lane waits: the write may still be committed");
    let span = Settings::default().request_deadline + Settings::default().max_transaction_time;
    h.now.mono += span + 1;
    h.apply(Event::Polled { at: h.now.mono });
    h.grant_lease();
    h.apply(Event::Tick);
    let (verification, _) = h.use_permit();
    let again = h.complete(verification, Answer::Rows { rows: Vec::new(), journal: None });
    assert_eq!(claims(&again), 1, "certainly not applied: it is folded with the later event and claimed again");
    h.ack(&again);
    let (_, body) = h.use_permit();
    let InstanceRequest::Create { fields, .. } = body else { panic!("a create") };
    assert!(fields.contains(&("short_description".into(), "two".to_owned())));
}

#[test]
fn a_rejection_becomes_a_dead_letter_and_parks_the_key() {
    let mut h = Harness::new();
    h.receive(0, Action::Open, "one");
    let claimed = h.grant_lease();
    h.ack(&claimed);
    let (id, _) = h.use_permit();
    let announced = h.complete(id, failed(FailureClass::Rejected));
    assert!(dead_letters_in(&announced).is_empty(), "the next owner must know that a dead letter may exist");
    let rejected = h.ack(&announced);
    let dead_letter = rejected.iter().find_map(|e| match e {
        Effect::ProduceDeadLetter { dead_letter, .. } => Some(dead_letter),
        _ => None,
    });
    assert_eq!(dead_letter.expect("a dead letter").reason, "the instance's message");
    assert_eq!(h.watermark(), 0, "not resolved before the dead letter is acked");
    let parks = |e: &Effect| matches!(e, Effect::ProduceLedgerRecord { write: LedgerWrite::Park(..), .. });
    assert!(!rejected.iter().any(parks), "a park says that the dead letter is acked");
    let parked = h.ack(&rejected);
    assert!(parked.iter().any(parks));
    assert_eq!(h.watermark(), 0, "a restart must know that the key is parked");
    let done = h.ack(&parked);
    h.ack_all(&done);
    assert_eq!(h.watermark(), 1);
    let later = h.receive(1, Action::Update, "two");
    assert_eq!(dead_letters_in(&later), [(1, "parked")]);
    h.ack_all(&later);
    assert_eq!(claims(&h.receive(2, Action::Open, "three")), 1, "an open event without an open ticket is always tried");
}

#[test]
fn the_end_of_a_lease_stops_everything_that_is_not_in_flight() {
    let mut h = Harness::new();
    h.receive(0, Action::Open, "one");
    let claimed = h.grant_lease();
    h.ack(&claimed);
    h.now.mono += Settings::default().session_timeout / 2;
    assert!(!h.dispatcher.wants_permit(h.now), "the claim is acked, but nothing is sent");
    let effects = h.apply(Event::Revoked { partition: 0, epoch: EPOCH });
    let withdrawn = |e: &Effect| {
        matches!(e, Effect::ProduceLedgerRecord { write: LedgerWrite::Tombstone(LedgerKey::Claim(_), _), .. })
    };
    assert!(effects.iter().any(withdrawn), "a claim that was not sent is withdrawn");
    let released = h.ack(&effects);
    assert!(released.iter().any(|e| matches!(e, Effect::ReleasePartition { offset: Some(0), .. })));
}

/// Tokens of the entry tombstones among the effects.
fn expired_tokens(effects: &[Effect]) -> Vec<i64> {
    let tombstones = effects.iter().filter_map(|e| match e {
        Effect::ProduceLedgerRecord { write: LedgerWrite::Tombstone(LedgerKey::Entry(_), token), .. } => Some(token.0),
        _ => None,
    });
    tombstones.collect()
}

/// A ledger with a ticket that was resolved long ago, and of which two previous owners may have written.
fn finished_ticket() -> LedgerState {
    let settings = Settings::default();
    let long_ago = 1_800_000_000_000 - 10 * i64::try_from(settings.reopen_window).expect("days");
    let entry = Entry {
        token: Token(5),
        attempt: AttemptId { token: Token(5), number: 1 },
        sys_id: "a".repeat(32),
        number: "INC1".into(),
        generation: 1,
        position: Position::new(0, 3, 0),
        partial_note: None,
        fields: Vec::new(),
        earlier_tickets: Vec::new(),
        order: EventOrder::UNKNOWN,
        resolved_at: Some(long_ago),
        event_ids: Vec::new(),
        episode: None,
        ended_by_user: false,
        last_seen: LastSeen { state: settings.states.resolved, ..LastSeen::default() },
        written_at: long_ago,
    };
    LedgerState {
        start_offset: 10,
        mark_watermark: 10,
        entries: [("k".into(), entry)].into_iter().collect(),
        previous_owners: vec![PreviousOwner { token: Token(2), known_since: 1_800_000_000_000 - 60_000 }],
        seen_tokens: vec![Token(4), Token(5), Token(7)],
        ..LedgerState::default()
    }
}

/// The ticket of [`finished_ticket`] in this state, once it was looked at, and the effects.
fn looked_at_finished_ticket(state: &str) -> (Harness, Vec<Effect>) {
    let (mut h, _) = Harness::loaded(finished_ticket());
    let mut effects = advance(&mut h, 0);
    effects.extend(advance(&mut h, 60_000));
    assert_eq!(expired_tokens(&effects), [0; 0], "a user may have opened it again");
    let (id, body) = h.use_permit();
    assert!(matches!(body, InstanceRequest::Read { .. }), "{body:?}");
    let row = Row { state: state.into(), ..row() };
    effects.extend(h.complete(id, Answer::Rows { rows: vec![row], journal: None }));
    (h, effects)
}

#[test]
fn a_ticket_that_a_user_opened_again_is_not_forgotten() {
    let (mut h, effects) = looked_at_finished_ticket("2");
    assert_eq!(expired_tokens(&effects), [0; 0]);
    h.receive(11, Action::Open, "zero");
    advance(&mut h, 60_000);
    let (_, body) = h.use_permit();
    assert!(matches!(body, InstanceRequest::Read { .. } | InstanceRequest::Update { .. }), "no second one: {body:?}");
}

#[test]
fn the_entry_of_a_finished_ticket_expires_records_of_previous_owners_first() {
    let (mut h, effects) = looked_at_finished_ticket("6");
    assert_eq!(expired_tokens(&effects), [2, 4], "their records were not in the loaded ledger, and may still land");
    assert_eq!(expired_tokens(&h.ack(&effects)), [5], "the record that counts is tombstoned last");
    let marks = |e: &Effect| match e {
        Effect::ProduceLedgerRecord { write: LedgerWrite::Mark(_, mark), .. } => Some(mark.previous_owners.clone()),
        _ => None,
    };
    let named: Vec<i64> = effects.iter().find_map(marks).expect("a mark").iter().map(|f| f.token.0).collect();
    assert_eq!(named, [5, 4, 2], "the mark names all of them for the next owner");
}

/// A key with a ticket, opened by the event at offset 0, and the effects of its write.
fn open_ticket() -> (Harness, Vec<Effect>) {
    let mut h = Harness::new();
    let effects = [h.receive(0, Action::Open, "zero"), h.grant_lease()].concat();
    h.ack_all(&effects);
    let (_, effects) = h.apply_next_write();
    (h, effects)
}

/// A key whose ticket's first update was rejected, with one more update after it.
fn parked_key() -> Harness {
    let (mut h, _) = open_ticket();
    let effects = h.receive(1, Action::Update, "one");
    h.ack_all(&effects);
    let (id, _) = h.use_permit();
    let rejected = h.complete(id, failed(FailureClass::Rejected));
    h.ack_all(&rejected);
    let effects = h.receive(2, Action::Update, "two");
    h.ack_all(&effects);
    assert_eq!(h.watermark(), 3);
    h
}

const RUN: RecordOrigin = RecordOrigin::Redrive(RedriveId(1));

fn release(upto: i64) -> RecordOrigin {
    RecordOrigin::Release(RedriveId(1), Position::new(0, upto, 0))
}

fn title(body: &InstanceRequest) -> &str {
    let InstanceRequest::Update { fields, .. } = body else { panic!("an update: {body:?}") };
    &fields.iter().find(|(column, _)| &**column == "short_description").expect("a title").1
}

fn dead_letters_in(effects: &[Effect]) -> Vec<(i64, &str)> {
    let dead_letters = effects.iter().filter_map(|e| match e {
        Effect::ProduceDeadLetter { dead_letter, .. } => Some((dead_letter.position.offset, dead_letter.code.as_str())),
        _ => None,
    });
    dead_letters.collect()
}

fn is_released(effects: &[Effect]) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Observe(Observation::Unparked(_))))
}

#[test]
fn redriven_events_pass_newer_events_are_dead_lettered_and_the_release_frees_the_key() {
    let mut h = parked_key();
    let first = h.receive_from(RUN, 3, Action::Update, "one");
    assert_eq!(claims(&first), 0, "the park is moved past it first");
    h.ack_all(&first);
    let newer = h.receive(4, Action::Update, "newer");
    assert!(newer.is_empty(), "it waits for its turn in the lane");
    let (body, effects) = h.apply_next_write();
    assert_eq!(title(&body), "one");
    assert!(!is_released(&effects), "the entry of a redriven event releases nothing");
    assert_eq!(dead_letters_in(&effects), [(4, "parked")]);
    let second = h.receive_from(RUN, 5, Action::Update, "two");
    h.ack_all(&second);
    let (body, _) = h.apply_next_write();
    assert_eq!(title(&body), "two");
    let end = h.receive_content(release(2), 6, RecordContent::Release("k".into()));
    assert!(!is_released(&end), "there is a newer dead letter: {end:?}");
    h.ack_all(&end);
    assert_eq!(h.watermark(), 7);
    let third = h.receive_from(RecordOrigin::Redrive(RedriveId(2)), 7, Action::Update, "newer");
    h.ack_all(&third);
    h.apply_next_write();
    let upto = RecordOrigin::Release(RedriveId(2), Position::new(0, 4, 0));
    let end = h.receive_content(upto, 8, RecordContent::Release("k".into()));
    assert!(is_released(&end));
    h.ack_all(&end);
    let effects = h.receive(9, Action::Update, "free");
    assert_eq!(claims(&effects), 1, "{effects:?}");
}

fn resync(entry: i64) -> RecordOrigin {
    RecordOrigin::Resync(Position::new(0, entry, 0))
}

#[test]
fn a_resync_is_applied_only_while_there_is_no_newer_event() {
    let (mut h, _) = open_ticket();
    let again = h.receive_from(resync(0), 1, Action::Update, "One");
    h.ack_all(&again);
    let (body, _) = h.apply_next_write();
    assert_eq!(title(&body), "One");
    let late = h.receive_from(resync(0), 2, Action::Update, "ONE");
    assert_eq!(claims(&late), 0, "a second resync of the same entry: {late:?}");
    assert_eq!(h.watermark(), 3);
    let newer = h.receive(3, Action::Update, "two");
    let overtaken = h.receive_from(resync(1), 4, Action::Update, "ONE");
    assert!(matches!(overtaken.as_slice(), [Effect::Observe(Observation::Skipped(..))]), "{overtaken:?}");
    h.ack_all(&newer);
    let (body, _) = h.apply_next_write();
    assert_eq!(title(&body), "two");
    assert_eq!(h.watermark(), 5);
}

#[test]
fn a_resync_creates_no_ticket_and_releases_no_parked_key() {
    let mut h = Harness::new();
    h.grant_lease();
    let unknown = h.receive_from(resync(0), 0, Action::Update, "One");
    assert!(matches!(unknown.as_slice(), [Effect::Observe(Observation::Skipped(..))]), "{unknown:?}");
    let mut h = parked_key();
    let skipped = h.receive_from(resync(0), 3, Action::Update, "One");
    assert!(dead_letters_in(&skipped).is_empty(), "the redrive of the key maps its events again: {skipped:?}");
    assert_eq!(h.watermark(), 4);
}

#[test]
fn a_resync_that_a_previous_owner_had_claimed_is_tried_again() {
    let (mut previous, opened) = open_ticket();
    let claimed = previous.receive_from(resync(0), 1, Action::Update, "One");
    let entry = opened.iter().find_map(|e| match e {
        Effect::ProduceLedgerRecord { write: LedgerWrite::Entry(key, entry), .. } => {
            Some((key.clone(), (**entry).clone()))
        }
        _ => None,
    });
    let claim = claimed.iter().find_map(|e| match e {
        Effect::ProduceLedgerRecord { write: LedgerWrite::Claim(key, token, claim), .. } => {
            Some((key.clone(), LoadedClaim { token: *token, claim: (**claim).clone(), age: 0 }))
        }
        _ => None,
    });
    let (mut h, _) = Harness::loaded(LedgerState {
        token: Token(8),
        start_offset: 1,
        mark_watermark: 1,
        entries: entry.into_iter().collect(),
        claims: claim.into_iter().collect(),
        ..LedgerState::default()
    });
    let received = h.receive_from(resync(0), 1, Action::Update, "One");
    assert!(!received.iter().any(|e| matches!(e, Effect::Observe(Observation::Skipped(..)))), "{received:?}");
    assert_eq!(h.watermark(), 1, "it waits for the verification of the claim");
}

#[test]
fn an_event_that_is_rejected_again_blocks_the_rest_of_its_redrive() {
    let mut h = parked_key();
    let first = h.receive_from(RUN, 3, Action::Update, "one");
    h.ack_all(&first);
    let (id, _) = h.use_permit();
    let announced = h.complete(id, failed(FailureClass::Rejected));
    let rejected = h.ack(&announced);
    assert_eq!(dead_letters_in(&rejected), [(3, "test")]);
    h.ack_all(&rejected);
    let second = h.receive_from(RUN, 4, Action::Update, "two");
    assert_eq!(dead_letters_in(&second), [(4, "parked")]);
    h.ack_all(&second);
    let end = h.receive_content(release(2), 5, RecordContent::Release("k".into()));
    assert!(!is_released(&end));
    let again = h.receive_from(RecordOrigin::Redrive(RedriveId(2)), 6, Action::Update, "one");
    h.ack_all(&again);
    let (body, _) = h.apply_next_write();
    assert_eq!(title(&body), "one", "another redrive may try again");
}

#[test]
fn a_redriven_event_that_still_cannot_be_mapped_blocks_the_rest_of_its_redrive() {
    let mut h = parked_key();
    let content = RecordContent::InvalidRedriven { key: "k".into(), code: "mapping", reason: "no such label".into() };
    let announced = h.receive_content(RUN, 3, content);
    let first = h.ack(&announced);
    assert_eq!(dead_letters_in(&first), [(3, "mapping")]);
    h.ack_all(&first);
    assert_eq!(h.watermark(), 4);
    let second = h.receive_from(RUN, 4, Action::Update, "two");
    assert_eq!(dead_letters_in(&second), [(4, "parked")]);
}

#[test]
fn a_new_owner_continues_a_redrive_and_lets_nothing_else_pass() {
    let mut h = parked_key();
    let first = h.receive_from(RUN, 3, Action::Update, "one");
    let park = first.iter().find_map(|e| match e {
        Effect::ProduceLedgerRecord { write: LedgerWrite::Park(_, park), .. } => Some(park.clone()),
        _ => None,
    });
    let park = park.expect("the park is moved past it");
    h.ack_all(&first);
    let (_, effects) = h.apply_next_write();
    let entry = effects.iter().find_map(|e| match e {
        Effect::ProduceLedgerRecord { write: LedgerWrite::Entry(_, entry), .. } => Some((**entry).clone()),
        _ => None,
    });
    let entry = entry.expect("an entry");
    assert!(entry.position < park.position, "such an entry must not make the park void");
    let ledger = LedgerState {
        start_offset: 3,
        mark_watermark: 3,
        entries: [("k".into(), entry)].into_iter().collect(),
        parks: [("k".into(), park)].into_iter().collect(),
        ..LedgerState::default()
    };
    let (mut h, effects) = Harness::loaded(ledger);
    h.ack_all(&effects);
    let leased = h.grant_lease();
    h.ack_all(&leased);
    let first = h.receive_from(RUN, 3, Action::Update, "one");
    assert_eq!(claims(&first), 0, "it is already applied");
    let newer = h.receive(4, Action::Update, "newer");
    assert_eq!(dead_letters_in(&newer), [(4, "parked")]);
    h.ack_all(&newer);
    let second = h.receive_from(RUN, 5, Action::Update, "two");
    h.ack_all(&second);
    let (id, _) = h.use_permit();
    let looked = h.complete(id, Answer::Rows { rows: vec![row()], journal: None });
    assert_eq!(claims(&looked), 1, "{looked:?}");
}

#[test]
fn an_opening_event_does_not_overtake_the_dead_letters_of_an_active_redrive() {
    let mut h = parked_key();
    let first = h.receive_from(RUN, 3, Action::Resolve, "one");
    h.ack_all(&first);
    let resolved = |h: &mut Harness, mod_count: u64| {
        let (id, _) = h.use_permit();
        let row = Row { state: "6".into(), mod_count, ..row() };
        let effects = h.complete(id, Answer::Applied { row: Box::new(row), warnings: Vec::new() });
        h.ack_all(&effects);
    };
    resolved(&mut h, 1);
    let open = h.receive(4, Action::Open, "newer");
    assert_eq!(dead_letters_in(&open), [(4, "parked")], "no ticket is open, but redriven events are still to come");
    h.ack_all(&open);
    let second = h.receive_from(RUN, 5, Action::Update, "two");
    h.ack_all(&second);
    resolved(&mut h, 2);
    let end = h.receive_content(release(2), 6, RecordContent::Release("k".into()));
    assert!(!is_released(&end), "there is a newer dead letter");
    assert_eq!(h.watermark(), 6, "the release is resolved once the park is acked");
    h.ack_all(&end);
    assert_eq!(h.watermark(), 7);
    let open = h.receive(7, Action::Open, "next");
    assert_eq!((dead_letters_in(&open), claims(&open)), (Vec::new(), 1), "then opening events are tried again");
}

#[test]
fn a_redriven_event_is_not_too_old_compared_with_newer_source_events() {
    let mut h = parked_key();
    h.now.unix += 1_000;
    let newer = h.receive(3, Action::Update, "newer");
    assert_eq!(dead_letters_in(&newer), [(3, "parked")], "its dead letter is not acked, the lane has work");
    h.now.unix -= 1_000;
    let again = h.receive_from(RUN, 4, Action::Update, "one");
    assert_eq!(h.watermark(), 3, "{again:?}");
    let effects = h.ack_all(&newer);
    assert_eq!(claims(&effects), 1);
    let (body, _) = h.apply_next_write();
    assert_eq!(title(&body), "one");
}

#[test]
fn a_tombstone_that_was_not_written_is_produced_again() {
    let (mut h, effects) = looked_at_finished_ticket("6");
    let last = h.ack(&effects);
    assert_eq!(expired_tokens(&last), [5]);
    let not_written = |e: &Effect| match e {
        Effect::ProduceLedgerRecord { produce_id, .. } => {
            Some(Event::ProduceCompleted { produce_id: *produce_id, outcome: ProduceOutcome::NotWritten })
        }
        _ => None,
    };
    let again: Vec<Effect> = last.iter().filter_map(not_written).flat_map(|event| h.apply(event)).collect();
    assert_eq!(expired_tokens(&again), [5], "the next owner must not load what was removed here");
}

fn key_of(body: &InstanceRequest) -> String {
    let (InstanceRequest::Create { key, .. }
    | InstanceRequest::Update { key, .. }
    | InstanceRequest::Read { key, .. }
    | InstanceRequest::Find { key, .. }) = body
    else {
        panic!("a request for one key: {body:?}")
    };
    key.to_string()
}

#[test]
fn in_any_storm_a_critical_alert_is_the_next_request() {
    let mut h = Harness::new();
    h.grant_lease();
    for offset in 0..200 {
        let claimed = h.receive_for_key(&format!("storm-{offset}"), 2, offset, Action::Open);
        h.ack_all(&claimed);
    }
    let claimed = h.receive_for_key("critical", 0, 200, Action::Open);
    assert_eq!(claims(&claimed), 1, "it is claimed although the claim window is full");
    h.ack_all(&claimed);
    let (_, body) = h.use_permit();
    assert_eq!(key_of(&body), "critical");
}

#[test]
fn a_waiting_lane_moves_forward_when_its_events_become_urgent() {
    let mut h = Harness::new();
    h.grant_lease();
    for offset in 0..20 {
        let claimed = h.receive_for_key(&format!("storm-{offset}"), 2, offset, Action::Open);
        h.ack_all(&claimed);
    }
    let claimed = h.receive_for_key("late", 3, 20, Action::Open);
    assert_eq!(claims(&claimed), 0);
    let claimed = h.receive_for_key("late", 0, 21, Action::Open);
    h.ack_all(&claimed);
    let (_, body) = h.use_permit();
    assert_eq!(key_of(&body), "late");
}

#[test]
fn plain_updates_follow_new_tickets_and_state_changes() {
    let mut h = Harness::new();
    h.grant_lease();
    let claimed = h.receive_for_key("k", 1, 0, Action::Open);
    h.ack_all(&claimed);
    h.apply_next_write();
    // As many as the claim window allows, and one more.
    for (offset, key) in (1..).zip(["a", "b", "c", "d", "k"]) {
        let claimed = h.receive_for_key(key, if key == "k" { 0 } else { 3 }, offset, Action::Update);
        h.ack_all(&claimed);
    }
    let claimed = h.receive_for_key("new", 2, 6, Action::Open);
    h.ack_all(&claimed);
    let mut order = Vec::new();
    while h.dispatcher.wants_permit(h.now) {
        let (body, effects) = h.apply_next_write();
        order.push(key_of(&body));
        h.ack_all(&effects);
    }
    assert_eq!(order, ["new", "k"], "updates of keys without a ticket are skipped");
}

#[test]
fn a_retry_after_of_an_hour_blocks_only_its_method() {
    const HOUR: u64 = 3_600_000;
    let mut h = Harness::new();
    h.grant_lease();
    let claimed = h.receive_for_key("k", 2, 0, Action::Open);
    h.ack_all(&claimed);
    h.apply_next_write();
    let claimed = h.receive_for_key("k", 2, 1, Action::Resolve);
    h.ack_all(&claimed);
    let claimed = h.receive_for_key("new", 1, 2, Action::Open);
    h.ack_all(&claimed);
    let (id, body) = h.use_permit();
    assert_eq!(key_of(&body), "new");
    let effects = h.complete(id, failed(FailureClass::Throttled { retry_after: Some(HOUR) }));
    h.ack_all(&effects);
    let blocked_by = h.dispatcher.blocked_by();
    assert!(matches!(blocked_by, Some(BlockReason::Throttled { method: HttpMethod::Post, .. })));
    let (body, _) = h.apply_next_write();
    assert_eq!(key_of(&body), "k", "PATCH is not throttled");
    assert_eq!(h.dispatcher.next_request(h.now, HttpMethodSet::NONE), None, "POST is");
    h.now.mono += HOUR;
    h.now.unix += 3_600_000;
    h.apply(Event::Polled { at: h.now.mono });
    let leased = h.grant_lease();
    h.ack_all(&leased);
    assert_eq!(h.dispatcher.next_request(h.now, HttpMethodSet::NONE).map(|next| next.method), Some(HttpMethod::Post));
    assert_eq!(h.dispatcher.blocked_by(), None);
}

#[test]
fn a_429_without_retry_after_delays_its_lane_and_several_in_a_row_open_the_breaker() {
    let mut h = Harness::new();
    h.grant_lease();
    for offset in 0..9 {
        let claimed = h.receive_for_key(&format!("k{offset}"), 2, offset, Action::Open);
        h.ack_all(&claimed);
    }
    for rejected in 1..=5 {
        assert!(h.dispatcher.wants_permit(h.now), "before response {rejected}, other lanes continue");
        let sent = h.apply(Event::PermitGranted { without: HttpMethodSet::NONE });
        h.ack_all(&sent);
        let id = sent.iter().find_map(|e| if let Effect::SendRequest { id, .. } = e { Some(*id) } else { None });
        let id = id.expect("a permit is used");
        let effects = h.complete(id, failed(FailureClass::Throttled { retry_after: None }));
        h.ack_all(&effects);
    }
    assert!(!h.dispatcher.wants_permit(h.now));
    assert!(matches!(h.dispatcher.blocked_by(), Some(BlockReason::Unavailable(_))));
}

/// Sends six writes in one call whose response is lost. Returns whether the route still sends requests.
fn batch_failure_leaves_route_open(already_counted: impl Fn(usize) -> bool) -> bool {
    let mut h = Harness::new();
    h.grant_lease();
    let sent: Vec<RequestId> = (0..6)
        .map(|n| {
            let claimed = h.receive_for_key(&format!("k{n}"), 3, n, Action::Open);
            h.ack(&claimed);
            h.use_permit().0
        })
        .collect();
    for (n, request) in sent.into_iter().enumerate() {
        let answer = failed(FailureClass::Ambiguous { transaction_ended: false });
        let issued_at = h.now.mono;
        let already_counted = already_counted(n);
        h.apply(Event::RequestCompleted { request, issued_at, instance_date: None, answer, already_counted });
    }
    h.dispatcher.wants_permit(h.now)
}

#[test]
fn the_failure_of_a_batch_call_counts_once() {
    assert!(batch_failure_leaves_route_open(|n| n > 0), "each write is verified at once");
    assert!(!batch_failure_leaves_route_open(|_| false), "six failures open the breaker");
}

/// Receives an event with this hold-down.
fn receive_with_hold_down(h: &mut Harness, offset: i64, action: Action, hold_down: u64) -> Vec<Effect> {
    let intent = Intent { hold_down, ..h.intent(offset, action, &offset.to_string()) };
    h.receive_content(RecordOrigin::Source, offset, RecordContent::Intents(vec![intent]))
}

fn advance(h: &mut Harness, ms: u64) -> Vec<Effect> {
    h.now.mono += ms;
    h.now.unix += i64::try_from(ms).expect("small");
    let mut effects = h.apply(Event::Polled { at: h.now.mono });
    effects.extend(h.grant_lease());
    effects.extend(h.apply(Event::Tick));
    effects
}

#[test]
fn an_alert_that_is_over_within_its_hold_down_gets_no_ticket() {
    let mut h = Harness::new();
    h.grant_lease();
    assert_eq!(claims(&receive_with_hold_down(&mut h, 0, Action::Open, 5_000)), 0, "it waits");
    assert_eq!(claims(&advance(&mut h, 3_000)), 0);
    receive_with_hold_down(&mut h, 1, Action::Resolve, 5_000);
    let effects = advance(&mut h, 2_500);
    assert_eq!(claims(&effects), 0);
    assert_eq!(h.watermark(), 2, "it is skipped: {effects:?}");
}

#[test]
fn a_new_owner_catches_up_before_an_old_alert_gets_a_ticket_because_its_predecessor_may_have_skipped_it() {
    let (mut h, _) = Harness::loaded(LedgerState { end_offset: 3, ..LedgerState::default() });
    h.grant_lease();
    let old = |h: &mut Harness, offset: i64, action: Action| {
        let occurred_at = h.now.unix - 3_600_000 + offset;
        let intent = Intent { hold_down: 5_000, occurred_at, ..h.intent(offset, action, "old") };
        h.receive_content(RecordOrigin::Source, offset, RecordContent::Intents(vec![intent]))
    };
    assert_eq!(claims(&old(&mut h, 0, Action::Open)), 0, "two more records are in the input");
    assert_eq!(claims(&advance(&mut h, 60)), 0);
    old(&mut h, 1, Action::Resolve);
    assert_eq!(claims(&advance(&mut h, 60)), 0);
    assert_eq!(h.watermark(), 2, "it was over within its hold-down");
    assert_eq!(claims(&old(&mut h, 2, Action::Open)), 1, "the partition is caught up");
}

#[test]
fn an_event_that_changed_nothing_is_recognized_when_it_is_repeated() {
    let (mut h, _) = open_ticket();
    let receive = |h: &mut Harness, offset: i64, id: u64, title: &str| {
        let occurred_at = h.now.unix;
        let order = EventOrder::of_time(occurred_at);
        let intent = Intent { event_id: Some(id), occurred_at, order, ..h.intent(offset, Action::Update, title) };
        let effects = h.receive_content(RecordOrigin::Source, offset, RecordContent::Intents(vec![intent]));
        let more = h.ack_all(&effects);
        [effects, more].concat()
    };
    assert_eq!(claims(&receive(&mut h, 1, 7, "zero")), 0, "the ticket is up to date");
    assert_eq!(claims(&receive(&mut h, 2, 8, "one")), 1);
    h.apply_next_write();
    let again = receive(&mut h, 3, 7, "zero");
    assert!(matches!(again.as_slice(), [Effect::Observe(Observation::Skipped(..))]), "{again:?}");
}

#[test]
fn an_alert_gets_its_ticket_when_its_hold_down_is_over_and_an_old_alert_at_once() {
    let mut h = Harness::new();
    h.grant_lease();
    receive_with_hold_down(&mut h, 0, Action::Open, 5_000);
    assert_eq!(claims(&advance(&mut h, 4_900)), 0);
    assert_eq!(claims(&advance(&mut h, 200)), 1);
    let mut h = Harness::new();
    h.grant_lease();
    h.now.unix -= 60_000;
    let intent = Intent { hold_down: 5_000, ..h.intent(0, Action::Open, "old") };
    h.now.unix += 60_000;
    let effects = h.receive_content(RecordOrigin::Source, 0, RecordContent::Intents(vec![intent]));
    assert_eq!(claims(&effects), 1, "it has been open long enough");
}

#[test]
fn a_flapping_alert_is_written_once_per_hold_with_one_note_about_it() {
    let flapping = crate::engine::flap_detection::FlapSettings { changes: 4, within: 60_000, hold: 20_000 };
    let mut h = Harness::new();
    h.dispatcher.settings.flapping = Some(flapping);
    h.grant_lease();
    let mut notes = Vec::new();
    let mut writes = 0;
    let mut present = row();
    for offset in 0..40 {
        let action = if offset % 2 == 0 { Action::Open } else { Action::Resolve };
        let mut effects = h.receive(offset, action, "x");
        effects.extend(advance(&mut h, 1_000));
        h.ack_all(&effects);
        while h.dispatcher.wants_permit(h.now) {
            let (id, body) = h.use_permit();
            if let InstanceRequest::Read { .. } = body {
                let effects = h.complete(id, Answer::Rows { rows: vec![present.clone()], journal: None });
                h.ack_all(&effects);
                continue;
            }
            let (state, more) = match &body {
                InstanceRequest::Create { fields, notes, .. } | InstanceRequest::Update { fields, notes, .. } => {
                    let state = fields.iter().find(|(column, _)| &**column == "state").map(|(_, v)| v.clone());
                    (state.unwrap_or("1".into()), notes.clone())
                }
                body => panic!("not a write: {body:?}"),
            };
            notes.extend(more);
            present = Row { state, mod_count: writes, ..row() };
            writes += 1;
            let row = Box::new(present.clone());
            let effects = h.complete(id, Answer::Applied { row, warnings: Vec::new() });
            let more = h.ack_all(&effects);
            h.ack_all(&more);
        }
    }
    assert!((4..=7).contains(&writes), "three changes, and one every twenty seconds: {writes}");
    let flapping_notes = notes.iter().filter(|note| note.text.starts_with("Flapping: 4 changes")).count();
    assert_eq!(flapping_notes, 1, "{notes:?}");
}

/// An owner dies between a dead letter and the park after it; before the next one takes over, the instance would accept
/// the event.
#[test]
fn the_next_owner_does_not_try_an_event_that_may_be_among_the_dead_letters() {
    let mut h = with_park(Park { announced: true, ..park_up_to(1) });
    let first = h.receive(0, Action::Open, "one");
    assert_eq!(
        dead_letters_in(&first),
        [(0, "business_rule")],
        "although an opening event of a key without a ticket is usually tried"
    );
    h.ack_all(&first);
    let second = h.receive(1, Action::Update, "two");
    assert_eq!(dead_letters_in(&second), [(1, "business_rule")]);
    let acked = h.ack(&second);
    let announced = acked.iter().find_map(|e| match e {
        Effect::ProduceLedgerRecord { write: LedgerWrite::Park(_, park), .. } => Some(park.announced),
        _ => None,
    });
    assert_eq!(announced, Some(false), "now the dead letters are in the topic");
    h.ack_all(&acked);
    let open = h.receive(2, Action::Open, "three");
    assert_eq!((dead_letters_in(&open), claims(&open)), (Vec::new(), 1));
}

/// A park with acked dead letters up to this offset, including the event with the id 77.
fn park_up_to(offset: i64) -> Park {
    Park {
        token: Token(3),
        position: Position::new(0, offset, 0),
        newest_letter: None,
        order: EventOrder::UNKNOWN,
        event_ids: vec![77],
        rejected_run: None,
        active_run: None,
        announced: false,
        code: "business_rule".into(),
        reason: "no".into(),
    }
}

/// A partition whose ledger has this park.
fn with_park(park: Park) -> Harness {
    let parks = [("k".into(), park)].into_iter().collect();
    let (mut h, _) = Harness::loaded(LedgerState { parks, ..LedgerState::default() });
    h.grant_lease();
    h
}

/// The previous owner skipped the event because of the events among the dead letters; so must its successor.
#[test]
fn under_any_owner_an_opening_event_older_than_the_dead_letters_does_not_pass() {
    let now = Harness::new().now.unix;
    let mut h = with_park(Park { order: EventOrder::of_time(now + 5), ..park_up_to(0) });
    let skipped = |effects: &[Effect]| matches!(effects, [Effect::Observe(Observation::Skipped(..))]);
    assert!(skipped(&h.receive(1, Action::Open, "older")));
    let repeated = Intent { event_id: Some(77), ..h.intent(6, Action::Open, "repeated") };
    assert!(skipped(&h.receive_content(RecordOrigin::Source, 6, RecordContent::Intents(vec![repeated]))));
    assert_eq!(claims(&h.receive(7, Action::Open, "newer")), 1);
}

/// An announced park contains the ids and the time of the very events whose dead letters are still to be written. They
/// are neither repetitions of themselves nor older than themselves.
#[test]
fn announced_dead_letters_are_written_by_the_next_owner() {
    let now = Harness::new().now.unix;
    let park = Park { order: EventOrder::of_time(now + 1), event_ids: vec![70, 71], ..park_up_to(1) };
    let mut h = with_park(Park { announced: true, ..park });
    for (offset, id) in [(0, 70), (1, 71)] {
        let intent = Intent { event_id: Some(id), ..h.intent(offset, Action::Open, "one") };
        let effects = h.receive_content(RecordOrigin::Source, offset, RecordContent::Intents(vec![intent]));
        assert_eq!(dead_letters_in(&effects), [(offset, "business_rule")], "{effects:?}");
        h.ack_all(&effects);
    }
}

#[test]
fn a_park_contains_the_time_of_the_newest_event_among_its_dead_letters() {
    let mut h = parked_key();
    let order = EventOrder::of_time(h.now.unix + 60_000);
    let newer = Intent { order, ..h.intent(3, Action::Update, "three") };
    let effects = h.receive_content(RecordOrigin::Source, 3, RecordContent::Intents(vec![newer]));
    let parked = h.ack(&effects);
    let parked_order = parked.iter().find_map(|e| match e {
        Effect::ProduceLedgerRecord { write: LedgerWrite::Park(_, park), .. } => Some(park.order),
        _ => None,
    });
    assert_eq!(parked_order, Some(order));
}

/// Of two runs in which an event was rejected again, the park names only the later one.
#[test]
fn a_run_before_the_rejected_run_of_the_park_is_done() {
    let mut h = with_park(Park { rejected_run: Some(RedriveId(2)), ..park_up_to(5) });
    for (offset, run) in [(2, 1), (4, 2)] {
        let again = h.receive_from(RecordOrigin::Redrive(RedriveId(run)), offset, Action::Open, "again");
        assert_eq!((claims(&again), dead_letters_in(&again)), (0, Vec::new()), "{again:?}");
    }
    let next = h.receive_from(RecordOrigin::Redrive(RedriveId(3)), 6, Action::Open, "next");
    assert_eq!(claims(&h.ack_all(&next)), 1, "the next run passes");
}

#[test]
fn a_dead_letter_is_written_only_once_the_one_before_it_is_acked() {
    let mut h = parked_key();
    let notes = |offset: i64| Intent { note: Some(format!("note {offset}")), ..h.intent(offset, Action::Note, "") };
    let both = vec![notes(3), Intent { position: Position::new(0, 3, 1), ..notes(3) }];
    let first = h.receive_content(RecordOrigin::Source, 3, RecordContent::Intents(both));
    let second = h.ack(&first);
    assert_eq!((dead_letters_in(&first).len(), dead_letters_in(&second).len()), (1, 1), "{first:?}\n{second:?}");
}

#[test]
fn no_event_of_a_skipped_alert_is_applied_to_the_previous_ticket() {
    let (mut h, _) = open_ticket();
    let resolved = h.receive(1, Action::Resolve, "zero");
    h.ack_all(&resolved);
    let (id, _) = h.use_permit();
    let resolved_row = Row { state: "6".into(), mod_count: 1, ..row() };
    let row = Box::new(resolved_row.clone());
    let effects = h.complete(id, Answer::Applied { row, warnings: Vec::new() });
    h.ack_all(&effects);
    h.dispatcher.settings.reopen_window = 60_000;
    advance(&mut h, 120_000);
    receive_with_hold_down(&mut h, 2, Action::Open, 5_000);
    receive_with_hold_down(&mut h, 3, Action::Resolve, 5_000);
    advance(&mut h, 6_000);
    advance(&mut h, 60_000);
    let (id, _) = h.use_permit();
    let effects = h.complete(id, Answer::Rows { rows: vec![resolved_row], journal: None });
    let entry = effects.iter().find_map(|e| match e {
        Effect::ProduceLedgerRecord { write: LedgerWrite::Entry(_, entry), .. } => Some(entry.position),
        _ => None,
    });
    assert_eq!(entry, Some(Position::new(0, 3, 0)), "the alert's end, if read again by itself, would be: {effects:?}");
    h.ack_all(&effects);
    assert_eq!(h.watermark(), 4);
}

/// A route that writes full snapshots: events, whose state column is a severity.
struct SnapshotHarness(Harness);

impl SnapshotHarness {
    fn new() -> Self {
        let mut states = StateModel { column: "severity".into(), new: "3".into(), ..StateModel::default() };
        states.resolved = "0".into();
        (states.on_hold, states.closed) = (Vec::new(), Vec::new());
        let settings = Settings { states, full_snapshot: true, max_row_age: u64::MAX, ..Settings::default() };
        let mut harness = Harness::loaded_with(settings, LedgerState::default()).0;
        harness.grant_lease();
        Self(harness)
    }

    fn receive(&mut self, offset: i64, action: Action, values: Option<(&str, &str)>, note: Option<&str>) -> bool {
        let mut intent = self.0.intent(offset, action, "");
        intent.fields = values.map_or(Vec::new(), |(title, severity)| {
            vec![("description".into(), title.into()), ("severity".into(), severity.into())]
        });
        intent.note = note.map(str::to_owned);
        let effects = self.0.receive_content(RecordOrigin::Source, offset, RecordContent::Intents(vec![intent]));
        self.0.ack_all(&effects);
        self.0.dispatcher.wants_permit(self.0.now)
    }

    /// Sends the next write. Returns the row after it, its columns, and its notes, with the attempt's marker last.
    fn send_next_write(&mut self) -> (RequestId, Row, Vec<String>, Vec<MarkedNote>) {
        let (id, body) = self.0.use_permit();
        let (InstanceRequest::Create { fields, notes, .. } | InstanceRequest::Update { fields, notes, .. }) = body
        else {
            panic!("not a write: {body:?}")
        };
        let state = fields.iter().find(|(c, _)| &**c == "severity").expect("every write has a severity").1.clone();
        let columns = fields.iter().map(|(column, value)| format!("{column}={value}")).collect();
        (id, Row { state, mod_count: 0, ..row() }, columns, notes)
    }

    /// Sends the next write and answers it as applied. Returns its columns, and its notes with text.
    fn apply_next_write(&mut self) -> (Vec<String>, Vec<String>) {
        let (id, row, columns, notes) = self.send_next_write();
        assert_eq!(notes.iter().filter(|note| note.text.is_empty()).count(), 1, "one marks the attempt: {notes:?}");
        let effects = self.0.complete(id, Answer::Applied { row: Box::new(row), warnings: Vec::new() });
        self.0.ack_all(&effects);
        (columns, notes.into_iter().map(|note| note.text).filter(|text| !text.is_empty()).collect())
    }
}

#[test]
fn a_full_snapshot_contains_all_columns_or_is_not_written() {
    let mut h = SnapshotHarness::new();
    let columns = |title: &str, severity: &str| vec![format!("description={title}"), format!("severity={severity}")];
    assert!(h.receive(0, Action::Open, Some(("disk", "1")), None));
    assert_eq!(h.apply_next_write().0, columns("disk", "1"));
    assert!(!h.receive(1, Action::Update, Some(("disk", "1")), None), "nothing changed");
    assert!(h.receive(2, Action::Update, Some(("disk full", "1")), None));
    assert_eq!(h.apply_next_write().0, columns("disk full", "1"), "all columns although one changed");
    assert!(h.receive(3, Action::Note, None, Some("looked")));
    let written = h.apply_next_write();
    assert_eq!(written, (vec!["severity=1".to_owned()], vec!["looked".to_owned()]), "the last severity");
    assert!(h.receive(4, Action::Resolve, Some(("disk", "1")), None));
    assert_eq!(h.apply_next_write().0, columns("disk", "0"));
    assert!(h.receive(5, Action::Update, Some(("disk again", "2")), None));
    assert_eq!(h.apply_next_write().0, columns("disk again", "0"), "an update does not open the alert");
    assert!(h.receive(6, Action::Note, None, Some("was it")));
    assert_eq!(h.apply_next_write().0, ["severity=0"]);
    assert!(h.receive(7, Action::Open, Some(("disk again", "2")), None));
    assert_eq!(h.apply_next_write().0, columns("disk again", "2"));
    assert_eq!(h.0.watermark(), 8);
}

#[test]
fn an_ambiguous_full_snapshot_is_verified_by_the_marker_of_its_attempt() {
    let mut h = SnapshotHarness::new();
    h.receive(0, Action::Open, Some(("disk", "1")), None);
    h.apply_next_write();
    for (offset, applied) in [(1, true), (2, false)] {
        assert!(h.receive(offset, Action::Update, Some((&format!("disk {offset}"), "1")), None));
        let (id, row, _, notes) = h.send_next_write();
        let effects = h.0.complete(id, failed(FailureClass::Ambiguous { transaction_ended: true }));
        h.0.ack_all(&effects);
        let (verification, body) = h.0.use_permit();
        let InstanceRequest::Read { markers, .. } = body else { panic!("not a verification: {body:?}") };
        assert_eq!(markers, [notes.last().expect("a marker").marker.clone()]);
        let journal = Some(crate::model::answer::Journal::Read(if applied { markers } else { Vec::new() }));
        let effects = h.0.complete(verification, Answer::Rows { rows: vec![row], journal });
        h.0.ack_all(&effects);
        assert_eq!(h.0.watermark(), 2);
        assert_eq!(h.0.dispatcher.wants_permit(h.0.now), !applied, "a write that was not applied is sent again");
    }
}
