//! The traces that broke earlier versions of the protocol, each as a family of histories: the trace's fault happens
//! at its point in every history, and the rest is drawn. Every history must keep the guarantees, and the trace must
//! really have happened. If a switch can leave out the rule that prevents the trace, a run without the rule must
//! break a guarantee. The numbers are those of the list in docs/PROTOCOL.md.

use std::sync::Arc;

use super::super::Settings;
use super::super::mutation::Mutation;
use super::coverage::Coverage;
use super::injection::{Injection, InjectionPoint, ProduceFault, Target, WriteOutcome};
use super::scenario::{DriverMutation, PlannedInjection, Scenario};
use super::{print_history, run};

const HISTORIES: u64 = 250;
const BROKEN_WITHIN: u64 = 20_000;

/// The rule that prevents the trace.
enum Rule {
    Engine(Mutation),
    Driver(DriverMutation),
    /// No switch leaves it out.
    None,
}

fn trace(scenario: Scenario, happened: fn(&Coverage) -> u64, rule: Rule) {
    let shared = Arc::new(scenario.clone());
    let result = run(1, HISTORIES, &shared, false);
    if let Some((seed, _)) = result.violations.first() {
        print_history(*seed, &shared);
    }
    assert!(result.violations.is_empty(), "{:?}", result.violations.first());
    let count = happened(&result.coverage);
    assert!(count > 0, "the trace did not happen in {HISTORIES} histories:\n{}", result.coverage);
    let mutated = match rule {
        Rule::Engine(mutation) => Scenario { mutation: Some(mutation), ..scenario },
        Rule::Driver(mutation) => Scenario { driver: Some(mutation), ..scenario },
        Rule::None => return,
    };
    let broken = run(1, BROKEN_WITHIN, &Arc::new(mutated), true);
    assert!(!broken.violations.is_empty(), "no violation without the rule");
}

/// A scenario with ghost writes and lost responses in every history, and no other faults than those of the trace.
fn with_ambiguous_writes(always: Vec<PlannedInjection>) -> Scenario {
    Scenario {
        faults: 0,
        bad_writes: (1000, 200),
        ghosts: 800,
        unknown_produces: (0, 0),
        user_edits: 0,
        rejects: 0,
        resyncs: 0,
        whole_seconds: 0,
        pauses: 0,
        always,
        ..Scenario::default()
    }
}

fn crash(point: InjectionPoint) -> PlannedInjection {
    PlannedInjection::OnRandom(point, Injection::Crash { target: Target::Triggering, down: 500 })
}

fn freeze(point: InjectionPoint, length: u64) -> PlannedInjection {
    PlannedInjection::OnRandom(point, Injection::Freeze { target: Target::Triggering, length })
}

#[test]
fn t01_a_long_wait_for_a_permit_before_the_send() {
    let delay = PlannedInjection::OnRandom(InjectionPoint::ClaimAcked, Injection::DelayPermits(45_000));
    let plan = PlannedInjection::At(1, Injection::WriteOutcomes(vec![WriteOutcome::Ghost(u64::MAX); 8]));
    trace(with_ambiguous_writes(vec![delay, plan]), |c| c.ghosts, Rule::Engine(Mutation::NoSpanWait));
}

#[test]
fn t02_a_newer_write_applied_then_a_crash_then_the_ghost_write() {
    trace(
        with_ambiguous_writes(vec![crash(InjectionPoint::WriteCommitted)]),
        |c| c.ghosts,
        Rule::Engine(Mutation::NoWaitWhileAmbiguous),
    );
}

#[test]
fn t03_the_next_record_equals_the_value_before_the_ambiguous_write() {
    trace(with_ambiguous_writes(vec![]), |c| c.unchanged.min(c.ghosts), Rule::Engine(Mutation::NoWaitWhileAmbiguous));
}

#[test]
fn t04_refolded_with_a_note_and_revoked_before_the_entry() {
    let revoke = PlannedInjection::OnRandom(InjectionPoint::WriteCommitted, Injection::Rebalance);
    trace(
        with_ambiguous_writes(vec![revoke]),
        |c| c.revoked.min(c.ghosts),
        Rule::Engine(Mutation::NoWaitWhileAmbiguous),
    );
}

#[test]
fn t05_the_poller_stuck_while_commits_succeed() {
    let stall = PlannedInjection::OnRandom(
        InjectionPoint::RecordReceived,
        Injection::StallPoller { target: Target::Triggering, length: 70_000 },
    );
    trace(with_ambiguous_writes(vec![stall]), |c| c.two_owners, Rule::Engine(Mutation::NoPollBound));
}

#[test]
fn t06_a_new_tickets_create_times_out_beside_the_resolved_one() {
    let short: fn(&mut Settings) = |s| s.reopen_window = 200;
    let scenario = Scenario { tune: Some(short), ..with_ambiguous_writes(vec![]) };
    trace(scenario, |c| c.second_tickets, Rule::Engine(Mutation::NoKnownSysIds));
}

#[test]
fn t07_a_late_claim_with_more_positions() {
    let late = freeze(InjectionPoint::ClaimEnqueued, 30_000);
    trace(with_ambiguous_writes(vec![late]), |c| c.late_produces, Rule::Driver(DriverMutation::TokenlessKeys));
}

