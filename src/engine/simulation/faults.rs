//! What strikes: crashes, freezes, stalls, cut links, a restless coordinator, an instance in trouble, and people.

use super::super::Event;
use super::alerts::{COLUMNS, column};
use super::instance::Value;
use super::member::Input;
use super::script::{Deed, Directive, Moment, Who};
use super::world::{Handed, Happening, World, tell};
use crate::model::Phase;

impl World {
    /// Does it. `here` is the member at which the moment came.
    pub(super) fn strike(&mut self, what: &Directive, here: Option<usize>) {
        tell!(self, "*** {what:?}");
        let who = |world: &World, member: Who| match member {
            Who::Is(member) => member,
            Who::Owner => world.group.owner(0).unwrap_or(0),
            Who::Here => here.or_else(|| world.group.owner(0)).unwrap_or(0),
        };
        match what {
            Directive::Crash { member, down } => {
                let member = who(self, *member);
                self.coverage.crashes += 1;
                self.crash(member, *down);
            }
            Directive::Freeze { member, length } => {
                let member = who(self, *member);
                self.freeze(member, *length);
            }
            Directive::Stall { member, length } => {
                let member = who(self, *member);
                self.stall(member, *length);
            }
            Directive::Cut { member, length } => {
                let member = who(self, *member);
                self.coverage.cuts += 1;
                let until = self.now + length;
                self.members[member].cut_until = until;
                self.update_reach(member);
                self.queue.push(until, Happening::LinkUp { member });
            }
            Directive::Rebalance => self.rebalance(None),
            Directive::GiveTo(member) => self.rebalance(Some(*member)),
            Directive::Terminate { member, drain, down } => {
                let member = who(self, *member);
                self.terminate(member, *drain, *down);
            }
            Directive::Compact => self.compact(),
            Directive::Outage(length) => self.odds.outage_until = self.now + length,
            Directive::Throttle(length) => self.odds.throttle_until = self.now + length,
            Directive::Lockout(length) => self.odds.lockout_until = self.now + length,
            Directive::HoldPermits(length) => self.odds.permits_from = self.now + length,
            Directive::Person(key, deed) => self.person(*key, *deed),
            Directive::Redrive(key) => self.redrive(*key),
            Directive::Resync(key) => self.resync(*key),
            Directive::Plan(fates) => self.plan.extend(fates.iter().copied()),
            Directive::PlanProduce(moment, landing) => self.produce_plan.push((*moment, *landing)),
            Directive::HoldCommit { member, length } => {
                let member = who(self, *member);
                self.members[member].hold_commit = Some(*length);
            }
        }
    }

    pub(super) fn compact(&mut self) {
        self.coverage.compactions += 1;
        let retention = if self.rng.bool() { 0 } else { 60_000 };
        for log in &mut self.logs {
            log.compact(self.now, retention);
        }
    }

    fn crash(&mut self, member: usize, down: u64) {
        if !self.members[member].alive() {
            return;
        }
        self.catch_unsent(member, true);
        self.catch_unlanded(member, true, 0);
        self.members[member].die();
        self.update_reach_of_dead(member);
        self.queue.push(self.now + down, Happening::Restart { member });
    }

    fn update_reach_of_dead(&mut self, member: usize) {
        let session = self.settings.session_timeout;
        let life = self.members[member].life - 1;
        self.members[member].reachable = false;
        self.members[member].reach += 1;
        let reach = self.members[member].reach;
        let at = self.now + self.rng.u64(session * 2 / 3..=session);
        self.queue.push(at, Happening::SessionOver { member, life, reach });
    }

    fn freeze(&mut self, member: usize, length: u64) {
        if !self.members[member].alive() || self.members[member].frozen() {
            return;
        }
        self.coverage.freezes += 1;
        self.catch_unsent(member, false);
        self.catch_unlanded(member, false, self.now + length);
        self.members[member].frozen_until = Some(self.now + length);
        self.update_reach(member);
        let life = self.members[member].life;
        self.queue.push(self.now + length, Happening::Thaw { member, life });
    }

    /// Ledger produces that were handed over and have not left the process: they die with it, or land after the freeze.
    fn catch_unlanded(&mut self, member: usize, dies: bool, until: u64) {
        let life = self.members[member].life;
        let mut lands = until;
        // The producer keeps the order: behind what is stuck everything of its partition is.
        let mut stuck = [false; 2];
        for number in 0..self.produces.len() {
            let produce = &self.produces[number];
            let open = produce.member == member && produce.life == life && !produce.landed && !produce.told;
            let partition = produce.partition;
            if !open || (!stuck[partition] && self.rng.u32(0..3) == 0) {
                continue;
            }
            stuck[partition] = true;
            if dies {
                self.produces[number].landed = true;
                continue;
            }
            // What was to land is put off: the old place on the agenda finds it landed already.
            let what = std::mem::replace(&mut self.produces[number].what, Handed::Letter(None));
            let produce = &mut self.produces[number];
            produce.landed = true;
            let again = super::world::Produce {
                member,
                life,
                partition: produce.partition,
                handed: produce.handed,
                op: produce.op,
                what,
                landed: false,
                told: false,
                moment: produce.moment,
            };
            lands += self.rng.u64(1..15);
            let partition = again.partition;
            self.members[member].parts[partition].lands = self.members[member].parts[partition].lands.max(lands);
            self.coverage.late_produces += 1;
            self.produces.push(again);
            let number = u32::try_from(self.produces.len() - 1).unwrap_or(u32::MAX);
            self.queue.push(lands, Happening::Land(number));
        }
    }

