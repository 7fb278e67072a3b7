//! The order of things for one key, step by step, as a reader of the protocol would check it. Random histories are in
//! `engine/simulation`.

use std::sync::Arc;

use super::*;
use crate::engine::event::{Content, LedgerKey, Loaded, MarkedNote, ProduceOutcome, Received, RequestBody};
use crate::model::{
    Action, Answer, AttemptId, Class, Entry, Failure, Intent, Park, Position, PreviousOwner, Record, RecordOrigin,
    RedriveId, Row, Seen, StateModel, Token,
};

const EPOCH: Epoch = Epoch(1);

struct Bench {
    dispatcher: Dispatcher,
    /// Writes applied by [`Bench::write`].
    writes: u64,
    now: Now,
}

impl Bench {
    /// A loaded partition of which nothing is known.
    fn new() -> Self {
        let (bench, effects) = Self::loaded(Loaded::default());
        assert!(effects.iter().any(|e| matches!(e, Effect::Fetch { from: 0, .. })), "fetches from the start");
        bench
    }

    /// A partition with what its ledger says.
    fn loaded(ledger: Loaded) -> (Self, Vec<Effect>) {
        Self::loaded_with(Settings::default(), ledger)
    }

    fn loaded_with(settings: Settings, ledger: Loaded) -> (Self, Vec<Effect>) {
        let mut bench = Self {
            dispatcher: Dispatcher::new(settings),
            writes: 0,
            now: Now { mono: 1_000, unix: 1_800_000_000_000 },
        };
        bench.apply(Event::Polled { at: 1_000 });
        bench.apply(Event::Assigned { partition: 0, epoch: EPOCH });
        let ledger = Box::new(Loaded { token: Token(7), ..ledger });
        let effects = bench.apply(Event::Loaded { partition: 0, epoch: EPOCH, ledger });
        (bench, effects)
    }

    fn lease(&mut self) -> Vec<Effect> {
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

    /// An event of another key and priority.
    fn receive_of(&mut self, key: &str, priority: u8, offset: i64, action: Action) -> Vec<Effect> {
        let intent = Intent { key: key.into(), priority, ..self.intent(offset, action, &offset.to_string()) };
        self.take(RecordOrigin::Source, offset, Content::Intents(vec![intent]))
    }

    fn receive_from(&mut self, origin: RecordOrigin, offset: i64, action: Action, title: &str) -> Vec<Effect> {
        let intent = self.intent(offset, action, title);
        self.take(origin, offset, Content::Intents(vec![intent]))
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
            occurred_at: self.now.unix + offset,
            priority: 3,
            hold_down: 0,
        }
    }

    fn take(&mut self, origin: RecordOrigin, offset: i64, content: Content) -> Vec<Effect> {
        let raw = Arc::new(Record {
            topic: "alerts".into(),
            partition: 0,
            offset,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        });
        let record = Received { offset, raw, origin, content };
        self.apply(Event::Received { partition: 0, epoch: EPOCH, record })
    }

    /// Acks what is produced until nothing more is.
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

    /// The next write, applied, with all that follows.
    fn write(&mut self) -> (RequestBody, Vec<Effect>) {
        let (id, body) = self.permit();
        let mut answer = applied();
        if let Answer::Applied { row, .. } = &mut answer {
            row.mod_count = self.writes;
        }
        self.writes += 1;
        let mut effects = self.answer(id, answer);
        let more = self.ack_all(&effects);
        effects.extend(more);
        (body, effects)
    }

    /// Acks every produce among the effects; what comes of it.
    fn ack(&mut self, effects: &[Effect]) -> Vec<Effect> {
        let mut out = Vec::new();
        for effect in effects {
            if let Effect::Produce { op, .. } | Effect::DeadLetter { op, .. } = effect {
                out.extend(self.apply(Event::Produced { op: *op, outcome: ProduceOutcome::Acked }));
            }
        }
        out
    }

    fn permit(&mut self) -> (RequestId, RequestBody) {
        assert!(self.dispatcher.wants_permit(self.now), "a permit is wanted");
        let effects = self.apply(Event::Permit { without: HttpMethods::NONE });
        let request = effects.into_iter().find_map(|e| match e {
            Effect::Request { id, body, .. } => Some((id, body)),
            _ => None,
        });
        request.expect("a permit is used")
    }

    fn answer(&mut self, request: RequestId, answer: Answer) -> Vec<Effect> {
        let issued_at = self.now.mono;
        self.apply(Event::Answered { request, issued_at, instance_date: None, answer, told: false })
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

fn failed(class: Class) -> Answer {
    Answer::Failed(Failure { class, code: "test".into(), message: "the instance's words".into() })
}

fn claims(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Produce { write: LedgerWrite::Claim(..), .. })).count()
}

fn entries(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Produce { write: LedgerWrite::Entry(..), .. })).count()
}

#[test]
fn a_write_is_claimed_before_it_is_sent_and_remembered_before_it_is_resolved() {
    let mut b = Bench::new();
    assert_eq!(claims(&b.receive(0, Action::Open, "one")), 0, "nothing is claimed without a lease");
    let claimed = b.lease();
    assert_eq!(claims(&claimed), 1);
    assert!(!b.dispatcher.wants_permit(b.now), "nothing is sent before the claim is acked");
    b.ack(&claimed);
    let (id, body) = b.permit();
    assert!(matches!(body, RequestBody::Create { .. }));
    let settled = b.answer(id, applied());
    assert_eq!(entries(&settled), 1);
    assert_eq!(b.watermark(), 0, "nothing is resolved before the entry is acked");
    b.ack(&settled);
    assert_eq!(b.watermark(), 1);
}

