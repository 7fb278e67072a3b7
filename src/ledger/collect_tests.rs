//! Which records of a ledger partition count.

use super::*;
use crate::engine::event::LedgerWrite;
use crate::model::entry::ClaimKind;
use crate::model::{AttemptId, EventOrder, LastSeen, Position, PreviousOwner};

fn position(offset: i64) -> Position {
    Position::new(0, offset, 0)
}

fn attempt(token: i64, number: u64) -> AttemptId {
    AttemptId { token: Token(token), number }
}

fn entry(token: i64, attempt: AttemptId, offset: i64) -> Entry {
    Entry {
        token: Token(token),
        attempt,
        sys_id: format!("{offset:032x}"),
        number: "INC1".into(),
        generation: 1,
        position: position(offset),
        partial_note: None,
        fields: Vec::new(),
        earlier_tickets: Vec::new(),
        order: EventOrder::UNKNOWN,
        resolved_at: None,
        event_ids: Vec::new(),
        episode: None,
        ended_by_user: false,
        last_seen: LastSeen::default(),
        written_at: 0,
    }
}

fn claim(attempt: AttemptId, offset: i64) -> Claim {
    Claim {
        attempt,
        kind: ClaimKind::Create { known_sys_ids: Vec::new() },
        generation: 1,
        first_position: position(offset),
        last_position: position(offset),
        partial_note: None,
        fields: Vec::new(),
        state: None,
        markers: Vec::new(),
        order: EventOrder::UNKNOWN,
        resolved_at: None,
        event_ids: Vec::new(),
        episode: None,
        alert_over: false,
        instance_time: 0,
        span: 130_000,
    }
}

#[derive(Default)]
struct Log {
    collector: Collector,
    next: i64,
    time: i64,
}

impl Log {
    fn write(&mut self, write: &LedgerWrite) {
        let (key, value) = wire::encode(write);
        self.put(&key, value.as_deref());
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.collector.add(key, value, self.next, self.time).expect("a ledger record");
        self.next += 1;
    }

    fn owner(&mut self) -> Token {
        let token = Token(self.next);
        let owner = wire::Owner { member: "m".into(), host: "h".into(), route: "r".into(), at: 0 };
        self.put(b"owner", Some(&wire::encode_owner(&owner)));
        token
    }

    fn entry(&mut self, key: &str, entry: Entry) {
        self.write(&LedgerWrite::Entry(key.into(), Box::new(entry)));
    }

    fn claim(&mut self, key: &str, token: Token, claim: Claim) {
        self.write(&LedgerWrite::Claim(key.into(), token, Box::new(claim)));
    }
}

#[test]
fn the_highest_token_counts_however_late_a_lower_one_lands() {
    let mut log = Log::default();
    let first = log.owner();
    let second = log.owner();
    log.entry("k", entry(second.0, attempt(second.0, 1), 9));
    // A frozen member's record lands on top.
    log.entry("k", entry(first.0, attempt(first.0, 1), 4));
    let ours = log.owner();
    let loaded = log.collector.finish(ours);
    assert_eq!(loaded.entries.get("k").map(|e| e.position), Some(position(9)));
    assert_eq!(loaded.stale, [(LedgerKey::Entry("k".into()), first)]);
}

#[test]
fn a_tombstone_removes_its_own_token_only() {
    let mut log = Log::default();
    let first = log.owner();
    let second = log.owner();
    log.entry("k", entry(first.0, attempt(first.0, 1), 4));
    log.entry("k", entry(second.0, attempt(second.0, 1), 9));
    log.write(&LedgerWrite::Tombstone(LedgerKey::Entry("k".into()), first));
    log.claim("k", first, claim(attempt(first.0, 2), 20));
    log.write(&LedgerWrite::Tombstone(LedgerKey::Claim("k".into()), second));
    let ours = log.owner();
    let loaded = log.collector.finish(ours);
    assert_eq!(loaded.entries.get("k").map(|e| e.token), Some(second));
    assert!(
        loaded.stale.contains(&(LedgerKey::Claim("k".into()), first)),
        "a settled claim is stale: {:?}",
        loaded.stale
    );
    assert!(!loaded.stale.contains(&(LedgerKey::Entry("k".into()), first)));
}

#[test]
fn settled_claims_are_not_ambiguous() {
    let mut log = Log::default();
    let owner = log.owner();
    // Its entry names it.
    log.claim("named", owner, claim(attempt(owner.0, 1), 50));
    log.entry("named", entry(owner.0, attempt(owner.0, 1), 50));
    // Its positions are below the mark.
    log.claim("below", owner, claim(attempt(owner.0, 2), 39));
    // Ambiguous, although its position is not above the entry's.
    log.entry("ambiguous", entry(owner.0, attempt(owner.0, 3), 60));
    log.claim("ambiguous", owner, claim(attempt(owner.0, 4), 60));
    // A position at the mark is not below it.
    log.claim("at", owner, claim(attempt(owner.0, 5), 40));
    log.write(&LedgerWrite::Mark(owner, Mark::at(40)));
    let ours = log.owner();
    let loaded = log.collector.finish(ours);
    let mut ambiguous: Vec<_> = loaded.claims.keys().map(ToString::to_string).collect();
    ambiguous.sort();
    assert_eq!(ambiguous, ["ambiguous", "at"]);
    for key in ["named", "below"] {
        assert!(loaded.stale.contains(&(LedgerKey::Claim(key.into()), owner)), "the claim of {key} is stale");
    }
}

