//! The traces that broke the first version of the protocol, each as a family of histories bent towards it: the fault
//! strikes at its moment in every one of them, and the rest is drawn. Each family must keep every promise, what the
//! trace is about must really have happened in it, and where leaving out one rule brings the old break back, that is
//! shown too. The numbers are those of the protocol's list.

use std::sync::Arc;

use super::super::Settings;
use super::super::mutation::Mutation;
use super::coverage::Coverage;
use super::scenario::{DriverMutation, Fault, Scenario};
use super::script::{Directive, Fate, Landing, Moment, Who};
use super::{run, tell_story};

const HISTORIES: u64 = 250;
const BROKEN_WITHIN: u64 = 20_000;

/// The rule without which the trace breaks.
enum Rule {
    Engine(Mutation),
    Driver(DriverMutation),
    /// No switch takes it out.
    None,
}

fn trace(scenario: Scenario, happened: fn(&Coverage) -> u64, rule: Rule) {
    let shared = Arc::new(scenario.clone());
    let findings = run(1, HISTORIES, &shared, false);
    if let Some((seed, _)) = findings.violations.first() {
        tell_story(*seed, &shared);
    }
    assert!(findings.violations.is_empty(), "{:?}", findings.violations.first());
    let count = happened(&findings.coverage);
    assert!(count > 0, "it did not happen in {HISTORIES} histories:\n{}", findings.coverage);
    let mutated = match rule {
        Rule::Engine(mutation) => Scenario { mutation: Some(mutation), ..scenario },
        Rule::Driver(mutation) => Scenario { driver: Some(mutation), ..scenario },
        Rule::None => return,
    };
    let broken = run(1, BROKEN_WITHIN, &Arc::new(mutated), true);
    assert!(!broken.violations.is_empty(), "it does not break without its rule");
}

/// Ghosts and lost answers in every history, nothing else that the trace does not name.
fn doubtful(always: Vec<Fault>) -> Scenario {
    Scenario {
        faults: 0,
        bad_writes: (1000, 200),
        ghosts: 800,
        unknown: (0, 0),
        people: 0,
        rejects: 0,
        resyncs: 0,
        coarse: 0,
        pauses: 0,
        always,
        ..Scenario::default()
    }
}

fn crash(moment: Moment) -> Fault {
    Fault::Sometime(moment, Directive::Crash { member: Who::Here, down: 500 })
}

fn freeze(moment: Moment, length: u64) -> Fault {
    Fault::Sometime(moment, Directive::Freeze { member: Who::Here, length })
}

#[test]
fn t01_a_long_wait_for_a_permit_before_the_send() {
    let hold = Fault::Sometime(Moment::ClaimAcked, Directive::HoldPermits(45_000));
    let plan = Fault::At(1, Directive::Plan(vec![Fate::Ghost(u64::MAX); 8]));
    trace(doubtful(vec![hold, plan]), |c| c.ghosts, Rule::Engine(Mutation::NoSettleTime));
}

#[test]
fn t02_a_newer_write_applied_then_a_crash_then_the_ghost() {
    trace(doubtful(vec![crash(Moment::WriteCommitted)]), |c| c.ghosts, Rule::Engine(Mutation::NoWaitInDoubt));
}

#[test]
fn t03_the_next_record_equals_what_stood_before_the_doubt() {
    trace(doubtful(vec![]), |c| c.unchanged.min(c.ghosts), Rule::Engine(Mutation::NoWaitInDoubt));
}

#[test]
fn t04_refolded_with_a_note_and_revoked_before_the_entry() {
    let revoke = Fault::Sometime(Moment::WriteCommitted, Directive::Rebalance);
    trace(doubtful(vec![revoke]), |c| c.revoked.min(c.ghosts), Rule::Engine(Mutation::NoWaitInDoubt));
}

#[test]
fn t05_the_poller_stuck_while_commits_succeed() {
    let stall = Fault::Sometime(Moment::Received, Directive::Stall { member: Who::Here, length: 70_000 });
    trace(doubtful(vec![stall]), |c| c.two_owners, Rule::Engine(Mutation::NoPollBound));
}

#[test]
fn t06_a_new_tickets_create_times_out_beside_the_resolved_one() {
    let short: fn(&mut Settings) = |s| s.reopen_window = 200;
    let scenario = Scenario { tune: Some(short), ..doubtful(vec![]) };
    trace(scenario, |c| c.second_tickets, Rule::Engine(Mutation::NoKnownSysIds));
}

#[test]
fn t07_a_late_claim_with_more_positions() {
    let late = freeze(Moment::ClaimHanded, 30_000);
    trace(doubtful(vec![late]), |c| c.late_produces, Rule::Driver(DriverMutation::TokenlessKeys));
}

