//! Which of two events of a key is the newer one.

use super::*;

/// An event whose sender's clock is so many milliseconds off.
fn dated(h: &Harness, offset: i64, action: Action, ahead: i64) -> Intent {
    let position = Position::new(0, offset, 0);
    let (occurred_at, order) = (h.now.unix + ahead, EventOrder::of_place(position));
    Intent { occurred_at, order, ..h.intent(offset, action, "title") }
}

fn receive(h: &mut Harness, intent: Intent) -> Vec<Effect> {
    let offset = intent.position.offset;
    let effects = h.receive_content(RecordOrigin::Source, offset, RecordContent::Intents(vec![intent]));
    [effects.clone(), h.ack_all(&effects)].concat()
}

#[test]
fn a_resolution_from_a_clock_that_is_behind_resolves_the_ticket() {
    let (mut h, _) = open_ticket();
    let late = dated(&h, 1, Action::Resolve, -300_000);
    receive(&mut h, late);
    let (body, _) = h.apply_next_write();
    assert!(
        matches!(&body, InstanceRequest::Update { fields, .. } if fields.iter().any(|(c, v)| **c == *"state" && v == "6"))
    );
}

#[test]
fn a_time_far_in_the_future_counts_as_the_time_of_receipt() {
    let (mut h, _) = open_ticket();
    let order = |h: &Harness, ahead| EventOrder::of_time(h.now.unix + ahead);
    let far = Intent { order: order(&h, 10_000_000_000), ..dated(&h, 1, Action::Resolve, 10_000_000_000) };
    let effects = receive(&mut h, far);
    assert!(effects.iter().any(|e| matches!(e, Effect::Observe(Observation::FutureTime(_, 10_000_000_000)))));
    h.apply_next_write();
    advance(&mut h, 1_000);
    let next = Intent { order: order(&h, 0), ..dated(&h, 2, Action::Open, 0) };
    let effects = receive(&mut h, next);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Observe(Observation::Skipped(..)))), "{effects:?}");
}

#[test]
fn an_outdated_change_of_state_is_reported_if_the_ticket_is_open() {
    let (mut h, _) = open_ticket();
    let order = EventOrder::of_time(h.now.unix - 300_000);
    let late = Intent { order, ..dated(&h, 1, Action::Resolve, -300_000) };
    let effects = receive(&mut h, late);
    let reported = |e: &Effect| matches!(e, Effect::Observe(Observation::OutdatedStateChange(_, Action::Resolve)));
    assert!(effects.iter().any(reported), "{effects:?}");
}
