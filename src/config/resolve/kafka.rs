//! The Kafka cluster.

use std::time::Duration;

use super::super::raw::{RawKafka, RawMechanism, RawSasl, RawTls};
use super::super::resolved::{Kafka, Sasl, Tls};
use super::super::validate::join;
use super::Context;
use crate::kafka::options::PROTECTED;

pub(super) fn resolve(raw: RawKafka, context: &mut Context<'_>) -> Kafka {
    let bootstrap = raw.bootstrap.unwrap_or_default();
    if context.has("kafka.bootstrap") && !bootstrap.is_empty() && !bootstrap.split(',').all(is_host_port) {
        let message = "invalid bootstrap servers; use `host:port`, separated by commas";
        context.error("kafka.bootstrap", message);
    }
    let session_timeout = context.duration_in(
        "kafka.session_timeout",
        raw.session_timeout.as_deref(),
        Duration::from_secs(45),
        ("6s", "30m"),
    );
    let max_poll_interval = context.duration_in(
        "kafka.max_poll_interval",
        raw.max_poll_interval.as_deref(),
        Duration::from_secs(300).max(session_timeout),
        ("6s", "24h"),
    );
    if max_poll_interval < session_timeout {
        context.error("kafka.max_poll_interval", "must not be shorter than `session_timeout`");
    }
    let properties = raw.properties.unwrap_or_default();
    for name in properties.keys() {
        let at = join("kafka.properties", name);
        if let Some((_, reason)) = PROTECTED.iter().find(|(protected, _)| protected == name) {
            context.error(&at, &format!("`{name}` can't be set: {reason}"));
        }
    }
    Kafka {
        bootstrap,
        client_id: raw.client_id.unwrap_or_else(|| "nowbridge".into()),
        sasl: raw.sasl.and_then(|sasl| credentials(sasl, context)),
        tls: raw.tls.map(|raw| tls(raw, context)),
        session_timeout,
        max_poll_interval,
        properties,
    }
}

fn is_host_port(text: &str) -> bool {
    text.trim().rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn credentials(raw: RawSasl, context: &mut Context<'_>) -> Option<Sasl> {
    let mechanism = match raw.mechanism? {
        RawMechanism::Plain => "PLAIN",
        RawMechanism::Scram256 => "SCRAM-SHA-256",
        RawMechanism::Scram512 => "SCRAM-SHA-512",
    };
    let password = context.secret("kafka.sasl.password", raw.password)?;
    Some(Sasl { mechanism, user: raw.user?, password })
}

fn tls(raw: RawTls, context: &mut Context<'_>) -> Tls {
    if raw.certificate_file.is_some() != raw.key_file.is_some() {
        context.error("kafka.tls", "a client certificate needs both `certificate_file` and `key_file`");
    }
    Tls {
        ca_file: context.file("kafka.tls.ca_file", raw.ca_file),
        certificate_file: context.file("kafka.tls.certificate_file", raw.certificate_file),
        key_file: context.file("kafka.tls.key_file", raw.key_file),
        key_password: context.secret("kafka.tls.key_password", raw.key_password),
    }
}
