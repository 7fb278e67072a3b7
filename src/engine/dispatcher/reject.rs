//! What can't be applied as it is: dead letters, and the parking of their key (protocol rule 16).

use std::collections::VecDeque;

use super::{Dispatcher, Op};
use crate::engine::event::{DeadLetter, Effect, LedgerKey, LedgerWrite, Observation, ProduceOutcome};
use crate::engine::fold::{Queue, Segment, remember};
use crate::engine::lane::Stage;
use crate::model::{Key, Now, Park, Position, RecordOrigin, RedriveId};

/// Why an event becomes a dead letter that might well be applied.
const BEHIND: &str = "waits behind a refused record of this key";

/// Why a key is parked behind letters.
#[derive(Clone, Copy)]
struct Why<'a> {
    code: &'a str,
    reason: &'a str,
    /// The redrive in which it was refused again, and the one that is under way.
    failed: Option<RedriveId>,
    redriving: Option<RedriveId>,
}

impl Dispatcher {
    /// What the attempt carried can't be applied: dead letters, and the key is parked behind them.
    pub(super) fn refuse(
        &mut self,
        partition: i32,
        key: &Key,
        code: &str,
        reason: &str,
        park: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if park {
            self.breaker.refused(reason, &self.settings);
        }
        let bounds = self.bounds(partition, key);
        if let Some(lane) = self.lane(partition, key)
            && lane.held.events().next().is_none()
        {
            // It was the first part of a long note: the event goes as a whole.
            let part = lane.held.take();
            lane.queue.put_back_all(part, bounds);
            if let Some(whole) = lane.queue.pop() {
                lane.held.put_back_apart(whole);
            }
        }
        let letters = self.lane(partition, key).map(|l| letters(&l.held, key, code, reason)).unwrap_or_default();
        let failed = self.lane(partition, key).and_then(|l| l.held.origin().redrive());
        let park = park.then_some(Why { code, reason, failed, redriving: None });
        self.send_letters(partition, key, letters, park, true, now, out);
    }

    /// An event behind a parked one goes the same way.
    pub(super) fn dead_letter(&mut self, partition: i32, key: &Key, segment: Segment, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        lane.held.put_back_apart(segment);
        let park = self.partitions.get(&partition).and_then(|p| p.parks.get(key)).cloned();
        let Some(lane) = self.lane(partition, key) else { return };
        // What a former owner announced it had refused.
        let refused = park.as_ref().zip(lane.held.events().next());
        let refused = refused.filter(|(park, first)| park.may_have_buried(first.position)).map(|(park, _)| park);
        let (code, reason) = refused.map_or(("parked", BEHIND), |park| (park.code(), &park.reason));
        let letters = letters(&lane.held, key, code, reason);
        // The parking tells how far the letters go.
        let park = park.as_ref().map(|park| Why {
            code: &park.code,
            reason: &park.reason,
            failed: park.failed,
            redriving: park.redriving,
        });
        self.send_letters(partition, key, letters, park, false, now, out);
    }

    /// A redriven event can't be mapped still: its letter, and the key, where it is parked, lets nothing more of this
    /// redrive through.
    pub(super) fn refuse_again(
        &mut self,
        partition: i32,
        key: &Key,
        mut segment: Segment,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some((code, reason)) = segment.refusal.take().map(|refusal| *refusal) else { return };
        let failed = segment.origin.redrive();
        let Some(lane) = self.lane(partition, key) else { return };
        lane.held.put_back_apart(segment);
        let letters = letters(&lane.held, key, code, &reason);
        let parked = self.partitions.get(&partition).is_some_and(|p| p.parks.contains_key(key));
        let park = parked.then_some(Why { code, reason: &reason, failed, redriving: None });
        self.send_letters(partition, key, letters, park, true, now, out);
    }

