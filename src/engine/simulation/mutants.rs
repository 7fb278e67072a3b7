//! Each rule of the protocol is needed: without it some history breaks a guarantee. Every test switches off one rule,
//! in the engine or in its driver, and must see a violation within 20,000 histories.

use std::sync::Arc;

use super::super::mutation::Mutation;
use super::injection::{Injection, InjectionPoint, Target, WriteOutcome};
use super::run;
use super::scenario::{DriverMutation, PlannedInjection, Scenario};

const HISTORIES: u64 = 20_000;
const CONTROL: u64 = 200;

fn must_break(name: &str, scenario: Scenario) {
    // The same scenario with all rules in force must pass.
    let control = Scenario { mutation: None, driver: None, ..scenario.clone() };
    let result = run(1, CONTROL, &Arc::new(control), true);
    assert!(result.violations.is_empty(), "a violation with all rules in force: {:?}", result.violations.first());
    let result = run(1, HISTORIES, &Arc::new(scenario), true);
    let first = result.violations.first();
    println!("{name}: after {} histories: {first:?}", result.coverage.histories);
    assert!(first.is_some(), "no violation without {name} in {HISTORIES} histories");
}

fn without(mutation: Mutation, always: Vec<PlannedInjection>) {
    must_break(&format!("{mutation:?}"), Scenario { mutation: Some(mutation), always, ..Scenario::default() });
}

fn driver_without(mutation: DriverMutation, always: Vec<PlannedInjection>) {
    must_break(&format!("{mutation:?}"), Scenario { driver: Some(mutation), always, ..Scenario::default() });
}

#[test]
fn claim() {
    without(Mutation::NoClaim, vec![]);
}

#[test]
fn lease() {
    without(Mutation::NoLease, vec![]);
}

#[test]
fn lease_limit_by_the_last_poll() {
    without(
        Mutation::NoPollBound,
        vec![PlannedInjection::OnRandom(
            InjectionPoint::RecordReceived,
            Injection::StallPoller { target: Target::Triggering, length: 60_000 },
        )],
    );
}

#[test]
fn lease_from_the_time_of_sending() {
    let freeze = Injection::Freeze { target: Target::Triggering, length: 40_000 };
    driver_without(
        DriverMutation::LeaseFromAnswer,
        vec![PlannedInjection::OnRandom(InjectionPoint::CommitAccepted, freeze)],
    );
}

#[test]
fn epoch_check() {
    let freeze = Injection::Freeze { target: Target::Triggering, length: 25_000 };
    must_break(
        "epoch check",
        Scenario {
            mutation: Some(Mutation::NoEpochCheck),
            driver: Some(DriverMutation::NoEpochCheck),
            faults: 0,
            slow_channel: 900,
            slow_commits: 0,
            slow_permits: 1_000,
            always: vec![
                PlannedInjection::OnRandom(InjectionPoint::RecordReceived, freeze),
                PlannedInjection::OnNth(
                    InjectionPoint::MemberResumed,
                    1,
                    Injection::DelayCommit { target: Target::Triggering, length: 900 },
                ),
            ],
            ..Scenario::default()
        },
    );
}

/// A request waits in the driver, for example for an access token, while a ledger write of unknown outcome makes the
/// owner take a new token: the span of its claim passes before it is sent.
#[test]
fn load_generation_check() {
    must_break(
        "load generation check",
        Scenario {
            driver: Some(DriverMutation::NoLoadGenerationCheck),
            unknown_produces: (1_000, 60),
            slow_driver: 200,
            user_edits: 0,
            ..Scenario::default()
        },
    );
}

#[test]
fn tokens_in_keys() {
    driver_without(DriverMutation::TokenlessKeys, vec![]);
}

#[test]
fn max_transaction_time() {
    without(Mutation::NoSpanWait, vec![]);
}

#[test]
fn waiting_while_ambiguous() {
    without(Mutation::NoWaitWhileAmbiguous, vec![]);
}

/// A commit of the first seconds is sent after the tickets of that time were forgotten, and the owner dies before it
/// can correct the offset.
#[test]
fn mark() {
    let delay_commit = |member| Injection::DelayCommit { target: Target::Member(member), length: 1_340_000 };
    must_break(
        "mark",
        Scenario {
            mutation: Some(Mutation::NoMark),
            partitions: Some(1),
            faults: 0,
            user_edits: 0,
            pauses: 1_000,
            always: vec![
                PlannedInjection::At(3_000, delay_commit(0)),
                PlannedInjection::At(3_000, delay_commit(1)),
                PlannedInjection::OnNth(
                    InjectionPoint::OffsetSetBack,
                    1,
                    Injection::Crash { target: Target::Owner, down: 1_000 },
                ),
            ],
            ..Scenario::default()
        },
    );
}

#[test]
fn position_check() {
    without(Mutation::NoPositionCheck, vec![]);
}

#[test]
fn known_sys_ids() {
    without(Mutation::NoKnownSysIds, vec![]);
}

#[test]
fn note_markers() {
    without(Mutation::NoNoteMarkers, vec![]);
}

#[test]
fn resync_check() {
    must_break(
        "resync check",
        Scenario {
            mutation: Some(Mutation::NoResyncCheck),
            resyncs: 1_000,
            whole_seconds: 1_000,
            user_edits: 0,
            ..Scenario::default()
        },
    );
}

fn with_users(mutation: Mutation) {
    let scenario = Scenario { mutation: Some(mutation), user_edits: 1_000, slow_permits: 0, ..Scenario::default() };
    must_break(&format!("{mutation:?}"), scenario);
}

#[test]
fn row_age_limit() {
    with_users(Mutation::NoRowAgeLimit);
}

#[test]
fn look_before_nothing_is_done() {
    with_users(Mutation::NoLookBeforeNothing);
}

#[test]
fn look_before_expiry() {
    must_break(
        "look before expiry",
        Scenario {
            mutation: Some(Mutation::NoLookBeforeExpiry),
            user_edits: 1_000,
            pauses: 1_000,
            slow_permits: 0,
            ..Scenario::default()
        },
    );
}

#[test]
fn firings() {
    with_users(Mutation::NoFirings);
}

#[test]
fn kept_values() {
    with_users(Mutation::NoKeptValues);
}

#[test]
fn conclusive_only_after_the_span() {
    without(
        Mutation::VerifyAtSpanEnd,
        vec![PlannedInjection::At(1, Injection::WriteOutcomes(vec![WriteOutcome::Ghost(u64::MAX); 6]))],
    );
}