/// A commit of the first seconds is sent after the tickets of that time were forgotten, and the owner dies.
fn offset_set_back() -> Scenario {
    let delay_commit = |member| Injection::DelayCommit { target: Target::Member(member), length: 1_340_000 };
    let always = vec![
        PlannedInjection::At(3_000, delay_commit(0)),
        PlannedInjection::At(3_000, delay_commit(1)),
        PlannedInjection::OnNth(
            InjectionPoint::OffsetSetBack,
            1,
            Injection::Crash { target: Target::Owner, down: 1_000 },
        ),
    ];
    Scenario { partitions: Some(1), pauses: 1000, bad_writes: (0, 0), ..with_ambiguous_writes(always) }
}

#[test]
fn t08_forgotten_then_a_stray_commit_sets_the_offset_back() {
    trace(offset_set_back(), |c| c.offset_went_back.min(c.expired), Rule::Engine(Mutation::NoMark));
}

#[test]
fn t09_frozen_between_the_producer_and_the_socket() {
    let late = freeze(InjectionPoint::EntryEnqueued, 30_000);
    trace(with_ambiguous_writes(vec![late]), |c| c.late_produces, Rule::Driver(DriverMutation::TokenlessKeys));
}

#[test]
fn t10_a_claim_whose_position_is_not_above_the_entrys() {
    let split: fn(&mut Settings) = |s| s.note_limit = 5;
    let scenario = Scenario { tune: Some(split), ..with_ambiguous_writes(vec![crash(InjectionPoint::WriteCommitted)]) };
    trace(scenario, |c| c.claims_loaded.min(c.notes), Rule::None);
}

#[test]
fn t11_two_notes_with_the_same_text() {
    trace(with_ambiguous_writes(vec![]), |c| c.notes.min(c.found), Rule::Engine(Mutation::NoNoteMarkers));
}

#[test]
fn t12_folded_before_the_ambiguous_write_of_a_note_is_settled() {
    let scenario =
        with_ambiguous_writes(vec![crash(InjectionPoint::WriteCommitted), crash(InjectionPoint::EntryEnqueued)]);
    trace(scenario, |c| c.claims_loaded, Rule::Engine(Mutation::NoWaitWhileAmbiguous));
}

#[test]
fn t13_a_unique_key_rejects_a_write_that_was_applied() {
    let plan = PlannedInjection::At(1, Injection::WriteOutcomes(vec![WriteOutcome::AppliedConflictReturned; 5]));
    trace(with_ambiguous_writes(vec![plan]), |c| c.found, Rule::None);
}

#[test]
fn t14_not_found_counts_after_the_span_not_at_its_end() {
    let plan = PlannedInjection::At(1, Injection::WriteOutcomes(vec![WriteOutcome::Ghost(u64::MAX); 8]));
    trace(with_ambiguous_writes(vec![plan]), |c| c.ghosts, Rule::Engine(Mutation::VerifyAtSpanEnd));
}

#[test]
fn t15_a_short_freeze_between_check_and_send() {
    let plan = PlannedInjection::At(1, Injection::WriteOutcomes(vec![WriteOutcome::Ghost(u64::MAX); 8]));
    let always = vec![freeze(InjectionPoint::CheckPassed, 2_500), freeze(InjectionPoint::CheckPassed, 4_000), plan];
    trace(with_ambiguous_writes(always), |c| c.frozen_between_check_and_send, Rule::Engine(Mutation::NoSpanWait));
}

#[test]
fn t16_known_tickets_forgotten_then_a_create_times_out() {
    let scenario = Scenario { pauses: 1000, ..with_ambiguous_writes(vec![]) };
    trace(scenario, |c| c.expired.min(c.second_tickets), Rule::Engine(Mutation::NoKnownSysIds));
}

#[test]
fn t17_a_claim_that_timed_out_lands_on_a_newer_one() {
    let late = Injection::ProduceFault(InjectionPoint::ClaimEnqueued, ProduceFault::Late(1_000));
    let always = vec![
        PlannedInjection::OnRandom(InjectionPoint::RecordReceived, late.clone()),
        PlannedInjection::OnRandom(InjectionPoint::RecordReceived, late),
        crash(InjectionPoint::WriteCommitted),
        crash(InjectionPoint::EntryEnqueued),
    ];
    trace(
        with_ambiguous_writes(always),
        |c| c.tokens_renewed.min(c.crashes),
        Rule::Driver(DriverMutation::TokenlessKeys),
    );
}

#[test]
fn t18_a_lower_claim_that_was_never_sent_counts_again_after_the_owners_tombstone() {
    let always = vec![freeze(InjectionPoint::ClaimEnqueued, 25_000), crash(InjectionPoint::TombstoneEnqueued)];
    trace(with_ambiguous_writes(always), |c| c.stale_loaded.min(c.late_produces), Rule::None);
}

#[test]
fn t19_a_low_start_writes_no_low_mark() {
    let mut scenario = offset_set_back();
    scenario.always.push(PlannedInjection::OnNth(InjectionPoint::LedgerRead, 3, Injection::Rebalance));
    scenario.always.push(PlannedInjection::OnNth(
        InjectionPoint::LedgerRead,
        4,
        Injection::Crash { target: Target::Triggering, down: 500 },
    ));
    trace(scenario, |c| c.offset_went_back.min(c.expired), Rule::Engine(Mutation::NoMark));
}

#[test]
fn t20_a_frozen_members_old_mark_lands_after_the_expiry() {
    let freeze = PlannedInjection::OnNth(
        InjectionPoint::MarkEnqueued,
        3,
        Injection::Freeze { target: Target::Triggering, length: 1_330_000 },
    );
    let scenario = Scenario { pauses: 1000, bad_writes: (0, 0), ..with_ambiguous_writes(vec![freeze]) };
    trace(scenario, |c| c.freezes.min(c.expired), Rule::None);
}
