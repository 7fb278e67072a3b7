//! Looks: reading the rows on which decisions rest (protocol rule 7).
//!
//! A look costs a request, so it is shared: a request reads the rows of all lanes that wait for theirs, of those that
//! are next in line for a turn, and of those whose look can wait because it will probably change nothing, up to
//! [`MAX_READ_MANY`] in all. A lane that is next in line does not lose its place by that.

use std::collections::BTreeMap;

use super::entry::{ended_at, last_seen, record_values};
use super::{Dispatcher, PendingRequest, RequestSender};
use crate::engine::event::{Effect, InstanceRequest, RequestId};
use crate::engine::lane::{Lane, ReadPurpose, Stage};
use crate::engine::mutation::Mutation;
use crate::engine::partition::Partition;
use crate::engine::priority::{LaneClass, LaneRank, RequestPurpose};
use crate::engine::request::MAX_READ_MANY;
use crate::model::{Answer, AttemptId, Column, Failure, FailureClass, FastMap, Key, Now, Row, RowVersion};

/// Maximum number of lanes in line whose rows are read before their turn.
const MAX_IN_LINE: usize = 256;

/// Number of writes after which a look is sent for those that wait for one, even if others could be written.
const MAX_WRITES_BETWEEN_LOOKS: usize = 80;

/// How often the lanes in line are looked through for rows that have to be read soon, milliseconds.
const LOOK_AHEAD_INTERVAL: u64 = 10;

/// A ticket whose row is being read.
#[derive(Debug, Clone)]
pub(super) struct LookTarget {
    partition: i32,
    load_generation: u64,
    key: Key,
    sys_id: String,
    /// The attempt of the entry when the request was sent. If a write was settled since, the row is older than it.
    attempt: AttemptId,
}

/// A partition and the key of a lane.
type LaneKey = (i32, Key);

/// The lanes that share a look.
#[derive(Debug)]
struct SharingLanes {
    /// They wait for a look.
    waiting: Vec<LaneKey>,
    /// They wait for the next look, or are next in line for a turn and will need one.
    in_line: Vec<LaneKey>,
}

impl Dispatcher {
    /// How old the row may be on which a decision about this key rests, milliseconds.
    pub(super) fn max_row_age(&self, partition: i32, key: &Key) -> u64 {
        if self.rules.is_disabled(Mutation::NoRowAgeLimit) {
            return u64::MAX;
        }
        let lane = self.partitions.get(&partition).and_then(|p| p.lanes.get(key));
        let (class, looks) = lane.map(|lane| (lane.class, lane.looks)).unwrap_or_default();
        self.row_age_limit.of(class, self.settings.max_row_age, looks.saturating_sub(1))
    }

    /// Lets a lane wait for a look at its ticket.
    pub(super) fn look(&mut self, partition: i32, key: &Key, will_write: bool, now: Now) {
        let waiting: usize = self.partitions.values().map(|p| p.shared_looks.len()).sum();
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        p.rows.remove(key);
        let Some(lane) = p.lanes.get_mut(key) else { return };
        let due = *lane.look_due.get_or_insert(now.mono.saturating_add(self.settings.max_look_delay));
        if will_write || lane.being_read.is_some() || due <= now.mono || waiting + 1 >= MAX_READ_MANY {
            return self.wait_for_look(partition, key, now);
        }
        self.wait_until(partition, key, due, Stage::WaitingToShare(due));
        if let Some(p) = self.partitions.get_mut(&partition) {
            p.shared_looks.insert((due, key.clone()));
        }
    }

    /// Lets a lane wait for the look that reads its row already, or for a permit for one.
    pub(super) fn look_now(&mut self, partition: i32, key: &Key, now: Now) {
        match self.lane(partition, key).and_then(|lane| lane.being_read) {
            Some(id) => self.stage(partition, key, Stage::Reading(id, ReadPurpose::RefreshRow)),
            None => self.wait_for_permit(partition, key, Stage::WaitingToRead(ReadPurpose::RefreshRow), now),
        }
    }

