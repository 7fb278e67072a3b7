//! Slots, and how the three bounds work together; each has tests of its own.

use super::concurrency::LoadSignal;
use super::rules::RuleHeaders;
use super::*;

fn settings(rate: u32, per: Duration, slots: usize) -> PaceSettings {
    PaceSettings { rate: NonZeroU32::new(rate), per, slots, ..PaceSettings::default() }
}

fn ask(class: RequestClass) -> PermitRequest<'static> {
    PermitRequest { table: "incident", method: HttpMethod::Patch, class }
}

fn take(pace: &Pace, now: u64) -> PermitDecision {
    pace.try_take(ask(RequestClass::Sink), now)
}

#[test]
fn slots_are_given_once_each_and_the_warm_one_first() {
    let pace = Pace::new(&settings(0, Duration::from_secs(1), 2));
    assert_eq!(take(&pace, 0), PermitDecision::Granted { slot: 0 });
    assert_eq!(take(&pace, 0), PermitDecision::Granted { slot: 1 });
    assert_eq!(take(&pace, 0), PermitDecision::Busy);
    pace.release(1);
    pace.release(1);
    pace.release(7);
    assert_eq!(pace.in_flight(), 1);
    assert_eq!(take(&pace, 0), PermitDecision::Granted { slot: 1 });
}

#[test]
fn a_busy_pace_spends_no_token() {
    let pace = Pace::new(&settings(2, Duration::from_secs(1), 1));
    assert_eq!(take(&pace, 5_000), PermitDecision::Granted { slot: 0 });
    for _ in 0..100 {
        assert_eq!(take(&pace, 6_000), PermitDecision::Busy);
    }
    pace.release(0);
    assert_eq!(take(&pace, 6_000), PermitDecision::Granted { slot: 0 });
    pace.release(0);
    assert_eq!(take(&pace, 6_000), PermitDecision::Wait(1_000));
}

#[test]
fn no_more_are_out_than_the_instance_bears() {
    let pace = Pace::new(&settings(0, Duration::from_secs(1), 16));
    let granted = (0..16).filter(|_| matches!(take(&pace, 0), PermitDecision::Granted { .. })).count();
    assert_eq!((granted, pace.room(0)), (4, 0));
    let quick = LoadFeedback {
        requests: 1,
        sign: Some(LoadSignal::Answered { latency: 100, waited: 0 }),
        ..LoadFeedback::default()
    };
    pace.record(ask(RequestClass::Sink), &quick, 100);
    assert_eq!(pace.room(100), 1, "and more where it bears more");
    let refused = LoadFeedback { requests: 1, sign: Some(LoadSignal::Refused), ..LoadFeedback::default() };
    pace.record(ask(RequestClass::Sink), &refused, 200);
    pace.release(0);
    assert_eq!(take(&pace, 200), PermitDecision::Busy, "two of three are out");
}

#[test]
fn the_most_urgent_has_one_more_and_never_more_than_is_configured() {
    let pace = Pace::new(&PaceSettings { slots: 6, ..PaceSettings::default() });
    let granted = |class| matches!(pace.try_take(ask(class), 0), PermitDecision::Granted { .. });
    assert!((0..4).all(|_| granted(RequestClass::Sink)), "as many as in the beginning");
    assert!(!granted(RequestClass::Sink));
    assert_eq!((granted(RequestClass::Urgent), granted(RequestClass::Urgent)), (true, false));
    let small = Pace::new(&PaceSettings { slots: 1, ..PaceSettings::default() });
    assert!(matches!(small.try_take(ask(RequestClass::Sink), 0), PermitDecision::Granted { .. }));
    assert!(matches!(small.try_take(ask(RequestClass::Urgent), 0), PermitDecision::Busy));
}

