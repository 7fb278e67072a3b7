//! What waits before it is written: on purpose, the opening of an alert that may be over in a moment (hold-down) and the
//! state of one that flaps; and what follows on a write whose claim is not removed yet. Nothing is lost by it: what waits
//! is unresolved, and folded with what comes meanwhile.

use super::Dispatcher;
use crate::engine::event::Effect;
use crate::engine::fold::Segment;
use crate::engine::lane::Stage;
use crate::model::{Intent, Key, Now, Phase, RecordOrigin};

/// The instant that a lane waits for whose last claim's tombstone is not acked: it comes with the ack.
const UNTIL_REMOVED: u64 = u64::MAX;

/// Between two looks for alerts that have been calm for long, milliseconds.
const FORGET_EVERY: u64 = 10_000;

impl Dispatcher {
    /// Until when a segment waits on purpose, on the mono clock. What was put back by people does not.
    fn held_until(&mut self, partition: i32, key: &Key, segment: &Segment, now: Now) -> Option<u64> {
        if segment.origin != RecordOrigin::Source {
            return None;
        }
        let p = self.partitions.get_mut(&partition)?;
        let phase = p.entries.get(key).map_or(Phase::None, |e| self.settings.states.phase(&e.seen.state));
        let hold_down = segment
            .held_down(now, p.is_behind())
            .filter(|_| !phase.is_open())
            .map(|wait| now.mono.saturating_add(wait));
        let flapping = self.settings.flapping.as_ref().filter(|_| segment.phase_after(phase) != phase);
        let flaps = flapping.and_then(|flapping| p.flaps.get_mut(key)?.held_until(now, flapping));
        hold_down.max(flaps)
    }

    /// Until when a segment must not be written, on the mono clock: on purpose, or because the tombstone of the key's last
    /// claim is not acked yet.
    pub(super) fn must_wait(&mut self, partition: i32, key: &Key, segment: &Segment, now: Now) -> Option<u64> {
        let removing = self.partitions.get(&partition).is_some_and(|p| p.removing.contains_key(key));
        if removing { Some(UNTIL_REMOVED) } else { self.held_until(partition, key, segment, now) }
    }

    /// The tombstone of a key's last claim is acked, or refused: then the claim stands, and says no more than that.
    pub(super) fn claim_removed(&mut self, partition: i32, life: u64, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.live(partition, life) else { return };
        let Some(left) = p.removing.get_mut(key) else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        p.removing.remove(key);
        if p.lanes.get(key).is_some_and(|lane| matches!(lane.stage, Stage::Waiting(UNTIL_REMOVED))) {
            self.make_ready(partition, key, now, out);
        }
    }

    /// Lets a lane wait for such an instant.
    pub(super) fn let_wait(&mut self, partition: i32, key: &Key, until: u64) {
        if until == UNTIL_REMOVED {
            self.stage(partition, key, Stage::Waiting(until));
        } else {
            self.make_wait(partition, key, until, Stage::Waiting(until));
        }
    }

    /// An alert event has come: where it makes its alert flap, its note says so.
    pub(super) fn hear_flapping(&mut self, partition: i32, intent: &mut Intent) {
        let Some(flapping) = &self.settings.flapping else { return };
        if !intent.action.opens() && !intent.action.closes() {
            return;
        }
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let flaps = p.flaps.entry(intent.key.clone()).or_default();
        flaps.hear(intent.action.opens(), intent.occurred_at, flapping);
        if flaps.is_untold() {
            let text = flapping.note();
            let text = intent.note.as_ref().map_or(text.clone(), |note| format!("{note}\n{text}"));
            // A note that is split must be the same whoever splits it; a new owner may not know of the flapping.
            if text.chars().count() <= self.settings.note_limit {
                intent.note = Some(text);
                flaps.tell();
            }
        }
    }

    /// A write is there.
    pub(super) fn flapping_written(&mut self, partition: i32, key: &Key, now: Now) {
        if let Some(flaps) = self.partitions.get_mut(&partition).and_then(|p| p.flaps.get_mut(key)) {
            flaps.written(now.mono);
        }
    }

    /// Forgets alerts that have been calm for long.
    pub(super) fn forget_flaps(&mut self, now: Now) {
        let Some(flapping) = &self.settings.flapping else { return };
        if now.mono < self.flaps_forgotten.saturating_add(FORGET_EVERY) {
            return;
        }
        self.flaps_forgotten = now.mono;
        for p in self.partitions.values_mut().filter(|p| !p.flaps.is_empty()) {
            p.flaps.retain(|_, flaps| !flaps.is_over(now.unix, flapping));
        }
    }
}
