//! Errors of alert events that occur before the bridge sends a request, and the events that wait for them.

use super::ErrorPage;

pub(super) const PAGES: &[ErrorPage] = &[
    ErrorPage {
        number: 101,
        codes: &["undecodable"],
        title: "the record does not have the route's format",
        message: "invalid JSON; a field of the wrong type, with its path",
        cause: "Another publisher writes to the topic, or the route's `format` is wrong.",
        bridge_action: "Writes a dead letter with the original bytes. Other records of the partition are not \
                        affected.",
        resolution: "Set `format` on the route, or fix the publisher. Once the format is right, redrive the dead \
                     letters.",
    },
    ErrorPage {
        number: 102,
        codes: &["oversized"],
        title: "the record is too large",
        message: "the record has N bytes, and the limit is M; there are N alerts",
        cause: "The size of a record is limited, so that one record can't use all memory.",
        bridge_action: "Writes a dead letter.",
        resolution: "Publish smaller records, without attachments or dashboards.",
    },
    ErrorPage {
        number: 103,
        codes: &["missing_key"],
        title: "the record has no alert key",
        message: "$.key: missing; $.alerts[0].fingerprint: missing; the record has no key",
        cause: "Each alert has one ticket, so each event must contain the key of its alert.",
        bridge_action: "Writes a dead letter.",
        resolution: "Set the key in the publisher; see docs/KAFKA.md, \"Publishing alert events\".",
    },
    ErrorPage {
        number: 104,
        codes: &["invalid_key"],
        title: "the alert key is invalid",
        message: "the key of an alert must have at most N bytes and no control characters",
        cause: "The key is used in Kafka, in the ledger and in the ticket's `correlation_id`.",
        bridge_action: "Writes a dead letter.",
        resolution: "Fix the publisher.",
    },
    ErrorPage {
        number: 105,
        codes: &["key_mismatch"],
        title: "the record may be in another partition than its alert",
        message: "the record's key is `…`, but the alert's key is `…`",
        cause: "All events of an alert must be in one partition. Otherwise two bridge processes could write to its \
                ticket at the same time.",
        bridge_action: "Writes a dead letter, to avoid a second ticket.",
        resolution: "Publish with the alert's key as the record's key. If something else keeps the events of an alert \
                     in one partition, set `keyed_by_alert: true` on the route; otherwise `repartition: true`.",
    },
    ErrorPage {
        number: 106,
        codes: &["unknown_action"],
        title: "the action is unknown",
        message: "unknown action `…`; use one of: open, update, resolve, …",
        cause: "The bridge does not know how the action changes the ticket.",
        bridge_action: "Writes a dead letter.",
        resolution: "Fix the publisher, or map the action under the route's `actions`.",
    },
    ErrorPage {
        number: 107,
        codes: &["mapping"],
        title: "a template or rule of the route failed",
        message: "the template's error, with the name of the field",
        cause: "Usually the template uses an attribute that the alert does not have.",
        bridge_action: "Writes a dead letter, and writes nothing of the event to ServiceNow.",
        resolution: "Give the template a default (`labels.team or \"none\"`), restart the bridge, and redrive.",
    },
    ErrorPage {
        number: 108,
        codes: &["parked"],
        title: "an earlier event of the alert was rejected",
        message: "an earlier record of this key was rejected",
        cause: "This event is valid. It must not overtake the earlier event of its alert, which the instance \
                rejected.",
        bridge_action: "Writes dead letters in the order of the events. An opening event is still tried if the alert \
                        has no open ticket; if it succeeds, the key is no longer parked.",
        resolution: "Fix the error of the key's first dead letter (`nowbridge dead-letters list --key …`), then \
                     redrive. The redrive puts the dead letters back into the input in order and releases \
                     the key.",
    },
];