    /// Reads the row of a lane that got a permit, and those of others with it.
    pub(super) fn send_look(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(first) = self.look_target(partition, key) else {
            return self.enqueue_for_turn(partition, key, now, out);
        };
        let SharingLanes { waiting, in_line } = self.lanes_to_look_at(partition, key, now);
        let target = |(partition, key): &LaneKey| self.look_target(*partition, key);
        let mut targets = vec![first];
        targets.extend(waiting.iter().filter_map(target));
        let readers: Vec<LaneKey> = targets.iter().map(|target| (target.partition, target.key.clone())).collect();
        targets.extend(in_line.iter().filter_map(target));
        let mut columns: Vec<Column> =
            targets.iter().flat_map(|target| self.columns_to_read(target.partition, &target.key)).collect();
        columns.sort_unstable();
        columns.dedup();
        let body = match &targets[..] {
            [LookTarget { key, sys_id, .. }] => {
                InstanceRequest::Read { key: key.clone(), sys_id: sys_id.clone(), columns, markers: Vec::new() }
            }
            _ => {
                let tickets = targets.iter().map(|target| (target.key.clone(), target.sys_id.clone())).collect();
                InstanceRequest::ReadMany { tickets, columns }
            }
        };
        let id = RequestId(self.new_id());
        self.breaker.sent(id);
        self.writes_since_look = 0;
        for (partition, key) in &readers {
            self.stage(*partition, key, Stage::Reading(id, ReadPurpose::RefreshRow));
        }
        for (partition, key) in &in_line {
            if let Some(lane) = self.lane(*partition, key) {
                lane.being_read = Some(id);
            }
        }
        // The request counts for the lane that got the permit.
        if let Some(lane) = self.lane(partition, key) {
            lane.requests += 1;
        }
        let sent_at = now.mono;
        let method = body.method();
        self.pending_requests.insert(id, PendingRequest { method, sender: RequestSender::Look { targets, sent_at } });
        let Some(epoch) = self.partitions.get(&partition).map(|p| p.epoch) else { return };
        out.push(Effect::SendRequest { id, partition, epoch, lease_until: u64::MAX, body });
    }

    fn look_target(&self, partition: i32, key: &Key) -> Option<LookTarget> {
        let p = self.partitions.get(&partition)?;
        let entry = p.entries.get(key)?;
        Some(LookTarget {
            partition,
            load_generation: p.load_generation,
            key: key.clone(),
            sys_id: entry.sys_id.clone(),
            attempt: entry.attempt,
        })
    }

    /// The other lanes whose rows are read by the same request.
    fn lanes_to_look_at(&self, partition: i32, key: &Key, now: Now) -> SharingLanes {
        let mut waiting: Vec<LaneKey> = self
            .running_partitions()
            .flat_map(|(number, p)| {
                let asking = p.permit_queue.values().filter(|key| p.lanes.get(*key).is_some_and(Lane::asks_for_look));
                asking.map(move |key| (number, key))
            })
            .filter(|(number, other)| (*number, *other) != (partition, key))
            .map(|(number, key)| (number, key.clone()))
            .take(MAX_READ_MANY - 1)
            .collect();
        let mut left = MAX_READ_MANY - 1 - waiting.len();
        let mut in_line: Vec<LaneKey> =
            self.unread_lanes().take(left).map(|(_, number, key)| (number, key.clone())).collect();
        left -= in_line.len();
        let ready = self.next_in_line(left + MAX_IN_LINE, now).into_iter().filter(|(.., needs_look)| *needs_look);
        in_line.extend(ready.map(|(number, key, _)| (number, key.clone())).take(left));
        left = MAX_READ_MANY - 1 - waiting.len() - in_line.len();
        let mut shared: Vec<_> = self
            .running_partitions()
            .flat_map(|(number, p)| p.shared_looks.iter().take(left).map(move |(due, key)| (*due, number, key)))
            .collect();
        shared.sort_unstable();
        waiting.extend(shared.into_iter().take(left).map(|(_, number, key)| (number, key.clone())));
        SharingLanes { waiting, in_line }
    }

