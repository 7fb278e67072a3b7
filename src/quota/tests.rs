//! Tests of slots and of the three limits together; each limit has tests of its own.

use super::concurrency::LoadSignal;
use super::rules::RuleHeaders;
use super::*;

fn settings(rate: u32, per: Duration, slots: usize) -> LimiterSettings {
    LimiterSettings { rate: NonZeroU32::new(rate), per, slots, ..LimiterSettings::default() }
}

fn request(class: RequestClass) -> PermitRequest<'static> {
    PermitRequest { table: "incident", method: HttpMethod::Patch, class }
}

fn acquire(limiter: &RequestLimiter, now: u64) -> PermitDecision {
    limiter.try_acquire(request(RequestClass::Normal), now)
}

fn is_granted(decision: PermitDecision) -> bool {
    matches!(decision, PermitDecision::Granted { .. })
}

#[test]
fn each_slot_is_granted_once_and_the_last_released_first() {
    let limiter = RequestLimiter::new(&settings(0, Duration::from_secs(1), 2));
    assert_eq!(acquire(&limiter, 0), PermitDecision::Granted { slot: 0 });
    assert_eq!(acquire(&limiter, 0), PermitDecision::Granted { slot: 1 });
    assert_eq!(acquire(&limiter, 0), PermitDecision::AtConcurrencyLimit);
    limiter.release(1);
    limiter.release(1);
    limiter.release(7);
    assert_eq!(limiter.in_flight(), 1);
    assert_eq!(acquire(&limiter, 0), PermitDecision::Granted { slot: 1 });
}

#[test]
fn no_token_is_used_without_a_free_slot() {
    let limiter = RequestLimiter::new(&settings(2, Duration::from_secs(1), 1));
    assert_eq!(acquire(&limiter, 5_000), PermitDecision::Granted { slot: 0 });
    for _ in 0..100 {
        assert_eq!(acquire(&limiter, 6_000), PermitDecision::AtConcurrencyLimit);
    }
    limiter.release(0);
    assert_eq!(acquire(&limiter, 6_000), PermitDecision::Granted { slot: 0 });
    limiter.release(0);
    assert_eq!(acquire(&limiter, 6_000), PermitDecision::RateLimited(1_000));
}

#[test]
fn requests_in_flight_never_exceed_the_adaptive_limit() {
    let limiter = RequestLimiter::new(&settings(0, Duration::from_secs(1), 16));
    let granted = (0..16).filter(|_| is_granted(acquire(&limiter, 0))).count();
    assert_eq!((granted, limiter.available(0)), (4, 0));
    let quick = LoadFeedback {
        requests: 1,
        signal: Some(LoadSignal::Response { latency: 100, queue_time: 0 }),
        ..LoadFeedback::default()
    };
    limiter.record(request(RequestClass::Normal), &quick, 100);
    assert_eq!(limiter.available(100), 1, "a quick response raises the limit");
    let overloaded = LoadFeedback { requests: 1, signal: Some(LoadSignal::Overloaded), ..LoadFeedback::default() };
    limiter.record(request(RequestClass::Normal), &overloaded, 200);
    limiter.release(0);
    assert_eq!(acquire(&limiter, 200), PermitDecision::AtConcurrencyLimit, "three in flight, limit two");
}

#[test]
fn an_urgent_request_may_exceed_the_limit_by_one_but_not_the_configured_maximum() {
    let limiter = RequestLimiter::new(&LimiterSettings { slots: 6, ..LimiterSettings::default() });
    let granted = |class| is_granted(limiter.try_acquire(request(class), 0));
    assert!((0..4).all(|_| granted(RequestClass::Normal)), "the initial limit");
    assert!(!granted(RequestClass::Normal));
    assert_eq!((granted(RequestClass::Urgent), granted(RequestClass::Urgent)), (true, false));
    let small = RequestLimiter::new(&LimiterSettings { slots: 1, ..LimiterSettings::default() });
    assert!(is_granted(small.try_acquire(request(RequestClass::Normal), 0)));
    assert!(matches!(small.try_acquire(request(RequestClass::Urgent), 0), PermitDecision::AtConcurrencyLimit));
}

