//! Looks at rows before decisions, and what users and rules of the instance did to them.

use super::*;
use crate::engine::request::MAX_READ_MANY;
use crate::model::RowVersion;

/// A row of the ticket in `open_ticket`, later changed by a user.
fn changed_by_user(mod_count: u64, state: &str, values: &[(&str, &str)]) -> Row {
    let values = values.iter().map(|(column, value)| ((*column).to_owned(), (*value).to_owned())).collect();
    Row { mod_count, state: state.into(), updated_by: "beth".into(), values, ..row() }
}

fn rows(rows: Vec<Row>) -> Answer {
    Answer::Rows { rows, journal: None }
}

/// Sends the next request, which must be a look, and answers it.
fn answer_look(h: &mut Harness, row: Row) -> Vec<Effect> {
    let (id, body) = h.use_permit();
    assert!(matches!(body, InstanceRequest::Read { .. }), "a look: {body:?}");
    let effects = h.complete(id, rows(vec![row]));
    [effects.clone(), h.ack_all(&effects)].concat()
}

fn fields_of(body: &InstanceRequest) -> Vec<(&str, &str)> {
    let (InstanceRequest::Update { fields, .. } | InstanceRequest::Create { fields, .. }) = body else {
        panic!("a write: {body:?}")
    };
    fields.iter().map(|(column, value)| (&**column, value.as_str())).collect()
}

#[test]
fn an_alert_that_opens_again_after_a_user_closed_its_ticket_gets_a_new_one() {
    let (mut h, _) = open_ticket();
    advance(&mut h, 10_000);
    let effects = h.receive(1, Action::Open, "zero");
    assert!(effects.is_empty() && !h.dispatcher.wants_permit(h.now), "it probably changes nothing, and can wait");
    advance(&mut h, 60_000);
    answer_look(&mut h, changed_by_user(1, "7", &[]));
    let (_, body) = h.use_permit();
    assert!(matches!(body, InstanceRequest::Create { .. }), "{body:?}");
}

/// A ticket that a user has resolved, and what the next look shows of it.
fn resolved_by_user() -> (Harness, Row) {
    let mut h = Harness::new();
    h.grant_lease();
    let first = h.opening(0, 1);
    let claimed = h.receive_content(RecordOrigin::Source, 0, RecordContent::Intents(vec![first]));
    h.ack_all(&claimed);
    h.apply_next_write();
    advance(&mut h, 10_000);
    let resolved_at = Some(h.now.unix / 1_000);
    (h, Row { resolved_at, ..changed_by_user(1, "6", &[]) })
}

impl Harness {
    fn opening(&self, offset: i64, episode: u64) -> Intent {
        Intent { episode: Some(episode), ..self.intent(offset, Action::Open, "zero") }
    }

    /// Receives an opening event and answers its look.
    fn open_and_look(&mut self, opening: Intent, row: Row) -> Vec<Effect> {
        let offset = opening.position.offset;
        self.receive_content(RecordOrigin::Source, offset, RecordContent::Intents(vec![opening]));
        advance(self, 60_000);
        answer_look(self, row)
    }
}

#[test]
fn a_repeated_firing_does_not_open_a_ticket_again_that_a_user_resolved_and_another_one_does() {
    let (mut h, row) = resolved_by_user();
    let again = h.opening(1, 1);
    let effects = h.open_and_look(again, row.clone());
    assert_eq!((claims(&effects), h.watermark()), (0, 2));
    let kept =
        |e: &Effect| matches!(e, Effect::Observe(Observation::UserEditPreserved(_, column)) if **column == *"state");
    assert!(effects.iter().any(kept), "it is reported: {effects:?}");
    advance(&mut h, 10_000);
    let other = h.opening(2, 2);
    h.open_and_look(other, row);
    let (_, body) = h.use_permit();
    assert_eq!(fields_of(&body), [("state", "2")]);
}

#[test]
fn a_repeated_firing_with_another_value_writes_the_value_and_keeps_the_state_of_the_user() {
    let (mut h, row) = resolved_by_user();
    let again = Intent { fields: vec![("short_description".into(), "one".into())], ..h.opening(1, 1) };
    h.open_and_look(again, row);
    let (_, body) = h.use_permit();
    assert_eq!(fields_of(&body), [("short_description", "one")]);
}