#[test]
fn what_waits_behind_a_write_is_folded_into_one() {
    let mut b = Bench::new();
    b.receive(0, Action::Open, "one");
    let claimed = b.lease();
    for offset in 1..100 {
        assert_eq!(claims(&b.receive(offset, Action::Update, &format!("title {offset}"))), 0);
    }
    b.ack(&claimed);
    let (id, _) = b.permit();
    let settled = b.answer(id, applied());
    let removed = b.ack(&settled);
    assert_eq!(claims(&removed), 0, "the tombstone of the last claim could land over the next one");
    let next = b.ack(&removed);
    assert_eq!(claims(&next), 1);
    b.ack(&next);
    let (id, body) = b.permit();
    let RequestBody::Update { fields, .. } = body else { panic!("an update") };
    assert_eq!(fields, [("short_description".into(), "title 99".to_owned())]);
    let settled = b.answer(id, applied());
    b.ack(&settled);
    assert_eq!(b.watermark(), 100, "a hundred events, two requests");
}

#[test]
fn a_lost_answer_is_looked_for_until_the_instance_can_no_longer_commit() {
    let mut b = Bench::new();
    b.receive(0, Action::Open, "one");
    let claimed = b.lease();
    b.ack(&claimed);
    let (id, _) = b.permit();
    b.answer(id, failed(Class::Ambiguous { ended: false }));
    b.receive(1, Action::Update, "two");
    let (look, body) = b.permit();
    assert!(matches!(body, RequestBody::Find { .. }), "a create is looked for by its correlation");
    b.answer(look, Answer::Rows { rows: Vec::new(), journal: None });
    assert!(!b.dispatcher.wants_permit(b.now), "the lane waits: the write may still come");
    let span = Settings::default().request_deadline + Settings::default().settle_time;
    b.now.mono += span + 1;
    b.apply(Event::Polled { at: b.now.mono });
    b.lease();
    b.apply(Event::Tick);
    let (look, _) = b.permit();
    let again = b.answer(look, Answer::Rows { rows: Vec::new(), journal: None });
    assert_eq!(claims(&again), 1, "not there for certain: it is folded with what has come since and claimed anew");
    b.ack(&again);
    let (_, body) = b.permit();
    let RequestBody::Create { fields, .. } = body else { panic!("a create") };
    assert!(fields.contains(&("short_description".into(), "two".to_owned())));
}

#[test]
fn a_refusal_is_a_dead_letter_and_what_follows_waits_behind_it() {
    let mut b = Bench::new();
    b.receive(0, Action::Open, "one");
    let claimed = b.lease();
    b.ack(&claimed);
    let (id, _) = b.permit();
    let announced = b.answer(id, failed(Class::Rejected));
    assert!(letters_of(&announced).is_empty(), "the next owner must know that letters of it may stand");
    let refused = b.ack(&announced);
    let letter = refused.iter().find_map(|e| match e {
        Effect::DeadLetter { letter, .. } => Some(letter),
        _ => None,
    });
    assert_eq!(letter.expect("a dead letter").reason, "the instance's words");
    assert_eq!(b.watermark(), 0, "not resolved before the dead letter is acked");
    let parks = |e: &Effect| matches!(e, Effect::Produce { write: LedgerWrite::Park(..), .. });
    assert!(!refused.iter().any(parks), "a parking says that the dead letter stands");
    let parked = b.ack(&refused);
    assert!(parked.iter().any(parks));
    assert_eq!(b.watermark(), 0, "a restart must know that the key is parked");
    let done = b.ack(&parked);
    b.ack_all(&done);
    assert_eq!(b.watermark(), 1);
    let behind = b.receive(1, Action::Update, "two");
    assert!(behind.iter().any(|e| matches!(e, Effect::DeadLetter { letter, .. } if letter.code == "parked")));
    b.ack_all(&behind);
    assert_eq!(claims(&b.receive(2, Action::Open, "three")), 1, "an open without an open ticket is always tried");
}

#[test]
fn a_lease_that_ends_stops_everything_but_what_is_under_way() {
    let mut b = Bench::new();
    b.receive(0, Action::Open, "one");
    let claimed = b.lease();
    b.ack(&claimed);
    b.now.mono += Settings::default().session_timeout / 2;
    assert!(!b.dispatcher.wants_permit(b.now), "the claim stands, but nothing is sent");
    let effects = b.apply(Event::Revoked { partition: 0, epoch: EPOCH });
    let withdrawn =
        |e: &Effect| matches!(e, Effect::Produce { write: LedgerWrite::Tombstone(LedgerKey::Claim(_), _), .. });
    assert!(effects.iter().any(withdrawn), "a claim that was not sent is withdrawn");
    let released = b.ack(&effects);
    assert!(released.iter().any(|e| matches!(e, Effect::Release { offset: Some(0), .. })));
}

/// Tokens of the entry tombstones among the effects.
fn forgotten(effects: &[Effect]) -> Vec<i64> {
    let tombstones = effects.iter().filter_map(|e| match e {
        Effect::Produce { write: LedgerWrite::Tombstone(LedgerKey::Entry(_), token), .. } => Some(token.0),
        _ => None,
    });
    tombstones.collect()
}

/// What the ledger says of a ticket that was resolved long ago; two former owners may have written of it.
fn finished() -> Loaded {
    let settings = Settings::default();
    let long_ago = 1_800_000_000_000 - 10 * i64::try_from(settings.reopen_window).expect("days");
    let entry = Entry {
        token: Token(5),
        attempt: AttemptId { token: Token(5), number: 1 },
        sys_id: "a".repeat(32),
        number: "INC1".into(),
        generation: 1,
        position: Position::new(0, 3, 0),
        partial: None,
        fields: Vec::new(),
        earlier: Vec::new(),
        occurred_at: 0,
        resolved_at: Some(long_ago),
        event_ids: Vec::new(),
        seen: Seen { state: settings.states.resolved, ..Seen::default() },
        written_at: long_ago,
    };
    Loaded {
        start: 10,
        mark: 10,
        entries: [("k".into(), entry)].into_iter().collect(),
        former: vec![PreviousOwner { token: Token(2), since: 1_800_000_000_000 - 60_000 }],
        tokens: vec![Token(4), Token(5), Token(7)],
        ..Loaded::default()
    }
}