    /// The first `count` lanes in line for a turn, over all partitions, and whether their row has to be read.
    fn next_in_line(&self, count: usize, now: Now) -> Vec<(i32, &Key, bool)> {
        let mut ready: Vec<_> = self
            .active_partitions(now)
            .flat_map(|(number, p)| p.ready.iter().take(count).map(move |(rank, key)| (*rank, number, p, key)))
            .collect();
        ready.sort_unstable_by_key(|(rank, ..)| *rank);
        ready.truncate(count);
        let needs_look = |number: i32, p: &Partition, key: &Key| {
            p.entries.contains_key(key)
                && p.lanes.get(key).is_some_and(|lane| lane.being_read.is_none())
                && p.rows.get(key, now.mono, self.max_row_age(number, key)).is_none()
        };
        ready.into_iter().map(|(_, number, p, key)| (number, key, needs_look(number, p, key))).collect()
    }

    /// The lanes that wait for the next look and are not being read, those of the best rank first.
    fn unread_lanes(&self) -> impl Iterator<Item = (LaneRank, i32, &Key)> {
        let unread = self.running_partitions().flat_map(|(number, p)| {
            let unread = p.unread.iter().filter(|(_, key)| p.lanes.get(*key).is_some_and(|l| l.being_read.is_none()));
            unread.take(MAX_READ_MANY).map(move |(rank, key)| (*rank, number, key))
        });
        let mut unread: Vec<_> = unread.collect();
        unread.sort_unstable_by_key(|(rank, ..)| *rank);
        unread.into_iter()
    }

    /// Lets a lane ask for a look, if lanes wait for one. While enough lanes whose rows are known are next in line, the
    /// others wait for a while, so that a look reads many rows and no free permit waits for it.
    pub(super) fn look_ahead(&mut self, now: Now) {
        if self.partitions.values().all(|p| p.unread.is_empty()) {
            return;
        }
        if self.active_partitions(now).any(|(_, p)| !p.ready.is_empty()) {
            if now.mono < self.looked_ahead_at.saturating_add(LOOK_AHEAD_INTERVAL) {
                return;
            }
            self.looked_ahead_at = now.mono;
            // While a request takes its time, as many others end as are under way, and each gives a lane its turn.
            let soon = (2 * self.pending_requests.len()).clamp(1, MAX_IN_LINE);
            let in_line = self.next_in_line(MAX_IN_LINE, now);
            let known = in_line.iter().filter(|(.., needs_look)| !needs_look).count();
            let enough = known + self.prepared(LaneClass::Standard) >= soon;
            if enough && self.writes_since_look < MAX_WRITES_BETWEEN_LOOKS {
                return;
            }
        }
        let is_asked_for = self.active_partitions(now).any(|(_, p)| {
            let reads = p.permit_queue.iter().filter(|(rank, _)| rank.purpose == RequestPurpose::Read);
            reads.take(MAX_IN_LINE).any(|(_, key)| p.lanes.get(key).is_some_and(Lane::asks_for_look))
        });
        if is_asked_for {
            return;
        }
        let first = self.unread_lanes().next().map(|(_, partition, key)| (partition, key.clone()));
        if let Some((partition, key)) = first {
            self.wait_for_permit(partition, &key, Stage::WaitingToRead(ReadPurpose::RefreshRow), now);
        }
    }