#[test]
fn a_repeated_firing_gets_no_other_ticket_after_a_user_closed_or_deleted_it() {
    for deleted in [false, true] {
        let (mut h, row) = resolved_by_user();
        let again = h.opening(1, 1);
        h.receive_content(RecordOrigin::Source, 1, RecordContent::Intents(vec![again]));
        advance(&mut h, 60_000);
        if deleted {
            let (id, _) = h.use_permit();
            h.complete(id, rows(Vec::new()));
            let (id, _) = h.use_permit();
            h.complete(id, rows(Vec::new()));
        } else {
            answer_look(&mut h, Row { state: "7".into(), ..row });
        }
        assert!(!h.dispatcher.wants_permit(h.now), "deleted: {deleted}");
        assert_eq!(h.watermark(), 2);
    }
}

#[test]
fn an_alert_that_was_over_opens_the_ticket_again_even_in_the_same_firing() {
    let (mut h, row) = resolved_by_user();
    let effects = h.receive(1, Action::Resolve, "zero");
    h.ack_all(&effects);
    if h.dispatcher.wants_permit(h.now) {
        let effects = answer_look(&mut h, row.clone());
        h.ack_all(&effects);
    }
    advance(&mut h, 10_000);
    let again = h.opening(2, 1);
    h.open_and_look(again, row);
    let (_, body) = h.use_permit();
    assert_eq!(fields_of(&body), [("state", "2")]);
}

#[test]
fn without_firings_the_configuration_decides_whether_a_repeated_alert_opens_the_ticket_again() {
    for reopen in [true, false] {
        let (mut h, row) = resolved_by_user();
        h.dispatcher.settings.reopen_after_user = reopen;
        let again = h.intent(1, Action::Open, "zero");
        h.open_and_look(again, row);
        assert_eq!(h.dispatcher.wants_permit(h.now), reopen);
    }
}

#[test]
fn nothing_is_done_for_a_repeated_opening_event_after_a_look() {
    let (mut h, _) = open_ticket();
    advance(&mut h, 1_000);
    h.receive(1, Action::Open, "zero");
    advance(&mut h, 60_000);
    let effects = answer_look(&mut h, row());
    assert_eq!((claims(&effects), h.watermark()), (0, 2));
}

/// The row of the ticket of the key `k<n>`.
fn numbered(n: i64) -> Row {
    Row { sys_id: format!("{n:032}"), ..row() }
}

/// The keys `k0`, `k1` and so on with an open ticket each, all last seen more than `max_row_age` ago.
fn open_tickets(count: i64) -> Harness {
    let mut h = Harness::new();
    h.grant_lease();
    for n in 0..count {
        let claimed = h.receive_for_key(&format!("k{n}"), 2, n, Action::Open);
        h.ack_all(&claimed);
        let (id, _) = h.use_permit();
        let effects = h.complete(id, Answer::Applied { row: Box::new(numbered(n)), warnings: Vec::new() });
        h.ack_all(&effects);
    }
    advance(&mut h, 10_000);
    h
}

#[test]
fn looks_that_can_wait_share_a_request_with_an_urgent_one() {
    let mut h = open_tickets(3);
    for key in 0..2_u8 {
        let intent =
            Intent { key: format!("k{key}").into(), ..h.intent(i64::from(key) + 3, Action::Open, &key.to_string()) };
        h.receive_content(RecordOrigin::Source, i64::from(key) + 3, RecordContent::Intents(vec![intent]));
    }
    assert!(!h.dispatcher.wants_permit(h.now));
    h.receive_for_key("k2", 2, 5, Action::Update);
    let (id, body) = h.use_permit();
    let InstanceRequest::ReadMany { tickets, .. } = &body else { panic!("a shared look: {body:?}") };
    assert_eq!(tickets.len(), 3);
    let effects = h.complete(id, rows((0..3).map(numbered).collect()));
    h.ack_all(&effects);
    assert_eq!(claims(&effects), 1, "the update of the third one");
    let (id, _) = h.use_permit();
    let applied = Row { mod_count: 1, ..numbered(2) };
    let effects = h.complete(id, Answer::Applied { row: Box::new(applied), warnings: Vec::new() });
    h.ack_all(&effects);
    assert_eq!(h.watermark(), 6);
}

#[test]
fn enough_looks_that_can_wait_do_not_wait() {
    let count = i64::try_from(MAX_READ_MANY).expect("small");
    let mut h = open_tickets(count);
    for n in 0..count {
        assert!(!h.dispatcher.wants_permit(h.now), "{n} looks wait");
        let intent = Intent { key: format!("k{n}").into(), ..h.intent(count + n, Action::Open, &n.to_string()) };
        h.receive_content(RecordOrigin::Source, count + n, RecordContent::Intents(vec![intent]));
    }
    let (_, body) = h.use_permit();
    assert!(matches!(&body, InstanceRequest::ReadMany { tickets, .. } if tickets.len() == MAX_READ_MANY), "{body:?}");
}