#[test]
fn a_finished_ticket_is_forgotten_former_owners_first() {
    let (mut b, _) = Bench::loaded(finished());
    let effects = b.lease();
    assert_eq!(forgotten(&effects), [2, 4], "none of them is in the ledger that we saw, and each may land there yet");
    assert_eq!(forgotten(&b.ack(&effects)), [5], "the one that counts goes last");
    let marks = |e: &Effect| match e {
        Effect::Produce { write: LedgerWrite::Mark(_, mark), .. } => Some(mark.former.clone()),
        _ => None,
    };
    let named: Vec<i64> = effects.iter().find_map(marks).expect("a mark").iter().map(|f| f.token.0).collect();
    assert_eq!(named, [5, 4, 2], "and the next owner is told of them all");
}

/// A key with a ticket, opened by the event at offset 0, and what was done for it.
fn open_ticket() -> (Bench, Vec<Effect>) {
    let mut b = Bench::new();
    let effects = [b.receive(0, Action::Open, "zero"), b.lease()].concat();
    b.ack_all(&effects);
    let (_, effects) = b.write();
    (b, effects)
}

/// A key whose ticket's first update was refused, with one more update behind it.
fn parked() -> Bench {
    let (mut b, _) = open_ticket();
    let effects = b.receive(1, Action::Update, "one");
    b.ack_all(&effects);
    let (id, _) = b.permit();
    let refused = b.answer(id, failed(Class::Rejected));
    b.ack_all(&refused);
    let effects = b.receive(2, Action::Update, "two");
    b.ack_all(&effects);
    assert_eq!(b.watermark(), 3);
    b
}

const RUN: RecordOrigin = RecordOrigin::Redrive(RedriveId(1));

fn release(upto: i64) -> RecordOrigin {
    RecordOrigin::Release(RedriveId(1), Position::new(0, upto, 0))
}

fn title(body: &RequestBody) -> &str {
    let RequestBody::Update { fields, .. } = body else { panic!("an update: {body:?}") };
    &fields.iter().find(|(column, _)| &**column == "short_description").expect("a title").1
}

fn letters_of(effects: &[Effect]) -> Vec<(i64, &str)> {
    let letters = effects.iter().filter_map(|e| match e {
        Effect::DeadLetter { letter, .. } => Some((letter.position.offset, letter.code.as_str())),
        _ => None,
    });
    letters.collect()
}

fn is_released(effects: &[Effect]) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Observe(Observation::Unparked(_))))
}

#[test]
fn redriven_letters_pass_newer_events_stay_behind_and_the_release_frees_the_key() {
    let mut b = parked();
    let first = b.receive_from(RUN, 3, Action::Update, "one");
    assert_eq!(claims(&first), 0, "first the parking goes past it");
    b.ack_all(&first);
    let newer = b.receive(4, Action::Update, "newer");
    assert!(newer.is_empty(), "it waits for its turn in the lane");
    let (body, effects) = b.write();
    assert_eq!(title(&body), "one");
    assert!(!is_released(&effects), "an entry of a redriven event releases nothing");
    assert_eq!(letters_of(&effects), [(4, "parked")]);
    let second = b.receive_from(RUN, 5, Action::Update, "two");
    b.ack_all(&second);
    let (body, _) = b.write();
    assert_eq!(title(&body), "two");
    let end = b.take(release(2), 6, Content::Release("k".into()));
    assert!(!is_released(&end), "a newer letter came meanwhile: {end:?}");
    b.ack_all(&end);
    assert_eq!(b.watermark(), 7);
    let third = b.receive_from(RecordOrigin::Redrive(RedriveId(2)), 7, Action::Update, "newer");
    b.ack_all(&third);
    b.write();
    let upto = RecordOrigin::Release(RedriveId(2), Position::new(0, 4, 0));
    let end = b.take(upto, 8, Content::Release("k".into()));
    assert!(is_released(&end));
    b.ack_all(&end);
    let effects = b.receive(9, Action::Update, "free");
    assert_eq!(claims(&effects), 1, "{effects:?}");
}

fn resync(entry: i64) -> RecordOrigin {
    RecordOrigin::Resync(Position::new(0, entry, 0))
}

#[test]
fn a_resync_counts_while_nothing_newer_has_come() {
    let (mut b, _) = open_ticket();
    let again = b.receive_from(resync(0), 1, Action::Update, "One");
    b.ack_all(&again);
    let (body, _) = b.write();
    assert_eq!(title(&body), "One");
    let late = b.receive_from(resync(0), 2, Action::Update, "ONE");
    assert_eq!(claims(&late), 0, "a second one of the same entry: {late:?}");
    assert_eq!(b.watermark(), 3);
    let newer = b.receive(3, Action::Update, "two");
    let overtaken = b.receive_from(resync(1), 4, Action::Update, "ONE");
    assert!(matches!(overtaken.as_slice(), [Effect::Observe(Observation::Skipped(..))]), "{overtaken:?}");
    b.ack_all(&newer);
    let (body, _) = b.write();
    assert_eq!(title(&body), "two");
    assert_eq!(b.watermark(), 5);
}

#[test]
fn a_resync_makes_no_ticket_and_frees_no_parked_key() {
    let mut b = Bench::new();
    b.lease();
    let unknown = b.receive_from(resync(0), 0, Action::Update, "One");
    assert!(matches!(unknown.as_slice(), [Effect::Observe(Observation::Skipped(..))]), "{unknown:?}");
    let mut b = parked();
    let behind = b.receive_from(resync(0), 3, Action::Update, "One");
    assert!(letters_of(&behind).is_empty(), "its redrive maps it anew: {behind:?}");
    assert_eq!(b.watermark(), 4);
}