#[test]
fn a_throttled_method_waits_and_others_do_not() {
    let limiter = RequestLimiter::new(&LimiterSettings::default());
    let throttled = LoadFeedback { requests: 1, retry_after: Some(3_600_000), ..LoadFeedback::default() };
    limiter.record(request(RequestClass::Normal), &throttled, 1_000);
    assert_eq!(limiter.available(2_000), 4);
    assert_eq!(acquire(&limiter, 2_000), PermitDecision::RuleLimited(3_599_000));
    assert_eq!(limiter.available(2_000), 0, "no claims ahead of an exhausted quota");
    let post = PermitRequest { method: HttpMethod::Post, ..request(RequestClass::Urgent) };
    assert_eq!(limiter.try_acquire(post, 2_000), PermitDecision::Granted { slot: 0 });
}

#[test]
fn a_waiting_source_gets_the_next_slot() {
    let limiter = RequestLimiter::new(&LimiterSettings { sources: true, ..LimiterSettings::default() });
    assert_eq!((0..4).filter(|_| is_granted(acquire(&limiter, 0))).count(), 4);
    assert_eq!(limiter.try_acquire(request(RequestClass::Source), 0), PermitDecision::AtConcurrencyLimit);
    limiter.release(2);
    assert_eq!(acquire(&limiter, 10), PermitDecision::AtConcurrencyLimit, "reserved for the source");
    assert_eq!(limiter.try_acquire(request(RequestClass::Source), 20), PermitDecision::Granted { slot: 2 });
    limiter.release(2);
    assert_eq!(acquire(&limiter, 20), PermitDecision::Granted { slot: 2 });
}

#[test]
fn sources_have_a_tenth_and_members_split_the_rest() {
    let settings = LimiterSettings { sources: true, slots: 1, ..settings(1_000, Duration::from_secs(10), 1) };
    let limiter = RequestLimiter::new(&settings);
    limiter.set_share("alerts", 3, 12, 0);
    let granted_in_a_minute = |class| {
        let (mut now, mut granted) = (1_000, 0);
        while now < 61_000 {
            match limiter.try_acquire(request(class), now) {
                PermitDecision::Granted { slot } => {
                    granted += 1;
                    limiter.release(slot);
                }
                PermitDecision::RateLimited(ms) | PermitDecision::RuleLimited(ms) => now += ms,
                PermitDecision::AtConcurrencyLimit => unreachable!(),
            }
        }
        granted
    };
    let (sink, source) = (granted_in_a_minute(RequestClass::Normal), granted_in_a_minute(RequestClass::Source));
    assert!((1_200..=1_350).contains(&sink), "a quarter of nine tenths of 100 per second in a minute: {sink}");
    assert!((500..=600).contains(&source), "{source}");
}

#[test]
fn further_requests_of_a_permit_are_paid_afterwards() {
    let limiter = RequestLimiter::new(&settings(60, Duration::from_secs(60), 1));
    let PermitDecision::Granted { slot } = acquire(&limiter, 1_000) else { panic!("the first one is granted") };
    let feedback = LoadFeedback { requests: 9, ..LoadFeedback::default() };
    limiter.record(request(RequestClass::Normal), &feedback, 1_100);
    limiter.release(slot);
    assert!(matches!(acquire(&limiter, 1_100), PermitDecision::RateLimited(_)));
    assert_eq!(limiter.status("incident").requests, RequestCounts { normal: 9, ..RequestCounts::default() });
}

#[test]
fn the_status_shows_the_limit_that_applies_to_the_table() {
    let limiter = RequestLimiter::new(&settings(600, Duration::from_secs(60), 8));
    let rule = RuleHeaders { rule: "r".into(), limit: 3_600, reset_in: 1_800_000 };
    let feedback = LoadFeedback {
        requests: 1,
        signal: Some(LoadSignal::Response { latency: 500, queue_time: 0 }),
        rule: Some(rule),
        retry_after: None,
    };
    limiter.record(request(RequestClass::Normal), &feedback, 0);
    let status = limiter.status("incident");
    assert!((0.9..1.0).contains(&status.requests_per_second.expect("a rule")), "{status:?}");
    assert!((status.throughput().expect("known") - status.requests_per_second.expect("a rule")).abs() < 1e-9);
    assert_eq!((status.concurrency_limit, status.max_concurrency, status.write_latency_ms), (4, 8, Some(500.0)));
    assert_eq!(
        limiter.status("problem").requests_per_second.map(f64::round),
        Some(10.0),
        "the rule is not for this table"
    );
}
