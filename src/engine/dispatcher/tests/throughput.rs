//! How many of the permits of a slow instance are used for writes, in virtual time: an instance that takes 150 ms for a
//! request, with a number of permits, and more changes than it can take.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Milliseconds until the instance answers, and until a ledger record is acked.
const LATENCY: usize = 150;
const ACK: u64 = 4;

#[derive(Default)]
struct Counts {
    writes: usize,
    looks: usize,
}

struct SlowInstance {
    h: Harness,
    answers: BTreeMap<(u64, RequestId), InstanceRequest>,
    acks: BTreeSet<(u64, ProduceId)>,
    versions: FastMap<String, (u64, String)>,
    counts: Counts,
}

impl SlowInstance {
    fn perform(&mut self, effects: Vec<Effect>) {
        let now = self.h.now.mono;
        for effect in effects {
            match effect {
                Effect::SendRequest { id, body, .. } => {
                    match &body {
                        InstanceRequest::Create { .. } | InstanceRequest::Update { .. } => self.counts.writes += 1,
                        _ => self.counts.looks += 1,
                    }
                    self.answers.insert((now + LATENCY as u64, id), body);
                }
                Effect::ProduceLedgerRecord { produce_id, .. } | Effect::ProduceDeadLetter { produce_id, .. } => {
                    self.acks.insert((now + ACK, produce_id));
                }
                _ => {}
            }
        }
    }

    fn apply(&mut self, event: Event) {
        let effects = self.h.apply(event);
        self.perform(effects);
    }

    fn row(&self, sys_id: &str) -> Row {
        let (mod_count, state) = self.versions.get(sys_id).cloned().unwrap_or((0, "1".into()));
        Row { sys_id: sys_id.into(), mod_count, state, ..row() }
    }

    fn answer(&mut self, body: &InstanceRequest) -> Answer {
        match body {
            InstanceRequest::Create { key, .. } => {
                let sys_id = format!("{:0>32}", key.trim_start_matches('k'));
                Answer::Applied { row: Box::new(self.row(&sys_id)), warnings: Vec::new() }
            }
            InstanceRequest::Update { sys_id, fields, .. } => {
                let (mod_count, state) = self.versions.entry(sys_id.clone()).or_insert((0, "1".into()));
                *mod_count += 1;
                if let Some((_, new)) = fields.iter().find(|(column, _)| **column == *"state") {
                    state.clone_from(new);
                }
                Answer::Applied { row: Box::new(self.row(sys_id)), warnings: Vec::new() }
            }
            InstanceRequest::Read { sys_id, .. } => Answer::Rows { rows: vec![self.row(sys_id)], journal: None },
            InstanceRequest::ReadMany { tickets, .. } => {
                let rows = tickets.iter().map(|(_, sys_id)| self.row(sys_id)).collect();
                Answer::Rows { rows, journal: None }
            }
            find @ InstanceRequest::Find { .. } => panic!("{find:?}"),
        }
    }

    fn step(&mut self, permits: usize) {
        self.h.now.mono += 1;
        self.h.now.unix += 1;
        let now = self.h.now.mono;
        if now.is_multiple_of(1_000) {
            self.apply(Event::Polled { at: now });
            let effects = self.h.grant_lease();
            self.perform(effects);
        }
        while let Some((_, produce_id)) = self.acks.first().copied().filter(|(at, _)| *at <= now) {
            self.acks.pop_first();
            self.apply(Event::ProduceCompleted { produce_id, outcome: ProduceOutcome::Acked });
        }
        while let Some(entry) = self.answers.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, id), body) = entry.remove_entry();
            let answer = self.answer(&body);
            let effects = self.h.complete(id, answer);
            self.perform(effects);
        }
        self.apply(Event::AvailablePermits { permits: permits - self.answers.len() });
        while self.answers.len() < permits && self.h.dispatcher.wants_permit(self.h.now) {
            self.apply(Event::PermitGranted { without: HttpMethodSet::NONE });
        }
    }
}

/// Runs a minute of changes of `keys` tickets, three times as many as the permits allow.
fn run(permits: usize, keys: i64) -> Counts {
    let mut h = Harness::new();
    h.grant_lease();
    let mut instance = SlowInstance {
        h,
        answers: BTreeMap::new(),
        acks: BTreeSet::new(),
        versions: FastMap::default(),
        counts: Counts::default(),
    };
    let (mut due, mut offset) = (0, 0);
    let mut rng = fastrand::Rng::with_seed(7);
    for ms in 0..75_000_u64 {
        // Counted in events times the latency.
        due += 3 * permits;
        while due >= LATENCY {
            due -= LATENCY;
            let key = if offset < keys { offset } else { rng.i64(0..keys) };
            // Alerts of four severities that open and resolve again, so that many lanes overtake others.
            let action = match rng.u32(0..10) {
                _ if offset < keys => Action::Open,
                0 => Action::Resolve,
                1 => Action::Open,
                _ => Action::Update,
            };
            let mut intent = instance.h.intent(offset, action, &offset.to_string());
            intent.key = format!("k{key}").into();
            intent.priority = u8::try_from(key % 4).unwrap_or(3) + 1;
            (intent.occurred_at, intent.order) = (instance.h.now.unix, EventOrder::of_place(intent.position));
            let content = RecordContent::Intents(vec![intent]);
            let effects = instance.h.receive_content(RecordOrigin::Source, offset, content);
            instance.perform(effects);
            offset += 1;
        }
        if ms == 15_000 {
            instance.counts = Counts::default();
        }
        instance.step(permits);
    }
    instance.counts
}

#[test]
fn looks_at_rows_cost_few_of_the_permits_of_a_slow_instance() {
    for permits in [4, 16, 64] {
        let counts = run(permits, 1_000);
        let possible = permits * 60_000 / LATENCY;
        assert!(100 * counts.writes >= 98 * possible, "{permits} permits: {} of {possible}", counts.writes);
        assert!(counts.writes >= 60 * counts.looks, "{permits} permits: {} looks", counts.looks);
    }
}