#[test]
fn a_resync_that_a_former_owner_had_claimed_is_taken_again() {
    let (mut former, opened) = open_ticket();
    let begun = former.receive_from(resync(0), 1, Action::Update, "One");
    let entry = opened.iter().find_map(|e| match e {
        Effect::Produce { write: LedgerWrite::Entry(key, entry), .. } => Some((key.clone(), (**entry).clone())),
        _ => None,
    });
    let claim = begun.iter().find_map(|e| match e {
        Effect::Produce { write: LedgerWrite::Claim(key, token, claim), .. } => {
            Some((key.clone(), (*token, (**claim).clone(), 0)))
        }
        _ => None,
    });
    let (mut b, _) = Bench::loaded(Loaded {
        token: Token(8),
        start: 1,
        mark: 1,
        entries: entry.into_iter().collect(),
        claims: claim.into_iter().collect(),
        ..Loaded::default()
    });
    let taken = b.receive_from(resync(0), 1, Action::Update, "One");
    assert!(!taken.iter().any(|e| matches!(e, Effect::Observe(Observation::Skipped(..)))), "{taken:?}");
    assert_eq!(b.watermark(), 1, "it waits for what became of the claim");
}

#[test]
fn what_is_refused_again_holds_the_rest_of_its_redrive_back() {
    let mut b = parked();
    let first = b.receive_from(RUN, 3, Action::Update, "one");
    b.ack_all(&first);
    let (id, _) = b.permit();
    let announced = b.answer(id, failed(Class::Rejected));
    let refused = b.ack(&announced);
    assert_eq!(letters_of(&refused), [(3, "test")]);
    b.ack_all(&refused);
    let second = b.receive_from(RUN, 4, Action::Update, "two");
    assert_eq!(letters_of(&second), [(4, "parked")]);
    b.ack_all(&second);
    let end = b.take(release(2), 5, Content::Release("k".into()));
    assert!(!is_released(&end));
    let again = b.receive_from(RecordOrigin::Redrive(RedriveId(2)), 6, Action::Update, "one");
    b.ack_all(&again);
    let (body, _) = b.write();
    assert_eq!(title(&body), "one", "another redrive may try again");
}

#[test]
fn a_redriven_event_that_cannot_be_mapped_still_holds_its_redrive_back_as_well() {
    let mut b = parked();
    let content = Content::RefusedAgain { key: "k".into(), code: "mapping", reason: "no such label".into() };
    let announced = b.take(RUN, 3, content);
    let first = b.ack(&announced);
    assert_eq!(letters_of(&first), [(3, "mapping")]);
    b.ack_all(&first);
    assert_eq!(b.watermark(), 4);
    let second = b.receive_from(RUN, 4, Action::Update, "two");
    assert_eq!(letters_of(&second), [(4, "parked")]);
}

#[test]
fn a_new_owner_goes_on_with_a_redrive_and_lets_nothing_else_pass() {
    let mut b = parked();
    let first = b.receive_from(RUN, 3, Action::Update, "one");
    let parking = first.iter().find_map(|e| match e {
        Effect::Produce { write: LedgerWrite::Park(_, park), .. } => Some(park.clone()),
        _ => None,
    });
    let parking = parking.expect("the parking goes past it");
    b.ack_all(&first);
    let (_, effects) = b.write();
    let entry = effects.iter().find_map(|e| match e {
        Effect::Produce { write: LedgerWrite::Entry(_, entry), .. } => Some((**entry).clone()),
        _ => None,
    });
    let entry = entry.expect("an entry");
    assert!(entry.position < parking.position, "such an entry must not make the parking void");
    let ledger = Loaded {
        start: 3,
        mark: 3,
        entries: [("k".into(), entry)].into_iter().collect(),
        parks: [("k".into(), parking)].into_iter().collect(),
        ..Loaded::default()
    };
    let (mut b, effects) = Bench::loaded(ledger);
    b.ack_all(&effects);
    let leased = b.lease();
    b.ack_all(&leased);
    let first = b.receive_from(RUN, 3, Action::Update, "one");
    assert_eq!(claims(&first), 0, "it is applied already");
    let newer = b.receive(4, Action::Update, "newer");
    assert_eq!(letters_of(&newer), [(4, "parked")]);
    b.ack_all(&newer);
    let second = b.receive_from(RUN, 5, Action::Update, "two");
    let second = [second.clone(), b.ack_all(&second)].concat();
    assert_eq!(claims(&second), 1, "{second:?}");
}

#[test]
fn an_opening_event_does_not_overtake_letters_of_a_redrive_under_way() {
    let mut b = parked();
    let first = b.receive_from(RUN, 3, Action::Resolve, "one");
    b.ack_all(&first);
    let resolved = |b: &mut Bench, mod_count: u64| {
        let (id, _) = b.permit();
        let row = Row { state: "6".into(), mod_count, ..row() };
        let effects = b.answer(id, Answer::Applied { row: Box::new(row), warnings: Vec::new() });
        b.ack_all(&effects);
    };
    resolved(&mut b, 1);
    let open = b.receive(4, Action::Open, "newer");
    assert_eq!(letters_of(&open), [(4, "parked")], "no ticket is open, but letters are still to come");
    b.ack_all(&open);
    let second = b.receive_from(RUN, 5, Action::Update, "two");
    b.ack_all(&second);
    resolved(&mut b, 2);
    let end = b.take(release(2), 6, Content::Release("k".into()));
    assert!(!is_released(&end), "a newer letter came meanwhile");
    assert_eq!(b.watermark(), 6, "the end counts once the parking stands");
    b.ack_all(&end);
    assert_eq!(b.watermark(), 7);
    let open = b.receive(7, Action::Open, "next");
    assert_eq!((letters_of(&open), claims(&open)), (Vec::new(), 1), "and then opening events are tried again");
}

#[test]
fn a_redriven_event_is_not_old_because_of_what_came_meanwhile() {
    let mut b = parked();
    b.now.unix += 1_000;
    let newer = b.receive(3, Action::Update, "newer");
    assert_eq!(letters_of(&newer), [(3, "parked")], "its letter is on its way, the lane is at work");
    b.now.unix -= 1_000;
    let again = b.receive_from(RUN, 4, Action::Update, "one");
    assert_eq!(b.watermark(), 3, "{again:?}");
    let effects = b.ack_all(&newer);
    assert_eq!(claims(&effects), 1);
    let (body, _) = b.write();
    assert_eq!(title(&body), "one");
}