    /// `park`: where the key is parked behind them, why. `announce`: what is refused here might be accepted later, so the
    /// ledger must know first that letters of it may stand; of what waits behind a parked record it does already.
    fn send_letters(
        &mut self,
        partition: i32,
        key: &Key,
        letters: Vec<DeadLetter>,
        park: Option<Why<'_>>,
        announce: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let token = p.token;
        let Some(last) = p.lanes.get(key).and_then(|l| l.held.events().last().map(|e| e.position)) else {
            return self.make_ready(partition, key, now, out);
        };
        // Events that a former owner announced may be still to come.
        let before = p.parks.get(key).filter(|park| park.announced && park.position > last);
        let (position, announced) = before.map_or((last, false), |park| (park.position, true));
        let (occurred_at, event_ids) = self.told_by_letters(partition, key);
        let park = park.map(|Why { code, reason, failed, redriving }| {
            let (code, reason) = (code.to_owned(), reason.to_owned());
            Box::new(Park {
                token,
                position,
                newest: None,
                occurred_at,
                event_ids,
                failed,
                redriving,
                announced,
                code,
                reason,
            })
        });
        match park {
            Some(park) if announce && !letters.is_empty() => {
                let announced = Park { announced: true, ..Park::clone(&park) };
                self.write_park(partition, key, announced, Stage::Announcing(letters, park), out);
            }
            park => self.produce_letters(partition, key, letters, park, now, out),
        }
    }

    fn produce_letters(
        &mut self,
        partition: i32,
        key: &Key,
        letters: Vec<DeadLetter>,
        park: Option<Box<Park>>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.stage(partition, key, Stage::Refusing(letters.into(), park));
        self.next_letter(partition, key, now, out);
    }

    /// The next dead letter, if any is left. Where there was none at all, later events, which wait in the queue, say all
    /// that these said.
    fn next_letter(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let life = p.life;
        let Some(Stage::Refusing(letters, _)) = p.lanes.get_mut(key).map(|lane| &mut lane.stage) else { return };
        match letters.pop_front() {
            Some(letter) => {
                let key = key.clone();
                self.produce_letter(Box::new(letter), |l| Op::Refusal(partition, life, key, Some(l)), out);
            }
            None => self.letters_stand(partition, key, now, out),
        }
    }

    /// `occurred_at` of the newest event among a key's dead letters, and the ids of the last ones, with those that are about
    /// to be written.
    fn told_by_letters(&self, partition: i32, key: &Key) -> (Option<i64>, Vec<u64>) {
        let Some(p) = self.partitions.get(&partition) else { return (None, Vec::new()) };
        let park = p.parks.get(key);
        let (mut at, mut ids) = park.map_or((None, Vec::new()), |park| (park.occurred_at, park.event_ids.clone()));
        if let Some(lane) = p.lanes.get(key) {
            at = at.max(lane.held.newest(&mut true, |_| true));
            remember(&mut ids, lane.held.events().filter_map(|event| event.event_id));
        }
        (at, ids)
    }

    /// The dead letters stand: so does, once it is acked, that the key waits behind them.
    pub(super) fn park(&mut self, partition: i32, key: &Key, park: Park, out: &mut Vec<Effect>) {
        self.write_park(partition, key, park, Stage::Refusing(VecDeque::new(), None), out);
    }

    fn write_park(&mut self, partition: i32, key: &Key, park: Park, stage: Stage, out: &mut Vec<Effect>) {
        self.stage(partition, key, stage);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let life = p.life;
        if p.parks.insert(key.clone(), park.clone()).is_none() {
            Self::observe(out, Observation::Parked(key.clone(), park.reason.clone()));
        }
        let write = LedgerWrite::Park(key.clone(), park);
        self.produce(partition, write, Op::Refusal(partition, life, key.clone(), None), out);
        self.tombstone_stale(partition, life, &LedgerKey::Park(key.clone()), out);
    }