    pub(super) fn thaw(&mut self, member: usize, life: u32) {
        let state = &mut self.members[member];
        if state.life != life || state.frozen_until.is_none_or(|until| until > self.now) {
            return;
        }
        tell!(self, "member {member} thaws");
        state.frozen_until = None;
        state.thawed_at = self.now;
        self.moment(Moment::Thawed, member);
        let state = &mut self.members[member];
        let held = std::mem::take(&mut state.held);
        // What waited comes before what is still on its way.
        state.channel = state.channel.max(self.now);
        self.update_reach(member);
        for input in held {
            match input {
                Input::Channel(_) | Input::Record { .. } => self.send(member, 0, input),
                input => {
                    let delay = self.rng.u64(0..60);
                    self.send(member, delay, input);
                }
            }
        }
        self.perform(member);
    }

    fn stall(&mut self, member: usize, length: u64) {
        let state = &mut self.members[member];
        if !state.alive() {
            return;
        }
        state.stalled_until = self.now + length;
        self.coverage.stalls += 1;
        let (life, over) = (state.life, state.last_poll + self.settings.max_poll_interval);
        self.queue.push(over.max(self.now), Happening::PollOver { member, life });
    }

    fn terminate(&mut self, member: usize, drain: u64, down: u64) {
        if !self.members[member].alive() || self.members[member].frozen() {
            return;
        }
        self.members[member].ending = true;
        let life = self.members[member].life;
        self.queue.push(self.now + drain, Happening::Exit { member, life, down });
        // The signal reaches the loop between two steps.
        self.send(member, 1, Input::Loop(Event::Drain));
    }

    /// The process ends by itself: it leaves the group first.
    pub(super) fn exit(&mut self, member: usize, down: u64) {
        let life = self.members[member].life;
        self.expel(member, life, "it leaves");
        self.crash(member, down);
    }

    /// No more faults; everything that was struck comes back.
    pub(super) fn calm_down(&mut self) {
        tell!(self, "calm");
        self.calm = true;
        self.odds.unknown = 0;
        self.odds.bad_writes = 0;
        self.odds.slow_commits = false;
        self.odds.permit = self.odds.permit.min(50);
        self.odds.outage_until = 0;
        self.odds.throttle_until = 0;
        self.odds.lockout_until = 0;
        self.odds.permits_from = 0;
        self.plan.clear();
        self.produce_plan.clear();
        for member in 0..2 {
            self.members[member].stalled_until = 0;
            self.members[member].cut_until = 0;
            self.members[member].hold_commit = None;
            let life = self.members[member].life;
            if self.members[member].frozen() {
                self.members[member].frozen_until = Some(self.now);
                self.queue.push(self.now, Happening::Thaw { member, life });
            } else if !self.members[member].alive() {
                self.queue.push(self.now + 10, Happening::Restart { member });
            }
            self.update_reach(member);
        }
    }

    pub(super) fn draw_deed(&mut self) -> Deed {
        match self.rng.u32(0..20) {
            0..8 => Deed::Edit,
            8..11 => Deed::Note,
            11..13 => Deed::Work,
            13..16 => Deed::Resolve,
            16..18 => Deed::Close,
            18 => Deed::Cancel,
            _ => Deed::Delete,
        }
    }

    /// A person does something to the newest ticket of a key.
    fn person(&mut self, key: usize, deed: Deed) {
        let (now, date) = (self.now, self.date());
        let value = format!("p{}", self.rng.u32(0..3));
        let name = COLUMNS[self.rng.usize(0..COLUMNS.len())];
        let Some(at) = self.instance.tickets.iter().rposition(|t| t.key == key && !t.deleted) else { return };
        let phase = self.instance.phase(&self.instance.tickets[at]);
        let ticket = &mut self.instance.tickets[at];
        // Between a write and the sight of what came of it nobody can tell whose value it is.
        self.raced[key] |= ticket.unseen;
        let state = match deed {
            Deed::Edit if phase.is_open() => {
                let text = value.clone();
                match ticket.values.iter_mut().find(|v| *v.column == *name) {
                    Some(held) => (held.text, held.person) = (text, Some(now)),
                    None => ticket.values.push(Value { column: column(name), text, person: Some(now) }),
                }
                ticket.touched = true;
                None
            }
            Deed::Note => None,
            Deed::Work if phase == Phase::New => Some("2"),
            Deed::Resolve if phase.is_open() => Some("6"),
            Deed::Close if phase != Phase::Closed => Some("7"),
            Deed::Cancel if phase.is_open() => Some("8"),
            Deed::Delete => {
                ticket.deleted = true;
                ticket.person_at = now;
                self.handled[key] = true;
                self.coverage.deleted_rows += 1;
                return;
            }
            _ => return,
        };
        self.coverage.person_edits += 1;
        if let Some(state) = state {
            ticket.state = state.into();
            self.handled[key] = true;
            self.coverage.person_closes += u64::from(state != "2");
        }
        ticket.mod_count += 1;
        ticket.by_person = true;
        ticket.updated_on = date;
        ticket.person_at = now;
        tell!(self, "person: {deed:?} {} {name}={value}", self.instance.tickets[at].number);
    }
}