#[test]
fn a_tombstone_that_kafka_refuses_is_written_again() {
    let (mut b, _) = Bench::loaded(finished());
    let effects = b.lease();
    let last = b.ack(&effects);
    assert_eq!(forgotten(&last), [5]);
    let refused = |e: &Effect| match e {
        Effect::Produce { op, .. } => Some(Event::Produced { op: *op, outcome: ProduceOutcome::Refused }),
        _ => None,
    };
    let again: Vec<Effect> = last.iter().filter_map(refused).flat_map(|event| b.apply(event)).collect();
    assert_eq!(forgotten(&again), [5], "what is forgotten here must not be remembered by the next owner");
}

fn key_of(body: &RequestBody) -> String {
    let (RequestBody::Create { key, .. }
    | RequestBody::Update { key, .. }
    | RequestBody::Read { key, .. }
    | RequestBody::Find { key, .. }) = body;
    key.to_string()
}

#[test]
fn a_critical_alert_in_the_worst_storm_is_the_next_request() {
    let mut b = Bench::new();
    b.lease();
    for offset in 0..200 {
        let claimed = b.receive_of(&format!("storm-{offset}"), 2, offset, Action::Open);
        b.ack_all(&claimed);
    }
    let claimed = b.receive_of("critical", 0, 200, Action::Open);
    assert_eq!(claims(&claimed), 1, "it is claimed although as many are claimed already as may be");
    b.ack_all(&claimed);
    let (_, body) = b.permit();
    assert_eq!(key_of(&body), "critical");
}

#[test]
fn a_lane_in_line_moves_up_when_what_waits_in_it_becomes_urgent() {
    let mut b = Bench::new();
    b.lease();
    for offset in 0..20 {
        let claimed = b.receive_of(&format!("storm-{offset}"), 2, offset, Action::Open);
        b.ack_all(&claimed);
    }
    let claimed = b.receive_of("late", 3, 20, Action::Open);
    assert_eq!(claims(&claimed), 0);
    let claimed = b.receive_of("late", 0, 21, Action::Open);
    b.ack_all(&claimed);
    let (_, body) = b.permit();
    assert_eq!(key_of(&body), "late");
}

#[test]
fn plain_updates_wait_behind_new_tickets_and_changes_of_state() {
    let mut b = Bench::new();
    b.lease();
    let claimed = b.receive_of("k", 1, 0, Action::Open);
    b.ack_all(&claimed);
    b.write();
    // As many as are claimed ahead, and one that is not.
    for (offset, key) in (1..).zip(["a", "b", "c", "d", "k"]) {
        let claimed = b.receive_of(key, if key == "k" { 0 } else { 3 }, offset, Action::Update);
        b.ack_all(&claimed);
    }
    let claimed = b.receive_of("new", 2, 6, Action::Open);
    b.ack_all(&claimed);
    let mut order = Vec::new();
    while b.dispatcher.wants_permit(b.now) {
        let (body, effects) = b.write();
        order.push(key_of(&body));
        b.ack_all(&effects);
    }
    assert_eq!(order, ["new", "k"], "updates of keys without a ticket come to nothing");
}

#[test]
fn an_hour_of_retry_after_holds_its_method_and_others_go_on() {
    const HOUR: u64 = 3_600_000;
    let mut b = Bench::new();
    b.lease();
    let claimed = b.receive_of("k", 2, 0, Action::Open);
    b.ack_all(&claimed);
    b.write();
    let claimed = b.receive_of("k", 2, 1, Action::Resolve);
    b.ack_all(&claimed);
    let claimed = b.receive_of("new", 1, 2, Action::Open);
    b.ack_all(&claimed);
    let (id, body) = b.permit();
    assert_eq!(key_of(&body), "new");
    let effects = b.answer(id, failed(Class::Throttled { retry_after: Some(HOUR) }));
    b.ack_all(&effects);
    assert!(matches!(b.dispatcher.blocked_by(), Some(BlockReason::Throttled(HttpMethod::Post, _))));
    let (body, _) = b.write();
    assert_eq!(key_of(&body), "k", "PATCH is not held");
    assert_eq!(b.dispatcher.wanted(b.now, HttpMethods::NONE), None, "POST is");
    b.now.mono += HOUR;
    b.now.unix += 3_600_000;
    b.apply(Event::Polled { at: b.now.mono });
    let leased = b.lease();
    b.ack_all(&leased);
    assert_eq!(b.dispatcher.wanted(b.now, HttpMethods::NONE).map(|w| w.method), Some(HttpMethod::Post));
    assert_eq!(b.dispatcher.blocked_by(), None);
}

#[test]
fn a_bare_429_holds_its_own_lane_and_many_in_a_row_open_the_breaker() {
    let mut b = Bench::new();
    b.lease();
    for offset in 0..9 {
        let claimed = b.receive_of(&format!("k{offset}"), 2, offset, Action::Open);
        b.ack_all(&claimed);
    }
    for refused in 1..=5 {
        assert!(b.dispatcher.wants_permit(b.now), "after {refused} refusals others go on");
        let sent = b.apply(Event::Permit { without: HttpMethods::NONE });
        b.ack_all(&sent);
        let id = sent.iter().find_map(|e| if let Effect::Request { id, .. } = e { Some(*id) } else { None });
        let id = id.expect("a permit is used");
        let effects = b.answer(id, failed(Class::Throttled { retry_after: None }));
        b.ack_all(&effects);
    }
    assert!(!b.dispatcher.wants_permit(b.now));
    assert!(matches!(b.dispatcher.blocked_by(), Some(BlockReason::Unavailable(_))));
}