    /// The parking as it must stand before this redriven segment is written, where it does not stand so already.
    pub(super) fn parking_to_pass(&self, partition: i32, key: &Key, segment: &Segment) -> Option<Park> {
        let RecordOrigin::Redrive(id) = segment.origin else { return None };
        let p = self.partitions.get(&partition)?;
        let hi = segment.hi()?;
        p.parks.get(key).filter(|park| !park.has_passed(hi, id)).map(|park| park.passed(p.token, hi, id))
    }

    /// Whether the key's entry goes beyond its parking: then the parking is void.
    pub(super) fn is_beyond_parking(&self, partition: i32, key: &Key) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        let (park, entry) = (p.parks.get(key), p.entries.get(key));
        park.zip(entry).is_some_and(|(park, entry)| park.is_void(entry.position))
    }

    /// The end of a redrive: the key is released, unless letters are left. Then what is returned must stand before the
    /// end counts as done, so that the key's opening events are tried again.
    pub(super) fn release_key(
        &mut self,
        partition: i32,
        key: &Key,
        (id, upto): (RedriveId, Position),
        out: &mut Vec<Effect>,
    ) -> Option<Park> {
        let p = self.partitions.get(&partition)?;
        let park = p.parks.get(key)?;
        let why = if park.failed == Some(id) {
            "a letter of this redrive was refused again"
        } else if park.newest() > upto {
            "newer letters came meanwhile"
        } else {
            self.unpark(partition, key, out);
            return None;
        };
        let after = (park.redriving == Some(id)).then(|| park.after_redrive(p.token));
        Self::observe(out, Observation::StillParked(key.clone(), id, why));
        after
    }

    pub(super) fn refusal_produced(
        &mut self,
        partition: i32,
        life: u64,
        key: &Key,
        letter: Option<Box<DeadLetter>>,
        outcome: ProduceOutcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if self.live(partition, life).is_none() {
            return;
        }
        match (letter, outcome) {
            (_, ProduceOutcome::Acked) => {}
            (Some(letter), _) => {
                let key = key.clone();
                return self.produce_letter(letter, |l| Op::Refusal(partition, life, key, Some(l)), out);
            }
            // The parking may or may not stand: whoever loads next finds out.
            (None, _) => return self.renew_token(partition, out),
        }
        let Some(lane) = self.lane(partition, key) else { return };
        if matches!(lane.stage, Stage::Announcing(..)) {
            if let Stage::Announcing(letters, park) = std::mem::take(&mut lane.stage) {
                self.produce_letters(partition, key, letters, Some(park), now, out);
            }
            return;
        }
        self.next_letter(partition, key, now, out);
    }

    /// Nothing of a refusal is awaited any more: now the key is parked, or, where that is done, its events resolved.
    fn letters_stand(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        let Stage::Refusing(_, park) = &mut lane.stage else { return };
        if let Some(park) = park.take() {
            return self.park(partition, key, *park, out);
        }
        let held = lane.held.take();
        lane.requests = 0;
        if let Some((token, _)) = lane.claim.take() {
            lane.void = Some(token);
        }
        for event in held.events() {
            self.resolve(partition, event.position.offset, event.bytes);
        }
        self.make_ready(partition, key, now, out);
    }
}

/// One dead letter per event that still has its original; each lists those it superseded.
fn letters(held: &Queue, key: &Key, code: &str, reason: &str) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    let mut superseded = Vec::new();
    for event in held.events() {
        match &event.raw {
            None => superseded.push(event.position),
            Some(raw) => letters.push(DeadLetter {
                raw: raw.clone(),
                position: event.position,
                key: Some(key.clone()),
                code: code.to_owned(),
                reason: reason.to_owned(),
                superseded: std::mem::take(&mut superseded),
            }),
        }
    }
    // What superseded these is in a later write; the last letter of this one names them.
    if let Some(last) = letters.last_mut() {
        last.superseded.append(&mut superseded);
    }
    letters
}