#[test]
fn a_write_that_waited_too_long_for_its_permit_is_decided_again() {
    let (mut h, _) = open_ticket();
    let claimed = h.receive(1, Action::Update, "one");
    h.ack_all(&claimed);
    assert_eq!(claims(&claimed), 1, "the answer of the last write is a look, too");
    advance(&mut h, 6_000);
    let effects = h.apply(Event::PermitGranted { without: HttpMethodSet::NONE });
    assert!(!effects.iter().any(|e| matches!(e, Effect::SendRequest { .. })), "{effects:?}");
    let effects = answer_look(&mut h, changed_by_user(1, "7", &[]));
    assert_eq!((claims(&effects), h.watermark()), (0, 2), "a user has closed the ticket meanwhile");
}

#[test]
fn a_write_is_not_sent_once_its_row_is_too_old() {
    let (mut h, _) = open_ticket();
    let claimed = h.receive(1, Action::Update, "one");
    h.ack_all(&claimed);
    advance(&mut h, 4_500);
    let effects = h.apply(Event::PermitGranted { without: HttpMethodSet::NONE });
    let lease_until = effects.iter().find_map(|e| match e {
        Effect::SendRequest { lease_until, .. } => Some(*lease_until),
        _ => None,
    });
    assert_eq!(lease_until, Some(h.now.mono + 1_000), "half a second is left, and a second is the least");
}

#[test]
fn a_resolution_keeps_the_close_notes_of_a_user() {
    let (mut h, _) = open_ticket();
    advance(&mut h, 10_000);
    let closing = vec![("close_code".into(), "Solved".into()), ("close_notes".into(), "Resolved by x.".into())];
    let intent = Intent { closing, ..h.intent(1, Action::Resolve, "zero") };
    h.receive_content(RecordOrigin::Source, 1, RecordContent::Intents(vec![intent]));
    let notes = "Replaced the SFP, see CHG0001";
    answer_look(&mut h, changed_by_user(1, "2", &[("close_code", ""), ("close_notes", notes)]));
    let (_, body) = h.use_permit();
    assert_eq!(fields_of(&body), [("close_code", "Solved"), ("state", "6")]);
}

#[test]
fn a_value_that_was_kept_is_kept_by_the_next_event_too() {
    let (mut h, _) = open_ticket();
    advance(&mut h, 10_000);
    let noted = |h: &Harness, offset| Intent { note: Some("a note".into()), ..h.intent(offset, Action::Update, "one") };
    let first = noted(&h, 1);
    h.receive_content(RecordOrigin::Source, 1, RecordContent::Intents(vec![first]));
    answer_look(&mut h, changed_by_user(1, "1", &[("short_description", "a user's title")]));
    h.writes = 2;
    let (body, _) = h.apply_next_write();
    assert!(fields_of(&body).is_empty(), "only the note: {body:?}");
    let second = Intent { fields: vec![("short_description".into(), "two".into())], ..noted(&h, 2) };
    advance(&mut h, 10_000);
    h.receive_content(RecordOrigin::Source, 2, RecordContent::Intents(vec![second]));
    let values = [("short_description".to_owned(), "a user's title".to_owned())].into();
    answer_look(&mut h, Row { mod_count: 2, values, ..row() });
    let (_, body) = h.use_permit();
    assert!(fields_of(&body).is_empty(), "although the bridge has written the row since: {body:?}");
}

#[test]
fn a_value_that_a_rule_of_the_instance_rewrote_is_not_a_users() {
    let (mut h, _) = open_ticket();
    advance(&mut h, 10_000);
    h.receive(1, Action::Update, "one");
    let values = [("short_description".to_owned(), "ZERO".to_owned())].into();
    answer_look(&mut h, Row { mod_count: 1, values, ..row() });
    let (_, body) = h.use_permit();
    assert_eq!(fields_of(&body), [("short_description", "one")]);
}

#[test]
fn an_inactive_ticket_is_closed_whatever_its_state() {
    let (mut h, _) = open_ticket();
    advance(&mut h, 10_000);
    h.receive(1, Action::Open, "one");
    let archived = Row { inactive: true, ..changed_by_user(1, "17", &[]) };
    answer_look(&mut h, archived);
    let (_, body) = h.use_permit();
    assert!(matches!(body, InstanceRequest::Create { .. }), "{body:?}");
}

#[test]
fn a_ticket_that_is_missing_from_an_answer_is_searched_for() {
    let (mut h, _) = open_ticket();
    advance(&mut h, 10_000);
    h.receive(1, Action::Update, "one");
    let (id, _) = h.use_permit();
    h.complete(id, rows(Vec::new()));
    let (id, body) = h.use_permit();
    assert!(matches!(body, InstanceRequest::Find { .. }), "{body:?}");
    let effects = h.complete(id, rows(vec![row()]));
    assert_eq!(claims(&effects), 1, "it is there");
}

