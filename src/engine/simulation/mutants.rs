//! Each rule of the protocol is needed: without it some history breaks a promise. Every test leaves one rule out, in
//! the engine or in its driver, and must see that within 20,000 histories.

use std::sync::Arc;

use super::super::mutation::Mutation;
use super::run;
use super::scenario::{DriverMutation, Fault, Scenario};
use super::script::{Directive, Fate, Moment, Who};

const HISTORIES: u64 = 20_000;
const CONTROL: u64 = 200;

fn must_break(name: &str, scenario: Scenario) {
    // The same odds with all rules in force: it is the missing rule that breaks.
    let whole = Scenario { mutation: None, driver: None, ..scenario.clone() };
    let held = run(1, CONTROL, &Arc::new(whole), true);
    assert!(held.violations.is_empty(), "all rules in force, and yet: {:?}", held.violations.first());
    let findings = run(1, HISTORIES, &Arc::new(scenario), true);
    let first = findings.violations.first();
    println!("{name}: after {} histories: {first:?}", findings.coverage.histories);
    assert!(first.is_some(), "without {name} {HISTORIES} histories keep every promise");
}

fn without(mutation: Mutation, always: Vec<Fault>) {
    must_break(&format!("{mutation:?}"), Scenario { mutation: Some(mutation), always, ..Scenario::default() });
}

fn driver_without(mutation: DriverMutation, always: Vec<Fault>) {
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
fn poll_bound_of_the_lease() {
    without(
        Mutation::NoPollBound,
        vec![Fault::Sometime(Moment::Received, Directive::Stall { member: Who::Here, length: 60_000 })],
    );
}

#[test]
fn lease_from_the_sending() {
    let freeze = Directive::Freeze { member: Who::Here, length: 40_000 };
    driver_without(DriverMutation::LeaseFromAnswer, vec![Fault::Sometime(Moment::CommitAccepted, freeze)]);
}

#[test]
fn epoch_check() {
    let freeze = Directive::Freeze { member: Who::Here, length: 25_000 };
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
                Fault::Sometime(Moment::Received, freeze),
                Fault::When(Moment::Thawed, 1, Directive::HoldCommit { member: Who::Here, length: 900 }),
            ],
            ..Scenario::default()
        },
    );
}

/// A request waits in the driver, for an access token say, while a ledger write of unknown outcome makes the owner take
/// a new token: its claim's time is over before it is sent.
#[test]
fn tenure_check() {
    must_break(
        "tenure check",
        Scenario {
            driver: Some(DriverMutation::NoTenureCheck),
            unknown: (1_000, 60),
            slow_driver: 200,
            people: 0,
            ..Scenario::default()
        },
    );
}

#[test]
fn tokens_in_keys() {
    driver_without(DriverMutation::TokenlessKeys, vec![]);
}

#[test]
fn settle_time() {
    without(Mutation::NoSettleTime, vec![]);
}

#[test]
fn waiting_while_in_doubt() {
    without(Mutation::NoWaitInDoubt, vec![]);
}

/// A commit of the first seconds leaves its member after the tickets of that time were forgotten, and the owner dies
/// before it can set the offset right.
#[test]
fn mark() {
    let held = |member| Directive::HoldCommit { member: Who::Is(member), length: 1_340_000 };
    must_break(
        "mark",
        Scenario {
            mutation: Some(Mutation::NoMark),
            partitions: Some(1),
            faults: 0,
            people: 0,
            pauses: 1_000,
            always: vec![
                Fault::At(3_000, held(0)),
                Fault::At(3_000, held(1)),
                Fault::When(Moment::WentBack, 1, Directive::Crash { member: Who::Owner, down: 1_000 }),
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
            coarse: 1_000,
            people: 0,
            ..Scenario::default()
        },
    );
}

#[test]
fn after_the_span_not_at_its_end() {
    without(Mutation::LookAtSpanEnd, vec![Fault::At(1, Directive::Plan(vec![Fate::Ghost(u64::MAX); 6]))]);
}