    /// Handles the answer to a look. Lanes that waited for it get in line for a turn.
    pub(super) fn look_completed(
        &mut self,
        id: RequestId,
        (targets, sent_at): (Vec<LookTarget>, u64),
        answer: Answer,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let is_held_back = answer.is_held_back();
        let rows = match answer {
            Answer::Rows { rows, .. } => Some(rows),
            Answer::Failed(Failure { class: FailureClass::Gone, .. }) => Some(Vec::new()),
            _ => None,
        };
        let by_sys_id = |rows: Vec<Row>| rows.into_iter().map(|row| (row.sys_id.clone(), row)).collect();
        let mut rows: Option<BTreeMap<String, Row>> = rows.map(by_sys_id);
        for LookTarget { partition, load_generation, key, sys_id, attempt } in targets {
            if self.current_partition(partition, load_generation).is_none() {
                continue;
            }
            let Some(lane) = self.lane(partition, &key) else { continue };
            let was_read = lane.being_read.take_if(|request| *request == id).is_some();
            let reads = matches!(lane.stage, Stage::Reading(request, ReadPurpose::RefreshRow) if request == id);
            let waits = reads || (was_read && matches!(lane.stage, Stage::WaitingForLook));
            let has_claim = lane.claim.is_some();
            let Some(rows) = &mut rows else {
                // A lane that only shared the look waits for the next one, and for no delay of its own.
                if reads && is_held_back {
                    self.enqueue_for_turn(partition, &key, now, out);
                } else if reads {
                    self.wait_for_retry(partition, &key, now);
                }
                continue;
            };
            let row = rows.remove(&sys_id);
            let is_current = !has_claim && self.entry(partition, &key).is_some_and(|entry| entry.attempt == attempt);
            if waits && self.lane(partition, &key).is_some_and(|lane| lane.looks_for_expiry && lane.queue.is_empty()) {
                self.looked_before_expiry(partition, &key, row.as_ref(), now, out);
                continue;
            }
            match row {
                Some(row) if is_current => {
                    if let Some(lane) = self.lane(partition, &key).filter(|_| waits) {
                        lane.looks = lane.looks.saturating_add(1);
                    }
                    self.row_seen(partition, &key, row, sent_at, now);
                }
                Some(_) => {}
                None if waits => {
                    let purpose = ReadPurpose::ConfirmMissing { by_write: false };
                    self.wait_for_permit(partition, &key, Stage::WaitingToRead(purpose), now);
                    continue;
                }
                None => {}
            }
            if waits {
                self.enqueue_for_turn(partition, &key, now, out);
            }
        }
    }

    /// Records the row as it is now, for the next decision.
    pub(super) fn row_seen(&mut self, partition: i32, key: &Key, row: Row, sent_at: u64, now: Now) {
        let states = &self.settings.states;
        let phase = row.phase(states);
        let clock_skew = self.clock_skew;
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        if let Some(entry) = p.entries.get_mut(key) {
            let was = entry.phase(states);
            if row.mod_count != entry.last_seen.mod_count || entry.last_seen.updated_by.is_empty() {
                // One version later, by our own user, right after a version of ours: a rule of the instance has
                // rewritten it. With more versions in between, one of them may be a user's.
                let by_rule = row.updated_by == self.settings.bridge_user
                    && entry.last_seen.updated_by == self.settings.bridge_user
                    && row.mod_count == entry.last_seen.mod_count + 1;
                let by_rule = by_rule || self.rules.is_disabled(Mutation::NoKeptValues);
                record_values(entry, &row, by_rule, &self.settings);
            }
            if phase.is_open() {
                entry.resolved_at = None;
                entry.ended_by_user = false;
            } else if was.is_open() {
                entry.ended_by_user = true;
                entry.resolved_at = Some(ended_at(&row, Some(entry), states, clock_skew));
            }
            entry.last_seen = last_seen(&row, now);
        }
        if let Some(lane) = p.lanes.get_mut(key) {
            lane.look_due = None;
        }
        p.rows.put(key.clone(), row, sent_at, now.mono);
    }

    /// Another route has seen versions of rows: decisions do not rest on older ones any more.
    pub(super) fn row_versions_seen(&mut self, versions: &[RowVersion]) {
        let newest: FastMap<&str, u64> = versions.iter().map(|version| (&*version.sys_id, version.mod_count)).collect();
        for p in self.partitions.values_mut() {
            for key in p.rows.forget_older(&newest) {
                if let Some(seen) = p.lanes.get_mut(&key).and_then(|lane| lane.decided_on.as_mut()) {
                    seen.superseded = true;
                }
            }
        }
    }

    /// Forgets rows that no decision may rest on any more.
    pub(super) fn prune_seen_rows(&mut self, now: Now) {
        const KEPT: u64 = 60_000;
        let max_age = self.settings.max_row_age.max(KEPT);
        self.partitions.values_mut().for_each(|p| p.rows.prune(now.mono, max_age));
    }
}
