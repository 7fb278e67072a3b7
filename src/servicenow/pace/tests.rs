//! Slots, and how the three bounds work together; each has tests of its own.

use super::concurrency::Sign;
use super::rules::Told;
use super::*;

fn settings(rate: u32, per: Duration, slots: usize) -> PaceSettings {
    PaceSettings { rate: NonZeroU32::new(rate), per, slots, ..PaceSettings::default() }
}

fn ask(spender: Spender) -> Ask<'static> {
    Ask { table: "incident", verb: Verb::Patch, spender }
}

fn take(pace: &Pace, now: u64) -> Take {
    pace.try_take(ask(Spender::Sink), now)
}

#[test]
fn slots_are_given_once_each_and_the_warm_one_first() {
    let pace = Pace::new(&settings(0, Duration::from_secs(1), 2));
    assert_eq!(take(&pace, 0), Take::Granted { slot: 0 });
    assert_eq!(take(&pace, 0), Take::Granted { slot: 1 });
    assert_eq!(take(&pace, 0), Take::Busy);
    pace.release(1);
    pace.release(1);
    pace.release(7);
    assert_eq!(pace.in_flight(), 1);
    assert_eq!(take(&pace, 0), Take::Granted { slot: 1 });
}

#[test]
fn a_busy_pace_spends_no_token() {
    let pace = Pace::new(&settings(2, Duration::from_secs(1), 1));
    assert_eq!(take(&pace, 5_000), Take::Granted { slot: 0 });
    for _ in 0..100 {
        assert_eq!(take(&pace, 6_000), Take::Busy);
    }
    pace.release(0);
    assert_eq!(take(&pace, 6_000), Take::Granted { slot: 0 });
    pace.release(0);
    assert_eq!(take(&pace, 6_000), Take::Wait(1_000));
}

#[test]
fn no_more_are_out_than_the_instance_bears() {
    let pace = Pace::new(&settings(0, Duration::from_secs(1), 16));
    let granted = (0..16).filter(|_| matches!(take(&pace, 0), Take::Granted { .. })).count();
    assert_eq!((granted, pace.room(0)), (4, 0));
    let quick = Pressure { requests: 1, sign: Some(Sign::Answered { latency: 100, waited: 0 }), ..Pressure::default() };
    pace.hear(ask(Spender::Sink), &quick, 100);
    assert_eq!(pace.room(100), 1, "and more where it bears more");
    let refused = Pressure { requests: 1, sign: Some(Sign::Refused), ..Pressure::default() };
    pace.hear(ask(Spender::Sink), &refused, 200);
    pace.release(0);
    assert_eq!(take(&pace, 200), Take::Busy, "two of three are out");
}

#[test]
fn the_most_urgent_has_one_more_and_never_more_than_is_configured() {
    let pace = Pace::new(&PaceSettings { slots: 6, ..PaceSettings::default() });
    let granted = |spender| matches!(pace.try_take(ask(spender), 0), Take::Granted { .. });
    assert!((0..4).all(|_| granted(Spender::Sink)), "as many as in the beginning");
    assert!(!granted(Spender::Sink));
    assert_eq!((granted(Spender::Urgent), granted(Spender::Urgent)), (true, false));
    let small = Pace::new(&PaceSettings { slots: 1, ..PaceSettings::default() });
    assert!(matches!(small.try_take(ask(Spender::Sink), 0), Take::Granted { .. }));
    assert!(matches!(small.try_take(ask(Spender::Urgent), 0), Take::Busy));
}

#[test]
fn a_denied_method_is_held_and_others_are_not() {
    let pace = Pace::new(&PaceSettings::default());
    let denied = Pressure { requests: 1, denied: Some(3_600_000), ..Pressure::default() };
    pace.hear(ask(Spender::Sink), &denied, 1_000);
    assert_eq!(pace.room(2_000), 4);
    assert_eq!(take(&pace, 2_000), Take::Held(3_599_000));
    assert_eq!(pace.room(2_000), 0, "nothing is to be claimed ahead of a quota that is spent");
    let post = Ask { verb: Verb::Post, ..ask(Spender::Urgent) };
    assert_eq!(pace.try_take(post, 2_000), Take::Granted { slot: 0 });
}

#[test]
fn a_source_that_waits_has_the_next_slot() {
    let pace = Pace::new(&PaceSettings { sources: true, ..PaceSettings::default() });
    assert_eq!((0..4).filter(|_| matches!(take(&pace, 0), Take::Granted { .. })).count(), 4);
    assert_eq!(pace.try_take(ask(Spender::Source), 0), Take::Busy);
    pace.release(2);
    assert_eq!(take(&pace, 10), Take::Busy, "it is spoken for");
    assert_eq!(pace.try_take(ask(Spender::Source), 20), Take::Granted { slot: 2 });
    pace.release(2);
    assert_eq!(take(&pace, 20), Take::Granted { slot: 2 });
}

#[test]
fn a_source_has_a_tenth_of_its_own_and_members_share_the_rest() {
    let pace = Pace::new(&PaceSettings { sources: true, slots: 1, ..settings(1_000, Duration::from_secs(10), 1) });
    pace.set_share("alerts", 3, 12, 0);
    let spend = |spender| {
        let (mut now, mut granted) = (1_000, 0);
        while now < 61_000 {
            match pace.try_take(ask(spender), now) {
                Take::Granted { slot } => {
                    granted += 1;
                    pace.release(slot);
                }
                Take::Wait(ms) | Take::Held(ms) => now += ms,
                Take::Busy => unreachable!(),
            }
        }
        granted
    };
    let (sink, source) = (spend(Spender::Sink), spend(Spender::Source));
    assert!((1_200..=1_350).contains(&sink), "a quarter of nine tenths of 100 a second in a minute: {sink}");
    assert!((500..=600).contains(&source), "{source}");
}

#[test]
fn further_requests_of_a_permit_are_paid_afterwards() {
    let pace = Pace::new(&settings(60, Duration::from_secs(60), 1));
    let Take::Granted { slot } = take(&pace, 1_000) else { panic!("the first is free") };
    pace.hear(ask(Spender::Sink), &Pressure { requests: 9, ..Pressure::default() }, 1_100);
    pace.release(slot);
    assert!(matches!(take(&pace, 1_100), Take::Wait(_)));
    assert_eq!(pace.plan("incident").spent, [9, 0, 0]);
}

#[test]
fn the_plan_tells_what_bounds_the_writes() {
    let pace = Pace::new(&settings(600, Duration::from_secs(60), 8));
    let rule = Told { rule: "r".into(), limit: 3_600, reset_in: 1_800_000 };
    let pressure = Pressure {
        requests: 1,
        sign: Some(Sign::Answered { latency: 500, waited: 0 }),
        rule: Some(rule),
        denied: None,
    };
    pace.hear(ask(Spender::Sink), &pressure, 0);
    let plan = pace.plan("incident");
    assert!((0.9..1.0).contains(&plan.per_second.expect("a rule")), "{plan:?}");
    assert!((plan.throughput().expect("known") - plan.per_second.expect("a rule")).abs() < 1e-9);
    assert_eq!((plan.at_once, plan.latency), ((4, 8), Some(500.0)));
    assert_eq!(pace.plan("problem").per_second.map(f64::round), Some(10.0), "the rule is not for it");
}
