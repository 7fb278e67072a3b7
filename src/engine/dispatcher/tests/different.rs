//! Writes that the instance answers as done, and whose result is not what was sent.

use super::*;

fn ineffective(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Observe(Observation::WriteIneffective(..)))).count()
}

fn without_correlation() -> Answer {
    Answer::WithoutCorrelation { row: Box::new(row()), reason: "correlation_id: sent k, INC1 has nothing".into() }
}

#[test]
fn a_ticket_without_its_correlation_is_kept_and_not_created_again() {
    let mut h = Harness::new();
    let effects = [h.receive(0, Action::Open, "zero"), h.grant_lease()].concat();
    h.ack_all(&effects);
    let (id, _) = h.use_permit();
    let effects = h.complete(id, without_correlation());
    h.ack_all(&effects);
    assert_eq!((ineffective(&effects), h.watermark()), (1, 1));
    assert!(!h.dispatcher.wants_permit(h.now), "nothing more is sent for the event");
    let effects = h.receive(1, Action::Update, "one");
    h.ack_all(&effects);
    let (_, body) = h.use_permit();
    assert!(matches!(body, InstanceRequest::Update { .. }), "it is known by its sys_id: {body:?}");
}

#[test]
fn several_tickets_without_their_correlation_stop_the_route() {
    let mut h = Harness::new();
    h.grant_lease();
    let limit = h.dispatcher.settings.rejection_limit;
    for n in 0..limit {
        assert_eq!(h.dispatcher.blocked_by(), None, "{n}");
        let claimed = h.receive_for_key(&format!("k{n}"), 2, i64::from(n), Action::Open);
        h.ack_all(&claimed);
        let (id, _) = h.use_permit();
        let effects = h.complete(id, without_correlation());
        h.ack_all(&effects);
    }
    assert!(h.dispatcher.blocked_by().is_some_and(|reason| format!("{reason:?}").contains("correlation_id")));
}

#[test]
fn a_resolution_that_does_not_change_the_state_is_not_repeated() {
    let (mut h, _) = open_ticket();
    let effects = h.receive(1, Action::Resolve, "zero");
    h.ack_all(&effects);
    let (id, _) = h.use_permit();
    let unchanged = Row { mod_count: 1, ..row() };
    let effects = h.complete(id, Answer::Applied { row: Box::new(unchanged), warnings: Vec::new() });
    h.ack_all(&effects);
    assert_eq!((ineffective(&effects), h.watermark()), (1, 2));
    advance(&mut h, 120_000);
    assert!(!h.dispatcher.wants_permit(h.now));
}

#[test]
fn a_rule_that_closes_a_resolved_ticket_has_reached_the_goal() {
    let (mut h, _) = open_ticket();
    let effects = h.receive(1, Action::Resolve, "zero");
    h.ack_all(&effects);
    let (id, _) = h.use_permit();
    let closed = Row { mod_count: 1, state: "7".into(), ..row() };
    let effects = h.complete(id, Answer::Applied { row: Box::new(closed), warnings: Vec::new() });
    assert_eq!(ineffective(&effects), 0);
}

#[test]
fn a_marker_proves_the_note_and_not_the_state() {
    let (mut h, _) = open_ticket();
    let intent = Intent { note: Some("over".into()), ..h.intent(1, Action::Resolve, "zero") };
    let effects = h.receive_content(RecordOrigin::Source, 1, RecordContent::Intents(vec![intent]));
    h.ack_all(&effects);
    let (id, _) = h.use_permit();
    h.complete(id, failed(FailureClass::Ambiguous { transaction_ended: true }));
    let (id, body) = h.use_permit();
    let InstanceRequest::Read { markers, .. } = body else { panic!("a verification: {body:?}") };
    let journal = Some(crate::model::answer::Journal::Read(markers));
    let effects = h.complete(id, Answer::Rows { rows: vec![Row { mod_count: 1, ..row() }], journal });
    assert_eq!(ineffective(&effects), 1, "the note is there, and the ticket is still open");
}