/// Six writes that left as one call, whose answer was lost; whether the route still sends.
fn lost_together(told: impl Fn(usize) -> bool) -> bool {
    let mut b = Bench::new();
    b.lease();
    let sent: Vec<RequestId> = (0..6)
        .map(|n| {
            let claimed = b.receive_of(&format!("k{n}"), 3, n, Action::Open);
            b.ack(&claimed);
            b.permit().0
        })
        .collect();
    for (n, request) in sent.into_iter().enumerate() {
        let answer = failed(Class::Ambiguous { ended: false });
        let issued_at = b.now.mono;
        b.apply(Event::Answered { request, issued_at, instance_date: None, answer, told: told(n) });
    }
    b.dispatcher.wants_permit(b.now)
}

#[test]
fn a_call_that_is_lost_with_all_its_requests_is_one_failure_of_the_instance() {
    assert!(lost_together(|n| n > 0), "each is looked for at once");
    assert!(!lost_together(|_| false), "six failures open the breaker");
}

/// A bench whose events carry this hold-down.
fn receive_held(b: &mut Bench, offset: i64, action: Action, hold_down: u64) -> Vec<Effect> {
    let intent = Intent { hold_down, ..b.intent(offset, action, &offset.to_string()) };
    b.take(RecordOrigin::Source, offset, Content::Intents(vec![intent]))
}

fn pass(b: &mut Bench, ms: u64) -> Vec<Effect> {
    b.now.mono += ms;
    b.now.unix += i64::try_from(ms).expect("small");
    let mut effects = b.apply(Event::Polled { at: b.now.mono });
    effects.extend(b.lease());
    effects.extend(b.apply(Event::Tick));
    effects
}

#[test]
fn an_alert_that_is_over_within_its_hold_down_gets_no_ticket() {
    let mut b = Bench::new();
    b.lease();
    assert_eq!(claims(&receive_held(&mut b, 0, Action::Open, 5_000)), 0, "it waits");
    assert_eq!(claims(&pass(&mut b, 3_000)), 0);
    receive_held(&mut b, 1, Action::Resolve, 5_000);
    let effects = pass(&mut b, 2_500);
    assert_eq!(claims(&effects), 0);
    assert_eq!(b.watermark(), 2, "it is left out: {effects:?}");
}

#[test]
fn a_new_owner_reads_on_before_an_old_alert_gets_a_ticket_since_the_one_before_may_have_left_it_out() {
    let (mut b, _) = Bench::loaded(Loaded { end: 3, ..Loaded::default() });
    b.lease();
    let old = |b: &mut Bench, offset: i64, action: Action| {
        let occurred_at = b.now.unix - 3_600_000 + offset;
        let intent = Intent { hold_down: 5_000, occurred_at, ..b.intent(offset, action, "old") };
        b.take(RecordOrigin::Source, offset, Content::Intents(vec![intent]))
    };
    assert_eq!(claims(&old(&mut b, 0, Action::Open)), 0, "two more records lie there");
    assert_eq!(claims(&pass(&mut b, 60)), 0);
    old(&mut b, 1, Action::Resolve);
    assert_eq!(claims(&pass(&mut b, 60)), 0);
    assert_eq!(b.watermark(), 2, "it was over within its hold-down");
    assert_eq!(claims(&old(&mut b, 2, Action::Open)), 1, "all is read");
}

#[test]
fn an_event_that_changed_nothing_is_known_when_it_is_repeated() {
    let (mut b, _) = open_ticket();
    let told = |b: &mut Bench, offset: i64, id: u64, title: &str| {
        let occurred_at = b.now.unix;
        let intent = Intent { event_id: Some(id), occurred_at, ..b.intent(offset, Action::Update, title) };
        let effects = b.take(RecordOrigin::Source, offset, Content::Intents(vec![intent]));
        let more = b.ack_all(&effects);
        [effects, more].concat()
    };
    assert_eq!(claims(&told(&mut b, 1, 7, "zero")), 0, "it stands so");
    assert_eq!(claims(&told(&mut b, 2, 8, "one")), 1);
    b.write();
    let again = told(&mut b, 3, 7, "zero");
    assert!(matches!(again.as_slice(), [Effect::Observe(Observation::Skipped(..))]), "{again:?}");
}

#[test]
fn an_alert_that_lasts_gets_its_ticket_when_the_hold_down_is_over_and_an_old_one_at_once() {
    let mut b = Bench::new();
    b.lease();
    receive_held(&mut b, 0, Action::Open, 5_000);
    assert_eq!(claims(&pass(&mut b, 4_900)), 0);
    assert_eq!(claims(&pass(&mut b, 200)), 1);
    let mut b = Bench::new();
    b.lease();
    b.now.unix -= 60_000;
    let intent = Intent { hold_down: 5_000, ..b.intent(0, Action::Open, "old") };
    b.now.unix += 60_000;
    assert_eq!(claims(&b.take(RecordOrigin::Source, 0, Content::Intents(vec![intent]))), 1, "it has lasted already");
}

#[test]
fn a_flapping_alert_is_written_once_in_its_hold_and_says_so_once() {
    let flapping = crate::engine::flap_detection::Flapping { changes: 4, within: 60_000, hold: 20_000 };
    let mut b = Bench::new();
    b.dispatcher.settings.flapping = Some(flapping);
    b.lease();
    let mut notes = Vec::new();
    let mut writes = 0;
    for offset in 0..40 {
        let action = if offset % 2 == 0 { Action::Open } else { Action::Resolve };
        let mut effects = b.receive(offset, action, "x");
        effects.extend(pass(&mut b, 1_000));
        b.ack_all(&effects);
        while b.dispatcher.wants_permit(b.now) {
            let (id, body) = b.permit();
            let (state, more) = match &body {
                RequestBody::Create { fields, notes, .. } | RequestBody::Update { fields, notes, .. } => {
                    let state = fields.iter().find(|(column, _)| &**column == "state").map(|(_, v)| v.clone());
                    (state.unwrap_or("1".into()), notes.clone())
                }
                other => panic!("not a write: {other:?}"),
            };
            notes.extend(more);
            let row = Row { state, mod_count: writes, ..row() };
            writes += 1;
            let effects = b.answer(id, Answer::Applied { row: Box::new(row), warnings: Vec::new() });
            let more = b.ack_all(&effects);
            b.ack_all(&more);
        }
    }
    assert!((4..=7).contains(&writes), "three changes, and one in each twenty seconds: {writes}");
    let told = notes.iter().filter(|note| note.text.starts_with("Flapping: 4 changes")).count();
    assert_eq!(told, 1, "{notes:?}");
}

