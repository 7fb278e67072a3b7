//! What is wrong with an alert before anything is asked of an instance, and what waits behind it.

use super::ErrorPage;

pub(super) const PAGES: &[ErrorPage] = &[
    ErrorPage {
        number: 101,
        codes: &["undecodable"],
        title: "the record is not what the route's format says",
        said: "not JSON; a field of the wrong kind, with its path",
        means: "Something else is published to the topic, or `format` is the wrong one.",
        does: "A dead letter with the bytes as they were. Other records of the partition go on.",
        todo: "Set `format` on the route, or mend the publisher. A letter without a key can be redriven once the format is right.",
    },
    ErrorPage {
        number: 102,
        codes: &["oversized"],
        title: "the record is larger than what is read",
        said: "the record has N bytes, at most M are read; too many alerts in one body",
        means: "Sizes are bounded so that one record can't take the memory of all.",
        does: "A dead letter.",
        todo: "Publish less of it: attachments and dashboards don't belong into an alert.",
    },
    ErrorPage {
        number: 103,
        codes: &["missing_key"],
        title: "nothing in the record says which alert it is",
        said: "$.key is missing; $.alerts[0].fingerprint is missing",
        means: "One alert is one ticket, so each event must name its alert.",
        does: "A dead letter.",
        todo: "Let the publisher set the key; see the README on alert events.",
    },
    ErrorPage {
        number: 104,
        codes: &["invalid_key"],
        title: "that can't be a key",
        said: "$.key is empty, too long, or has control characters",
        means: "The key goes into Kafka, the ledger and the ticket's correlation.",
        does: "A dead letter.",
        todo: "Mend the publisher.",
    },
    ErrorPage {
        number: 105,
        codes: &["key_mismatch"],
        title: "the record lies in a partition that is not its alert's",
        said: "the record's key is not the alert's key",
        means: "Events of one alert must lie in one partition; otherwise two instances of the bridge would write one ticket.",
        does: "A dead letter, rather than a second ticket.",
        todo: "Publish with the alert's key as the record's key, or say in the route that something else keeps them together \
               (`copartitioned: true`).",
    },
    ErrorPage {
        number: 106,
        codes: &["unknown_action"],
        title: "an action that nobody knows",
        said: "$.action is \"…\"; known are open, update, resolve…",
        means: "The bridge can't tell what it does to the ticket.",
        does: "A dead letter.",
        todo: "Mend the publisher, or map its word in the route.",
    },
    ErrorPage {
        number: 107,
        codes: &["mapping"],
        title: "a template or rule of the route fails on this alert",
        said: "the template's error, with the name of the field",
        means: "Mostly an attribute that this alert does not have.",
        does: "A dead letter; nothing of the event is written.",
        todo: "Give the template a default (`labels.team or \"none\"`), restart, redrive.",
    },
    ErrorPage {
        number: 108,
        codes: &["parked"],
        title: "it waits behind a refused event of its alert",
        said: "waits behind a refused record of this key",
        means: "Nothing is wrong with this event. It must not overtake the one before it, which the instance refused.",
        does: "A dead letter, in order. An opening event, while no ticket is open, is tried and frees the key.",
        todo: "Mend what the key's first letter tells (`nowbridge dead-letters list --key …`), then redrive: letters go back in \
               their order, and the key is free.",
    },
];