/// A commit of the first seconds leaves after what was done then has been forgotten, and the owner dies.
fn offset_set_back() -> Scenario {
    let held = |member| Directive::HoldCommit { member: Who::Is(member), length: 1_340_000 };
    let always = vec![
        Fault::At(3_000, held(0)),
        Fault::At(3_000, held(1)),
        Fault::When(Moment::WentBack, 1, Directive::Crash { member: Who::Owner, down: 1_000 }),
    ];
    Scenario { partitions: Some(1), pauses: 1000, bad_writes: (0, 0), ..doubtful(always) }
}

#[test]
fn t08_forgotten_then_a_stray_commit_sets_the_offset_back() {
    trace(offset_set_back(), |c| c.offset_went_back.min(c.expired), Rule::Engine(Mutation::NoMark));
}

#[test]
fn t09_frozen_between_the_producer_and_the_socket() {
    let late = freeze(Moment::EntryHanded, 30_000);
    trace(doubtful(vec![late]), |c| c.late_produces, Rule::Driver(DriverMutation::TokenlessKeys));
}

#[test]
fn t10_a_claim_whose_position_is_not_above_the_entrys() {
    let split: fn(&mut Settings) = |s| s.note_limit = 5;
    let scenario = Scenario { tune: Some(split), ..doubtful(vec![crash(Moment::WriteCommitted)]) };
    trace(scenario, |c| c.claims_loaded.min(c.notes), Rule::None);
}

#[test]
fn t11_two_notes_with_the_same_text() {
    trace(doubtful(vec![]), |c| c.notes.min(c.found), Rule::Engine(Mutation::NoNoteMarkers));
}

#[test]
fn t12_folded_before_a_notes_doubt_is_settled() {
    let scenario = doubtful(vec![crash(Moment::WriteCommitted), crash(Moment::EntryHanded)]);
    trace(scenario, |c| c.claims_loaded, Rule::Engine(Mutation::NoWaitInDoubt));
}

#[test]
fn t13_a_unique_key_refuses_what_was_written_already() {
    let plan = Fault::At(1, Directive::Plan(vec![Fate::ConflictAfter; 5]));
    trace(doubtful(vec![plan]), |c| c.found, Rule::None);
}

#[test]
fn t14_not_there_counts_after_the_span_not_at_its_end() {
    let plan = Fault::At(1, Directive::Plan(vec![Fate::Ghost(u64::MAX); 8]));
    trace(doubtful(vec![plan]), |c| c.ghosts, Rule::Engine(Mutation::LookAtSpanEnd));
}

#[test]
fn t15_a_short_freeze_between_check_and_send() {
    let plan = Fault::At(1, Directive::Plan(vec![Fate::Ghost(u64::MAX); 8]));
    let always = vec![freeze(Moment::CheckPassed, 2_500), freeze(Moment::CheckPassed, 4_000), plan];
    trace(doubtful(always), |c| c.frozen_between_check_and_send, Rule::Engine(Mutation::NoSettleTime));
}

#[test]
fn t16_known_tickets_forgotten_then_a_create_times_out() {
    let scenario = Scenario { pauses: 1000, ..doubtful(vec![]) };
    trace(scenario, |c| c.expired.min(c.second_tickets), Rule::Engine(Mutation::NoKnownSysIds));
}

#[test]
fn t17_a_claim_that_timed_out_lands_on_a_newer_one() {
    let late = Directive::PlanProduce(Moment::ClaimHanded, Landing::Late(1_000));
    let always = vec![
        Fault::Sometime(Moment::Received, late.clone()),
        Fault::Sometime(Moment::Received, late),
        crash(Moment::WriteCommitted),
        crash(Moment::EntryHanded),
    ];
    trace(doubtful(always), |c| c.tokens_renewed.min(c.crashes), Rule::Driver(DriverMutation::TokenlessKeys));
}

#[test]
fn t18_a_lower_claim_never_sent_surfaces_behind_the_owners_tombstone() {
    let always = vec![freeze(Moment::ClaimHanded, 25_000), crash(Moment::TombstoneHanded)];
    trace(doubtful(always), |c| c.stale_loaded.min(c.late_produces), Rule::None);
}

#[test]
fn t19_a_low_start_writes_no_low_mark() {
    let mut scenario = offset_set_back();
    scenario.always.push(Fault::When(Moment::Loaded, 3, Directive::Rebalance));
    scenario.always.push(Fault::When(Moment::Loaded, 4, Directive::Crash { member: Who::Here, down: 500 }));
    trace(scenario, |c| c.offset_went_back.min(c.expired), Rule::Engine(Mutation::NoMark));
}

#[test]
fn t20_a_frozen_members_old_mark_lands_after_the_expiry() {
    let freeze = Fault::When(Moment::MarkHanded, 3, Directive::Freeze { member: Who::Here, length: 1_330_000 });
    let scenario = Scenario { pauses: 1000, bad_writes: (0, 0), ..doubtful(vec![freeze]) };
    trace(scenario, |c| c.freezes.min(c.expired), Rule::None);
}