/// An owner dies between a letter and the parking behind it; before the next one comes, the instance would accept what it
/// refused.
#[test]
fn what_may_lie_among_the_dead_letters_is_not_tried_by_the_next_owner() {
    let mut b = parked_by(Park { announced: true, ..letters_up_to(1) });
    let first = b.receive(0, Action::Open, "one");
    assert_eq!(
        letters_of(&first),
        [(0, "business_rule")],
        "although an opening event of a key without a ticket is tried"
    );
    b.ack_all(&first);
    let second = b.receive(1, Action::Update, "two");
    assert_eq!(letters_of(&second), [(1, "business_rule")]);
    let stands = b.ack(&second);
    let parks = stands.iter().find_map(|e| match e {
        Effect::Produce { write: LedgerWrite::Park(_, park), .. } => Some(park.announced),
        _ => None,
    });
    assert_eq!(parks, Some(false), "now they stand");
    b.ack_all(&stands);
    let open = b.receive(2, Action::Open, "three");
    assert_eq!((letters_of(&open), claims(&open)), (Vec::new(), 1));
}

/// A parking by letters that stand up to this offset, the event 77 among them.
fn letters_up_to(offset: i64) -> Park {
    Park {
        token: Token(3),
        position: Position::new(0, offset, 0),
        newest: None,
        occurred_at: None,
        event_ids: vec![77],
        failed: None,
        redriving: None,
        announced: false,
        code: "business_rule".into(),
        reason: "no".into(),
    }
}

/// A partition whose ledger says so.
fn parked_by(park: Park) -> Bench {
    let (mut b, _) = Bench::loaded(Loaded { parks: [("k".into(), park)].into_iter().collect(), ..Loaded::default() });
    b.lease();
    b
}

/// The owner before left it out because of what now lies among the dead letters; what came behind it does, too.
#[test]
fn an_opening_event_that_is_older_than_what_is_parked_does_not_pass_whoever_reads_it() {
    let now = Bench::new().now.unix;
    let mut b = parked_by(Park { occurred_at: Some(now + 5), ..letters_up_to(0) });
    let skipped = |effects: &[Effect]| matches!(effects, [Effect::Observe(Observation::Skipped(..))]);
    assert!(skipped(&b.receive(1, Action::Open, "older")));
    let repeated = Intent { event_id: Some(77), ..b.intent(6, Action::Open, "repeated") };
    assert!(skipped(&b.take(RecordOrigin::Source, 6, Content::Intents(vec![repeated]))));
    assert_eq!(claims(&b.receive(7, Action::Open, "newer")), 1);
}

/// An announcement tells of the very events whose letters are still to be written: they are not repetitions of themselves,
/// nor older than themselves.
#[test]
fn what_a_former_owner_announced_is_written_by_the_next_one_whatever_the_announcement_tells() {
    let now = Bench::new().now.unix;
    let told = Park { occurred_at: Some(now + 1), event_ids: vec![70, 71], ..letters_up_to(1) };
    let mut b = parked_by(Park { announced: true, ..told });
    for (offset, id) in [(0, 70), (1, 71)] {
        let intent = Intent { event_id: Some(id), ..b.intent(offset, Action::Open, "one") };
        let effects = b.take(RecordOrigin::Source, offset, Content::Intents(vec![intent]));
        assert_eq!(letters_of(&effects), [(offset, "business_rule")], "{effects:?}");
        b.ack_all(&effects);
    }
}

#[test]
fn a_parking_tells_the_time_of_the_newest_event_among_its_letters() {
    let mut b = parked();
    let newer = Intent { occurred_at: b.now.unix + 60_000, ..b.intent(3, Action::Update, "three") };
    let effects = b.take(RecordOrigin::Source, 3, Content::Intents(vec![newer]));
    let parked = b.ack(&effects);
    let told = parked.iter().find_map(|e| match e {
        Effect::Produce { write: LedgerWrite::Park(_, park), .. } => park.occurred_at,
        _ => None,
    });
    assert_eq!(told, Some(b.now.unix + 60_000));
}

/// Of two runs, each with a letter that was refused again, only the later one is named.
#[test]
fn a_run_before_the_one_that_is_named_has_had_its_turn() {
    let mut b = parked_by(Park { failed: Some(RedriveId(2)), ..letters_up_to(5) });
    for (offset, run) in [(2, 1), (4, 2)] {
        let again = b.receive_from(RecordOrigin::Redrive(RedriveId(run)), offset, Action::Open, "again");
        assert_eq!((claims(&again), letters_of(&again)), (0, Vec::new()), "{again:?}");
    }
    let next = b.receive_from(RecordOrigin::Redrive(RedriveId(3)), 6, Action::Open, "next");
    assert_eq!(claims(&b.ack_all(&next)), 1, "the next run passes");
}

#[test]
fn a_letter_is_written_when_the_one_before_it_stands() {
    let mut b = parked();
    let notes = |offset: i64| Intent { note: Some(format!("note {offset}")), ..b.intent(offset, Action::Note, "") };
    let both = vec![notes(3), Intent { position: Position::new(0, 3, 1), ..notes(3) }];
    let first = b.take(RecordOrigin::Source, 3, Content::Intents(both));
    let second = b.ack(&first);
    assert_eq!((letters_of(&first).len(), letters_of(&second).len()), (1, 1), "{first:?}\n{second:?}");
}