#[test]
fn previous_owners_are_found_by_their_records_by_owner_records_and_by_the_newest_mark() {
    let mut log = Log::default();
    let (older, newer, silent) = (log.owner(), log.owner(), log.owner());
    let gone = PreviousOwner { token: Token(-7), known_since: 1_000 };
    log.write(&LedgerWrite::Mark(older, Mark::at(3)));
    log.write(&LedgerWrite::Mark(newer, Mark { watermark: 5, previous_owners: vec![gone] }));
    let ours = log.owner();
    let mut loaded = log.collector.finish(ours);
    assert_eq!(loaded.previous_owners, [gone]);
    loaded.seen_tokens.sort();
    loaded.seen_tokens.dedup();
    assert_eq!(loaded.seen_tokens, [older, newer, silent, ours], "an owner record alone is enough");
}

#[test]
fn a_park_that_lands_after_its_key_was_released_is_stale() {
    let mut log = Log::default();
    let (late, owner) = (log.owner(), log.owner());
    log.write(&LedgerWrite::Entry("released".into(), Box::new(entry(owner.0, attempt(owner.0, 2), 9))));
    log.write(&LedgerWrite::Entry("parked".into(), Box::new(entry(owner.0, attempt(owner.0, 1), 7))));
    for key in ["released", "parked"] {
        let park = Park {
            token: late,
            position: Position::new(0, 9, 0),
            newest_letter: None,
            order: EventOrder::UNKNOWN,
            event_ids: Vec::new(),
            rejected_run: None,
            active_run: None,
            announced: false,
            code: "business_rule".into(),
            reason: "no".into(),
        };
        log.write(&LedgerWrite::Park(key.into(), park));
    }
    let ours = log.owner();
    let loaded = log.collector.finish(ours);
    assert_eq!(loaded.parks.keys().map(|k| &**k).collect::<Vec<_>>(), ["parked"]);
    assert!(loaded.stale.contains(&(LedgerKey::Park("released".into()), late)));
}

#[test]
fn the_watermark_never_falls() {
    let mut log = Log::default();
    let first = log.owner();
    let second = log.owner();
    log.write(&LedgerWrite::Mark(first, Mark::at(100)));
    log.write(&LedgerWrite::Mark(second, Mark::at(60)));
    let ours = log.owner();
    let loaded = log.collector.finish(ours);
    assert_eq!(loaded.mark_watermark, 100);
    let mut stale = loaded.stale;
    stale.sort_by_key(|(_, token)| *token);
    assert_eq!(stale, [(LedgerKey::Mark, first), (LedgerKey::Mark, second)]);
}

#[test]
fn the_age_of_an_ambiguous_claim_counts_from_the_first_record_that_a_higher_token_wrote() {
    let mut log = Log { time: 1_000, ..Log::default() };
    let owner = log.owner();
    log.claim("k", owner, claim(attempt(owner.0, 1), 5));
    // A previous owner whose load runs late: it takes a token and never writes under it.
    log.time = 20_000;
    log.owner();
    // A crash loop: each new owner loads a little later, and none of them restarts the span.
    log.time = 49_000;
    let second = log.owner();
    log.time = 50_000;
    log.write(&LedgerWrite::Mark(second, Mark::at(3)));
    log.time = 90_000;
    let middle = log.owner();
    log.claim("l", middle, claim(attempt(middle.0, 1), 6));
    log.time = 95_000;
    let ours = log.owner();
    let loaded = log.collector.finish(ours);
    assert_eq!(loaded.claims["k"].age, 45_000);
    assert_eq!(loaded.claims["l"].age, 0, "no higher token wrote");
    assert_eq!(loaded.claims["k"].token, owner);
}

#[test]
fn a_hundred_thousand_entries_load_in_seconds() {
    let mut log = Log::default();
    let owner = log.owner();
    let (_, value) = wire::encode(&LedgerWrite::Entry("k".into(), Box::new(entry(owner.0, attempt(owner.0, 1), 7))));
    let value = value.expect("a value");
    // Processor time of this thread, so that other tests on the same cores do not count.
    let started = thread_time();
    let count = 100_000;
    for number in 0..count {
        log.put(format!("entry:host-{number}:disk:{}", owner.0).as_bytes(), Some(&value));
    }
    let ours = log.owner();
    let loaded = log.collector.finish(ours);
    assert_eq!(loaded.entries.len(), count);
    let each = thread_time().saturating_sub(started) / 100_000;
    assert!(each < std::time::Duration::from_micros(50), "{each:?} per entry");
}

fn thread_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(
        u64::try_from(time.tv_sec).expect("positive"),
        u32::try_from(time.tv_nsec).expect("below 1e9"),
    )
}