#[test]
fn a_denied_method_is_held_and_others_are_not() {
    let pace = Pace::new(&PaceSettings::default());
    let denied = LoadFeedback { requests: 1, denied: Some(3_600_000), ..LoadFeedback::default() };
    pace.record(ask(RequestClass::Sink), &denied, 1_000);
    assert_eq!(pace.room(2_000), 4);
    assert_eq!(take(&pace, 2_000), PermitDecision::Held(3_599_000));
    assert_eq!(pace.room(2_000), 0, "nothing is to be claimed ahead of a quota that is spent");
    let post = PermitRequest { method: HttpMethod::Post, ..ask(RequestClass::Urgent) };
    assert_eq!(pace.try_take(post, 2_000), PermitDecision::Granted { slot: 0 });
}

#[test]
fn a_source_that_waits_has_the_next_slot() {
    let pace = Pace::new(&PaceSettings { sources: true, ..PaceSettings::default() });
    assert_eq!((0..4).filter(|_| matches!(take(&pace, 0), PermitDecision::Granted { .. })).count(), 4);
    assert_eq!(pace.try_take(ask(RequestClass::Source), 0), PermitDecision::Busy);
    pace.release(2);
    assert_eq!(take(&pace, 10), PermitDecision::Busy, "it is spoken for");
    assert_eq!(pace.try_take(ask(RequestClass::Source), 20), PermitDecision::Granted { slot: 2 });
    pace.release(2);
    assert_eq!(take(&pace, 20), PermitDecision::Granted { slot: 2 });
}

#[test]
fn a_source_has_a_tenth_of_its_own_and_members_share_the_rest() {
    let pace = Pace::new(&PaceSettings { sources: true, slots: 1, ..settings(1_000, Duration::from_secs(10), 1) });
    pace.set_share("alerts", 3, 12, 0);
    let spend = |class| {
        let (mut now, mut granted) = (1_000, 0);
        while now < 61_000 {
            match pace.try_take(ask(class), now) {
                PermitDecision::Granted { slot } => {
                    granted += 1;
                    pace.release(slot);
                }
                PermitDecision::Wait(ms) | PermitDecision::Held(ms) => now += ms,
                PermitDecision::Busy => unreachable!(),
            }
        }
        granted
    };
    let (sink, source) = (spend(RequestClass::Sink), spend(RequestClass::Source));
    assert!((1_200..=1_350).contains(&sink), "a quarter of nine tenths of 100 a second in a minute: {sink}");
    assert!((500..=600).contains(&source), "{source}");
}

#[test]
fn further_requests_of_a_permit_are_paid_afterwards() {
    let pace = Pace::new(&settings(60, Duration::from_secs(60), 1));
    let PermitDecision::Granted { slot } = take(&pace, 1_000) else { panic!("the first is free") };
    pace.record(ask(RequestClass::Sink), &LoadFeedback { requests: 9, ..LoadFeedback::default() }, 1_100);
    pace.release(slot);
    assert!(matches!(take(&pace, 1_100), PermitDecision::Wait(_)));
    assert_eq!(pace.plan("incident").spent, [9, 0, 0]);
}

#[test]
fn the_plan_tells_what_bounds_the_writes() {
    let pace = Pace::new(&settings(600, Duration::from_secs(60), 8));
    let rule = RuleHeaders { rule: "r".into(), limit: 3_600, reset_in: 1_800_000 };
    let feedback = LoadFeedback {
        requests: 1,
        sign: Some(LoadSignal::Answered { latency: 500, waited: 0 }),
        rule: Some(rule),
        denied: None,
    };
    pace.record(ask(RequestClass::Sink), &feedback, 0);
    let plan = pace.plan("incident");
    assert!((0.9..1.0).contains(&plan.per_second.expect("a rule")), "{plan:?}");
    assert!((plan.throughput().expect("known") - plan.per_second.expect("a rule")).abs() < 1e-9);
    assert_eq!((plan.at_once, plan.latency), ((4, 8), Some(500.0)));
    assert_eq!(pace.plan("problem").per_second.map(f64::round), Some(10.0), "the rule is not for it");
}