#[test]
fn of_an_alert_that_was_left_out_nothing_is_applied_to_the_ticket_before_it() {
    let (mut b, _) = open_ticket();
    let resolved = b.receive(1, Action::Resolve, "zero");
    b.ack_all(&resolved);
    let (id, _) = b.permit();
    let row = Row { state: "6".into(), mod_count: 1, ..row() };
    let effects = b.answer(id, Answer::Applied { row: Box::new(row), warnings: Vec::new() });
    b.ack_all(&effects);
    b.dispatcher.settings.reopen_window = 60_000;
    pass(&mut b, 120_000);
    receive_held(&mut b, 2, Action::Open, 5_000);
    let mut effects = receive_held(&mut b, 3, Action::Resolve, 5_000);
    effects.extend(pass(&mut b, 6_000));
    let entry = effects.iter().find_map(|e| match e {
        Effect::Produce { write: LedgerWrite::Entry(_, entry), .. } => Some(entry.position),
        _ => None,
    });
    assert_eq!(entry, Some(Position::new(0, 3, 0)), "its end, read again by itself, would be: {effects:?}");
    b.ack_all(&effects);
    assert_eq!(b.watermark(), 4);
}

/// Writes that stand for themselves: events, whose state is a severity.
struct Whole(Bench);

impl Whole {
    fn new() -> Self {
        let mut states = StateModel { column: "severity".into(), new: "3".into(), ..StateModel::default() };
        states.resolved = "0".into();
        (states.on_hold, states.closed) = (Vec::new(), Vec::new());
        let settings = Settings { states, whole: true, row_freshness: u64::MAX, ..Settings::default() };
        let mut bench = Bench::loaded_with(settings, Loaded::default()).0;
        bench.lease();
        Self(bench)
    }

    fn receive(&mut self, offset: i64, action: Action, values: Option<(&str, &str)>, note: Option<&str>) -> bool {
        let mut intent = self.0.intent(offset, action, "");
        intent.fields = values.map_or(Vec::new(), |(title, severity)| {
            vec![("description".into(), title.into()), ("severity".into(), severity.into())]
        });
        intent.note = note.map(str::to_owned);
        let effects = self.0.take(RecordOrigin::Source, offset, Content::Intents(vec![intent]));
        self.0.ack_all(&effects);
        self.0.dispatcher.wants_permit(self.0.now)
    }

    /// Sends what is wanted; the row that its ticket is then, its columns, and its notes with the attempt's marker last.
    fn send(&mut self) -> (RequestId, Row, Vec<String>, Vec<MarkedNote>) {
        let (id, body) = self.0.permit();
        let (RequestBody::Create { fields, notes, .. } | RequestBody::Update { fields, notes, .. }) = body else {
            panic!("no write: {body:?}")
        };
        let state = fields.iter().find(|(c, _)| &**c == "severity").expect("each tells its severity").1.clone();
        let told = fields.iter().map(|(column, value)| format!("{column}={value}")).collect();
        (id, Row { state, mod_count: 0, ..row() }, told, notes)
    }

    /// What is sent and applied: columns, and notes with text.
    fn write(&mut self) -> (Vec<String>, Vec<String>) {
        let (id, row, told, notes) = self.send();
        assert_eq!(notes.iter().filter(|note| note.text.is_empty()).count(), 1, "one names the attempt: {notes:?}");
        let effects = self.0.answer(id, Answer::Applied { row: Box::new(row), warnings: Vec::new() });
        self.0.ack_all(&effects);
        (told, notes.into_iter().map(|note| note.text).filter(|text| !text.is_empty()).collect())
    }
}

#[test]
fn a_write_that_stands_for_itself_says_everything_or_is_not_made() {
    let mut b = Whole::new();
    let told = |title: &str, severity: &str| vec![format!("description={title}"), format!("severity={severity}")];
    assert!(b.receive(0, Action::Open, Some(("disk", "1")), None));
    assert_eq!(b.write().0, told("disk", "1"));
    assert!(!b.receive(1, Action::Update, Some(("disk", "1")), None), "nothing new");
    assert!(b.receive(2, Action::Update, Some(("disk full", "1")), None));
    assert_eq!(b.write().0, told("disk full", "1"), "all columns for one that changed");
    assert!(b.receive(3, Action::Note, None, Some("looked")));
    assert_eq!(b.write(), (vec!["severity=1".to_owned()], vec!["looked".to_owned()]), "the severity that stood last");
    assert!(b.receive(4, Action::Resolve, Some(("disk", "1")), None));
    assert_eq!(b.write().0, told("disk", "0"));
    assert!(b.receive(5, Action::Update, Some(("disk again", "2")), None));
    assert_eq!(b.write().0, told("disk again", "0"), "an update opens nothing");
    assert!(b.receive(6, Action::Note, None, Some("was it")));
    assert_eq!(b.write().0, ["severity=0"]);
    assert!(b.receive(7, Action::Open, Some(("disk again", "2")), None));
    assert_eq!(b.write().0, told("disk again", "2"));
    assert_eq!(b.0.watermark(), 8);
}

#[test]
fn a_doubt_about_it_is_settled_by_the_marker_of_its_attempt() {
    let mut b = Whole::new();
    b.receive(0, Action::Open, Some(("disk", "1")), None);
    b.write();
    for (offset, there) in [(1, true), (2, false)] {
        assert!(b.receive(offset, Action::Update, Some((&format!("disk {offset}"), "1")), None));
        let (id, row, _, notes) = b.send();
        let effects = b.0.answer(id, failed(Class::Ambiguous { ended: true }));
        b.0.ack_all(&effects);
        let (look, body) = b.0.permit();
        let RequestBody::Read { markers, .. } = body else { panic!("no look: {body:?}") };
        assert_eq!(markers, [notes.last().expect("a marker").marker.clone()]);
        let journal = Some(crate::model::answer::Journal::Read(if there { markers } else { Vec::new() }));
        let effects = b.0.answer(look, Answer::Rows { rows: vec![row], journal });
        b.0.ack_all(&effects);
        assert_eq!(b.0.watermark(), 2);
        assert_eq!(b.0.dispatcher.wants_permit(b.0.now), !there, "what is not there is sent again");
    }
}
