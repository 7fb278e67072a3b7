//! Dead letters of rejected records, and the parking of their keys (protocol rules 18, 19).

use std::collections::VecDeque;

use super::{Dispatcher, PendingProduce};
use crate::engine::event::{DeadLetter, Effect, LedgerKey, LedgerWrite, Observation, ProduceOutcome};
use crate::engine::fold::{InvalidEvent, Queue, Segment, remember_ids};
use crate::engine::lane::Stage;
use crate::model::{EventOrder, Key, Now, Park, Position, RecordOrigin, RedriveId};

/// The reason in the dead letter of an event that might be accepted, but follows a rejected one.
const PARKED_REASON: &str = "an earlier record of this key was rejected";

/// Why a key is parked.
#[derive(Clone, Copy)]
struct ParkReason<'a> {
    code: &'a str,
    reason: &'a str,
    /// See [`Park::rejected_run`] and [`Park::active_run`].
    rejected_run: Option<RedriveId>,
    active_run: Option<RedriveId>,
}

impl Dispatcher {
    /// The events of the attempt were rejected: writes dead letters, and parks the key if `park` is set.
    pub(super) fn reject(
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
            self.breaker.rejected(reason, &self.settings);
        }
        let limits = self.fold_limits(partition, key);
        if let Some(lane) = self.lane(partition, key)
            && lane.in_flight.events().next().is_none()
        {
            // The attempt was the first part of a long note: the whole event becomes a dead letter.
            let part = lane.in_flight.take();
            lane.queue.requeue_all(part, limits);
            if let Some(segment) = lane.queue.pop() {
                lane.in_flight.requeue_unfolded(segment);
            }
        }
        let lane = self.lane(partition, key);
        let dead_letters = lane.map(|l| dead_letters(&l.in_flight, key, code, reason)).unwrap_or_default();
        let rejected_run = self.lane(partition, key).and_then(|l| l.in_flight.first_origin().redrive());
        let park = park.then_some(ParkReason { code, reason, rejected_run, active_run: None });
        self.write_dead_letters(partition, key, dead_letters, park, true, now, out);
    }

    /// Dead-letters an event of a parked key.
    pub(super) fn dead_letter(&mut self, partition: i32, key: &Key, segment: Segment, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        lane.in_flight.requeue_unfolded(segment);
        let park = self.partitions.get(&partition).and_then(|p| p.parks.get(key)).cloned();
        let Some(lane) = self.lane(partition, key) else { return };
        // Events of an announced park were rejected under a previous owner, and keep that code and reason.
        let announced = park.as_ref().zip(lane.in_flight.events().next());
        let announced =
            announced.filter(|(park, first)| park.dead_letter_may_exist(first.position)).map(|(park, _)| park);
        let (code, reason) = announced.map_or(("parked", PARKED_REASON), |park| (park.code(), &park.reason));
        let dead_letters = dead_letters(&lane.in_flight, key, code, reason);
        // The park contains the position up to which dead letters exist.
        let park = park.as_ref().map(|park| ParkReason {
            code: &park.code,
            reason: &park.reason,
            rejected_run: park.rejected_run,
            active_run: park.active_run,
        });
        self.write_dead_letters(partition, key, dead_letters, park, false, now, out);
    }

    /// A redriven event still cannot be decoded or mapped: writes its dead letter, and if the key is parked, blocks the
    /// rest of this run.
    pub(super) fn reject_redriven(
        &mut self,
        partition: i32,
        key: &Key,
        mut segment: Segment,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(InvalidEvent { code, reason }) = segment.invalid.take().map(|invalid| *invalid) else { return };
        let rejected_run = segment.origin.redrive();
        let Some(lane) = self.lane(partition, key) else { return };
        lane.in_flight.requeue_unfolded(segment);
        let dead_letters = dead_letters(&lane.in_flight, key, code, &reason);
        let parked = self.partitions.get(&partition).is_some_and(|p| p.parks.contains_key(key));
        let park = parked.then_some(ParkReason { code, reason: &reason, rejected_run, active_run: None });
        self.write_dead_letters(partition, key, dead_letters, park, true, now, out);
    }

    /// `park`: why the key is parked after them; `None` if it is not. `announce`: the events might be accepted later,
    /// so the ledger must first say that dead letters of them may exist. For later events of a parked key it says so
    /// already.
    fn write_dead_letters(
        &mut self,
        partition: i32,
        key: &Key,
        dead_letters: Vec<DeadLetter>,
        park: Option<ParkReason<'_>>,
        announce: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let token = p.token;
        let Some(last) = p.lanes.get(key).and_then(|l| l.in_flight.events().last().map(|e| e.position)) else {
            return self.enqueue_for_turn(partition, key, now, out);
        };
        // Events that a previous owner announced may be still to come.
        let announced_park = p.parks.get(key).filter(|park| park.announced && park.position > last);
        let (position, announced) = announced_park.map_or((last, false), |park| (park.position, true));
        let (order, event_ids) = self.dead_letter_order_and_ids(partition, key);
        let park = park.map(|ParkReason { code, reason, rejected_run, active_run }| {
            let (code, reason) = (code.to_owned(), reason.to_owned());
            Box::new(Park {
                token,
                position,
                newest_letter: None,
                order,
                event_ids,
                rejected_run,
                active_run,
                announced,
                code,
                reason,
            })
        });
        match park {
            Some(park) if announce && !dead_letters.is_empty() => {
                let announced = Park { announced: true, ..Park::clone(&park) };
                self.write_park(partition, key, announced, Stage::AnnouncingPark(dead_letters, park), out);
            }
            park => self.produce_dead_letters(partition, key, dead_letters, park, now, out),
        }
    }

    fn produce_dead_letters(
        &mut self,
        partition: i32,
        key: &Key,
        dead_letters: Vec<DeadLetter>,
        park: Option<Box<Park>>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.stage(partition, key, Stage::DeadLettering(dead_letters.into(), park));
        self.produce_next_dead_letter(partition, key, now, out);
    }

    /// Produces the next dead letter, if there is one. (Where no event still had its original record, there is none:
    /// later events in the queue contain everything that these contained.)
    fn produce_next_dead_letter(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let load_generation = p.load_generation;
        let stage = p.lanes.get_mut(key).map(|lane| &mut lane.stage);
        let Some(Stage::DeadLettering(dead_letters, _)) = stage else { return };
        match dead_letters.pop_front() {
            Some(dead_letter) => {
                let key = key.clone();
                let pending = |l| PendingProduce::Rejection(partition, load_generation, key, Some(l));
                self.produce_dead_letter(Box::new(dead_letter), pending, out);
            }
            None => self.dead_letters_acked(partition, key, now, out),
        }
    }

    /// The newest event among a key's dead letters, and the ids of the last ones, those about to be written included.
    fn dead_letter_order_and_ids(&self, partition: i32, key: &Key) -> (EventOrder, Vec<u64>) {
        let Some(p) = self.partitions.get(&partition) else { return (EventOrder::UNKNOWN, Vec::new()) };
        let park = p.parks.get(key);
        let (mut order, mut ids) = park.map(|park| (park.order, park.event_ids.clone())).unwrap_or_default();
        if let Some(lane) = p.lanes.get(key) {
            order = order.newest(lane.in_flight.newest_order(&mut true, |_| true));
            remember_ids(&mut ids, lane.in_flight.events().filter_map(|event| event.event_id));
        }
        (order, ids)
    }

    /// Writes the park of a key whose dead letters are acked. The lane continues once the park is acked.
    pub(super) fn park(&mut self, partition: i32, key: &Key, park: Park, out: &mut Vec<Effect>) {
        self.write_park(partition, key, park, Stage::DeadLettering(VecDeque::new(), None), out);
    }

    fn write_park(&mut self, partition: i32, key: &Key, park: Park, stage: Stage, out: &mut Vec<Effect>) {
        self.stage(partition, key, stage);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let load_generation = p.load_generation;
        if p.parks.insert(key.clone(), park.clone()).is_none() {
            Self::observe(out, Observation::Parked(key.clone(), park.reason.clone()));
        }
        let write = LedgerWrite::Park(key.clone(), park);
        self.produce(partition, write, PendingProduce::Rejection(partition, load_generation, key.clone(), None), out);
        self.tombstone_stale(partition, load_generation, &LedgerKey::Park(key.clone()), out);
    }

    /// The park to write before this redriven segment is written; `None` if the present one suffices.
    pub(super) fn park_before_redrive(&self, partition: i32, key: &Key, segment: &Segment) -> Option<Park> {
        let RecordOrigin::Redrive(id) = segment.origin else { return None };
        let p = self.partitions.get(&partition)?;
        let last = segment.last_position()?;
        p.parks.get(key).filter(|park| !park.is_past(last, id)).map(|park| park.moved_past(p.token, last, id))
    }

    /// True if the key's entry is past its park: then the park is void.
    pub(super) fn is_past_park(&self, partition: i32, key: &Key) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        let (park, entry) = (p.parks.get(key), p.entries.get(key));
        park.zip(entry).is_some_and(|(park, entry)| park.is_void(entry.position))
    }

    /// The end of a redrive: releases the key, unless dead letters are left. In that case returns the park to write,
    /// which must be acked before the release is resolved, so that opening events of the key are tried again.
    pub(super) fn release_key(
        &mut self,
        partition: i32,
        key: &Key,
        (id, upto): (RedriveId, Position),
        out: &mut Vec<Effect>,
    ) -> Option<Park> {
        let p = self.partitions.get(&partition)?;
        let park = p.parks.get(key)?;
        let reason = if park.rejected_run == Some(id) {
            "an event of this redrive was rejected again"
        } else if park.newest_letter() > upto {
            "there are newer dead letters"
        } else {
            self.unpark(partition, key, out);
            return None;
        };
        let after = (park.active_run == Some(id)).then(|| park.after_redrive(p.token));
        Self::observe(out, Observation::StillParked(key.clone(), id, reason));
        after
    }

    pub(super) fn rejection_produced(
        &mut self,
        partition: i32,
        load_generation: u64,
        key: &Key,
        dead_letter: Option<Box<DeadLetter>>,
        outcome: ProduceOutcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if self.current_partition(partition, load_generation).is_none() {
            return;
        }
        match (dead_letter, outcome) {
            (_, ProduceOutcome::Acked) => {}
            (Some(dead_letter), _) => {
                let key = key.clone();
                let pending = |l| PendingProduce::Rejection(partition, load_generation, key, Some(l));
                return self.produce_dead_letter(dead_letter, pending, out);
            }
            // Whether the park was written is unknown: the ledger must be loaded again.
            (None, _) => return self.renew_token(partition, out),
        }
        let Some(lane) = self.lane(partition, key) else { return };
        if matches!(lane.stage, Stage::AnnouncingPark(..)) {
            if let Stage::AnnouncingPark(dead_letters, park) = std::mem::take(&mut lane.stage) {
                self.produce_dead_letters(partition, key, dead_letters, Some(park), now, out);
            }
            return;
        }
        self.produce_next_dead_letter(partition, key, now, out);
    }

    /// All dead letters are acked: writes the park, or, if it is acked too, resolves the events.
    fn dead_letters_acked(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        let Stage::DeadLettering(_, park) = &mut lane.stage else { return };
        if let Some(park) = park.take() {
            return self.park(partition, key, *park, out);
        }
        let in_flight = lane.in_flight.take();
        lane.requests = 0;
        if let Some((token, _)) = lane.claim.take() {
            lane.void_claim = Some(token);
        }
        for event in in_flight.events() {
            self.resolve(partition, event.position.offset, event.bytes);
        }
        self.enqueue_for_turn(partition, key, now, out);
    }
}

/// One dead letter per event that still has its original record; each lists the events that it superseded.
fn dead_letters(in_flight: &Queue, key: &Key, code: &str, reason: &str) -> Vec<DeadLetter> {
    let mut dead_letters = Vec::new();
    let mut superseded = Vec::new();
    for event in in_flight.events() {
        match &event.raw {
            None => superseded.push(event.position),
            Some(raw) => dead_letters.push(DeadLetter {
                raw: raw.clone(),
                position: event.position,
                key: Some(key.clone()),
                code: code.to_owned(),
                reason: reason.to_owned(),
                superseded: std::mem::take(&mut superseded),
            }),
        }
    }
    // The event that superseded these belongs to a later write; the last dead letter of this one lists them.
    if let Some(last) = dead_letters.last_mut() {
        last.superseded.append(&mut superseded);
    }
    dead_letters
}