#[test]
fn a_version_that_another_route_saw_makes_a_decided_write_look_again() {
    let (mut h, _) = open_ticket();
    let claimed = h.receive(1, Action::Update, "one");
    h.ack_all(&claimed);
    let seen = |sys_id: &str, mod_count| vec![RowVersion { sys_id: sys_id.into(), mod_count }].into();
    h.apply(Event::RowVersionsSeen { versions: seen(&row().sys_id, 1) });
    let effects = h.apply(Event::PermitGranted { without: HttpMethodSet::NONE });
    assert!(!effects.iter().any(|e| matches!(e, Effect::SendRequest { .. })), "{effects:?}");
    let effects = answer_look(&mut h, changed_by_user(1, "1", &[]));
    assert_eq!(claims(&effects), 1);
    h.apply(Event::RowVersionsSeen { versions: seen(&row().sys_id, 1) });
    h.apply(Event::RowVersionsSeen { versions: seen(&"b".repeat(32), 9) });
    let (_, body) = h.use_permit();
    assert_eq!(fields_of(&body), [("short_description", "one")]);
}

#[test]
fn a_parked_key_whose_ticket_a_user_closed_gets_another_one() {
    let mut h = parked_key();
    advance(&mut h, 10_000);
    h.receive(3, Action::Open, "three");
    let effects = answer_look(&mut h, changed_by_user(1, "7", &[]));
    assert!(dead_letters_in(&effects).is_empty(), "{effects:?}");
    let (_, body) = h.use_permit();
    assert!(matches!(body, InstanceRequest::Create { .. }), "{body:?}");
}

#[test]
fn the_rows_of_lanes_in_line_are_read_with_others_and_asked_for_only_once() {
    let mut h = open_tickets(40);
    for n in 0..40 {
        h.receive_for_key(&format!("k{n}"), 2, 40 + n, Action::Update);
    }
    let (look, body) = h.use_permit();
    let InstanceRequest::ReadMany { tickets, .. } = &body else { panic!("a shared look: {body:?}") };
    assert_eq!(tickets.len(), 40, "those that have their turn and those in line");
    assert!(!h.dispatcher.wants_permit(h.now), "the others get their turn, and wait for the same look");
    let effects = h.complete(look, rows((0..40).map(numbered).collect()));
    assert!(claims(&effects) > 0);
}

#[test]
fn a_failed_look_delays_only_the_lanes_that_asked_for_it() {
    let mut h = open_tickets(40);
    for n in 0..40 {
        h.receive_for_key(&format!("k{n}"), 2, 40 + n, Action::Update);
    }
    let (look, _) = h.use_permit();
    h.complete(look, failed(FailureClass::Transient));
    advance(&mut h, 20);
    let (look, body) = h.use_permit();
    let InstanceRequest::ReadMany { tickets, .. } = &body else { panic!("a shared look: {body:?}") };
    assert_eq!(tickets.len(), 39, "the others look again at once");
    let effects = h.complete(look, rows((0..40).map(numbered).collect()));
    assert!(claims(&effects) > 0);
}

#[test]
fn a_look_that_was_throttled_is_sent_again_when_the_instance_says() {
    let (mut h, _) = open_ticket();
    advance(&mut h, 10_000);
    h.receive(1, Action::Update, "one");
    for _ in 0..8 {
        let (id, _) = h.use_permit();
        h.complete(id, failed(FailureClass::Throttled { retry_after: Some(1_000) }));
        assert!(!h.dispatcher.wants_permit(h.now));
        advance(&mut h, 1_001);
    }
    let effects = answer_look(&mut h, row());
    assert_eq!(claims(&effects), 1, "the lane has no delay of its own");
}

#[test]
fn a_settled_verification_ends_the_delays_of_the_failures_before_it() {
    let (mut h, _) = open_ticket();
    advance(&mut h, 1_000);
    let claimed = h.receive(1, Action::Update, "one");
    h.ack_all(&claimed);
    let (id, _) = h.use_permit();
    h.complete(id, failed(FailureClass::Ambiguous { transaction_ended: true }));
    for _ in 0..6 {
        let (id, _) = h.use_permit();
        h.complete(id, failed(FailureClass::Transient));
        advance(&mut h, 130_000);
    }
    let (id, _) = h.use_permit();
    h.complete(id, rows(vec![row()]));
    let (id, _) = h.use_permit();
    h.complete(id, failed(FailureClass::Transient));
    advance(&mut h, 2_000);
    assert!(h.dispatcher.wants_permit(h.now), "the first delay, not the seventh");
}
