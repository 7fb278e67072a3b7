//! Lanes that wait before they write: deliberately, for the hold-down of an alert that may be over in a moment or for
//! the hold of a flapping one; and until the tombstone of the key's last claim is acked. Nothing is lost meanwhile: the
//! events stay unresolved, and are folded with those that arrive.

use super::Dispatcher;
use crate::engine::event::Effect;
use crate::engine::fold::Segment;
use crate::engine::lane::Stage;
use crate::model::{Intent, Key, Now, Phase, RecordOrigin};

/// Stands for the instant of a tombstone's ack, which is not known in advance.
const UNTIL_TOMBSTONE_ACKED: u64 = u64::MAX;

/// How often obsolete flap states are removed, milliseconds.
const PRUNE_INTERVAL: u64 = 10_000;

impl Dispatcher {
    /// Until when a segment is held deliberately, on the mono clock. Redriven and resynced events are not held.
    fn hold_until(&mut self, partition: i32, key: &Key, segment: &Segment, now: Now) -> Option<u64> {
        if segment.origin != RecordOrigin::Source {
            return None;
        }
        let p = self.partitions.get_mut(&partition)?;
        let phase = p.entries.get(key).map_or(Phase::None, |entry| entry.phase(&self.settings.states));
        let hold_down = segment
            .hold_down_left(now, p.is_catching_up())
            .filter(|_| !phase.is_open())
            .map(|wait| now.mono.saturating_add(wait));
        let flapping = self.settings.flapping.as_ref().filter(|_| segment.phase_after(phase) != phase);
        let flaps = flapping.and_then(|flapping| p.flaps.get_mut(key)?.hold_until(now, flapping));
        hold_down.max(flaps)
    }

    /// Until when a segment must not be written, on the mono clock: it is held, or the tombstone of the key's last
    /// claim is not acked yet.
    pub(super) fn wait_instant(&mut self, partition: i32, key: &Key, segment: &Segment, now: Now) -> Option<u64> {
        let p = self.partitions.get(&partition);
        let removing_claim = p.is_some_and(|p| p.pending_claim_tombstones.contains_key(key));
        if removing_claim { Some(UNTIL_TOMBSTONE_ACKED) } else { self.hold_until(partition, key, segment, now) }
    }

    /// A tombstone of a key's last claim was acked, or was not written, and the claim stays in the ledger.
    pub(super) fn claim_tombstone_produced(
        &mut self,
        partition: i32,
        load_generation: u64,
        key: &Key,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.current_partition(partition, load_generation) else { return };
        let Some(left) = p.pending_claim_tombstones.get_mut(key) else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        p.pending_claim_tombstones.remove(key);
        if p.lanes.get(key).is_some_and(|lane| matches!(lane.stage, Stage::Waiting(UNTIL_TOMBSTONE_ACKED))) {
            self.enqueue_for_turn(partition, key, now, out);
        }
    }

    /// Lets a lane wait until an instant returned by [`Dispatcher::wait_instant`].
    pub(super) fn wait_on_hold(&mut self, partition: i32, key: &Key, until: u64) {
        if until == UNTIL_TOMBSTONE_ACKED {
            self.stage(partition, key, Stage::Waiting(until));
        } else {
            self.wait_until(partition, key, until, Stage::Waiting(until));
        }
    }

    /// Records an alert event for flap detection. If its alert begins to flap, a text about it is added to its note.
    pub(super) fn record_flapping(&mut self, partition: i32, intent: &mut Intent) {
        let Some(flapping) = &self.settings.flapping else { return };
        if !intent.action.opens() && !intent.action.closes() {
            return;
        }
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let flaps = p.flaps.entry(intent.key.clone()).or_default();
        flaps.record(intent.action.opens(), intent.occurred_at, flapping);
        if flaps.is_note_due() {
            let text = flapping.note();
            let text = intent.note.as_ref().map_or(text.clone(), |note| format!("{note}\n{text}"));
            // A note that is split must be the same under every owner; a new owner may not know of the flapping.
            if text.chars().count() <= self.settings.note_limit {
                intent.note = Some(text);
                flaps.note_added();
            }
        }
    }

    /// Records that a write of the key was applied.
    pub(super) fn record_flap_write(&mut self, partition: i32, key: &Key, now: Now) {
        if let Some(flaps) = self.partitions.get_mut(&partition).and_then(|p| p.flaps.get_mut(key)) {
            flaps.state_written(now.mono);
        }
    }

    /// Removes the flap states of alerts that have been calm for long.
    pub(super) fn prune_flap_states(&mut self, now: Now) {
        let Some(flapping) = &self.settings.flapping else { return };
        if now.mono < self.flaps_pruned_at.saturating_add(PRUNE_INTERVAL) {
            return;
        }
        self.flaps_pruned_at = now.mono;
        for p in self.partitions.values_mut().filter(|p| !p.flaps.is_empty()) {
            p.flaps.retain(|_, flaps| !flaps.is_obsolete(now.unix, flapping));
        }
    }
}
