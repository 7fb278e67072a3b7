//! The configuration of the Kafka clients.
//!
//! [`KafkaOptions`] contains what the user may choose: brokers, credentials, and librdkafka properties that are passed
//! through. The builders set the properties on which the delivery guarantees depend last, so that a property that is
//! passed through cannot override them. [`check_properties`] rejects these properties by name, so that no setting is
//! silently ignored. Secrets never appear in `Debug` output or errors.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use secrecy::{ExposeSecret, SecretString};

use super::Error;

/// Properties that cannot be passed through, and the reason: the delivery guarantees depend on them, or they have a
/// setting of their own.
pub const PROTECTED: &[(&str, &str)] = &[
    ("group.protocol", "the rebalance callback needs the classic protocol"),
    ("partition.assignment.strategy", "the bridge needs cooperative rebalancing; remove it"),
    ("enable.auto.commit", "offsets are committed only when their records are resolved"),
    ("auto.commit.interval.ms", "offsets are committed only when their records are resolved"),
    ("enable.auto.offset.store", "offsets are committed only when their records are resolved"),
    ("auto.commit.enable", "offsets are committed only when their records are resolved"),
    ("auto.offset.reset", "use the route's setting `start`; a reset would skip records"),
    ("isolation.level", "the bridge sets it for each reader"),
    ("enable.partition.eof", "reads of compacted topics depend on it"),
    ("acks", "an acknowledgement by fewer replicas does not guarantee durability"),
    ("request.required.acks", "an acknowledgement by fewer replicas does not guarantee durability"),
    ("enable.idempotence", "without it, a retry in the client can duplicate a record"),
    ("enable.gapless.guarantee", "the bridge handles gaps itself"),
    ("max.in.flight", "the order per key depends on it"),
    ("max.in.flight.requests.per.connection", "the order per key depends on it"),
    ("transactional.id", "the bridge derives it from the route"),
    ("transaction.timeout.ms", "set by the bridge"),
    ("message.timeout.ms", "the drain deadline depends on it"),
    ("delivery.timeout.ms", "the drain deadline depends on it"),
    (
        "allow.auto.create.topics",
        "an automatically created topic has the wrong settings; use `nowbridge topics create`",
    ),
    ("session.timeout.ms", "use the setting `kafka.session_timeout`: leases depend on it"),
    ("max.poll.interval.ms", "use the setting `kafka.max_poll_interval`: leases depend on it"),
    ("group.id", "use the route's setting `group`"),
    ("bootstrap.servers", "use the setting `kafka.bootstrap`"),
    ("metadata.broker.list", "use the setting `kafka.bootstrap`"),
    ("client.id", "use the setting `kafka.client_id`"),
    ("sasl.username", "use the settings under `kafka.sasl`"),
    ("sasl.password", "use the settings under `kafka.sasl`"),
    ("sasl.mechanism", "use the settings under `kafka.sasl`"),
    ("sasl.mechanisms", "use the settings under `kafka.sasl`"),
    ("security.protocol", "use the settings under `kafka.tls` and `kafka.sasl`"),
    ("ssl.ca.location", "use the settings under `kafka.tls`"),
    ("ssl.certificate.location", "use the settings under `kafka.tls`"),
    ("ssl.key.location", "use the settings under `kafka.tls`"),
    ("ssl.key.password", "use the settings under `kafka.tls`"),
    ("statistics.interval.ms", "the bridge has metrics of its own"),
    ("log.queue", "librdkafka logs to the bridge's log"),
    ("test.mock.num.brokers", "it would replace the cluster with a mock cluster"),
    ("plugin.library.paths", "the bridge loads no plugins"),
];

/// The user's settings for the connection to the cluster.
#[derive(Clone)]
pub struct KafkaOptions {
    /// Comma-separated list of `host:port`.
    pub bootstrap: String,
    /// `client.id`: identifies this process in the brokers' logs and quotas.
    pub client_id: String,
    /// librdkafka properties that are passed through, already checked by [`check_properties`].
    pub properties: BTreeMap<String, String>,
    pub security: Security,
}

/// Encryption and authentication. Without both, connections are plain text.
#[derive(Clone, Default)]
pub struct Security {
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
}

/// TLS settings. All files are PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Trusted certificate authorities; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The client certificate chain, for brokers that require one.
    pub certificate: Option<PathBuf>,
    /// The private key of the certificate.
    pub key: Option<PathBuf>,
    /// The passphrase of the key.
    pub key_password: Option<SecretString>,
}

/// SASL settings.
#[derive(Clone)]
pub struct Sasl {
    pub mechanism: Mechanism,
    pub username: String,
    pub password: SecretString,
}

/// A SASL mechanism. Kerberos is not supported, because it needs system libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Sends the password over the connection, so use it only over TLS.
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    /// Returns the value of `sasl.mechanism`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaOptions {
    /// Options without TLS, SASL and properties.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            client_id: "nowbridge".into(),
            properties: BTreeMap::new(),
            security: Security::default(),
        }
    }

    /// Configuration of a consumer in a group: cooperative rebalancing, manual commits, small buffers.
    pub fn group_consumer(&self, group: &str, session_timeout: Duration, max_poll_interval: Duration) -> ClientConfig {
        let mut config = self.consumer_base(group);
        let heartbeat = millis((session_timeout / 10).min(Duration::from_secs(3)));
        set_default(&mut config, &self.properties, "heartbeat.interval.ms", &heartbeat);
        // By default, a broker responds as soon as it has one record. Waiting up to 50 ms for more saves a quarter of
        // the CPU time at 200 events per second, and CPU time of the broker too.
        set_default(&mut config, &self.properties, "fetch.min.bytes", "65536");
        set_default(&mut config, &self.properties, "fetch.wait.max.ms", "50");
        // A commit that hangs on a dead connection must not last longer than several leases.
        let socket = millis(session_timeout.clamp(Duration::from_secs(6), Duration::from_secs(30)));
        set_default(&mut config, &self.properties, "socket.timeout.ms", &socket);
        config
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", millis(session_timeout))
            .set("max.poll.interval.ms", millis(max_poll_interval))
            // A reset would silently skip or repeat records; an error stops the partition and is reported.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "false");
        config
    }

    /// Configuration of a reader of one partition that joins no group. librdkafka requires a group name for every
    /// consumer; the ACLs should allow `group`.
    pub fn table_reader(&self, group: &str, isolation: Isolation) -> ClientConfig {
        let mut config = self.consumer_base(group);
        set_default(&mut config, &self.properties, "fetch.wait.max.ms", "100");
        config
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", isolation.name())
            .set("enable.partition.eof", "true")
            // Large buffers: a table is read at full speed, and then the client is closed.
            .set("fetch.message.max.bytes", "4194304")
            .set("queued.min.messages", "200000")
            .set("queued.max.messages.kbytes", "16384");
        config
    }

    /// Configuration of a client for metadata and watermarks. It creates no topics.
    pub fn lookup(&self) -> ClientConfig {
        let mut config = self.base(Role::Consumer);
        // The end of a partition includes open transactions.
        config.set("allow.auto.create.topics", "false").set("isolation.level", "read_uncommitted");
        config
    }

    /// Configuration of an idempotent producer with `acks=all`. Records that are not acknowledged within `timeout`
    /// fail.
    pub fn producer(&self, timeout: Duration) -> ClientConfig {
        let mut config = self.base(Role::Producer);
        // Small batches cost the client and the broker more than the records in them, and each partition's batch is a
        // separate request: at 200 events per second, 25 ms instead of 5 save a third of the CPU time. It delays
        // nothing, since claims are written ahead and calls to the instance take far longer.
        set_default(&mut config, &self.properties, "linger.ms", "25");
        set_default(&mut config, &self.properties, "queue.buffering.max.kbytes", "65536");
        set_default(&mut config, &self.properties, "queue.buffering.max.messages", "200000");
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("max.in.flight", "5")
            .set("message.timeout.ms", millis(timeout));
        config
    }

    /// Configuration of a transactional producer. `timeout` limits a transaction, on the broker too.
    pub fn transactional_producer(&self, transactional_id: &str, timeout: Duration) -> ClientConfig {
        let mut config = self.producer(timeout);
        config.set("transactional.id", transactional_id).set("transaction.timeout.ms", millis(timeout));
        config
    }

    /// Configuration of the admin client.
    pub fn admin(&self) -> ClientConfig {
        self.base(Role::Producer)
    }

    fn consumer_base(&self, group: &str) -> ClientConfig {
        let mut config = self.base(Role::Consumer);
        let given = &self.properties;
        // By default, librdkafka prefetches 64 MB, which a pause discards.
        set_default(&mut config, given, "queued.max.messages.kbytes", "2048");
        set_default(&mut config, given, "queued.min.messages", "2000");
        set_default(&mut config, given, "fetch.message.max.bytes", "524288");
        // By default, fetching pauses for a second after the queue was full, which causes gaps.
        set_default(&mut config, given, "fetch.queue.backoff.ms", "5");
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("allow.auto.create.topics", "false");
        config
    }

    fn base(&self, role: Role) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            if role.accepts(name) {
                config.set(name, value);
            }
        }
        config.set("bootstrap.servers", &self.bootstrap).set("client.id", &self.client_id);
        config.set("statistics.interval.ms", "0");
        let protocol = match (&self.security.tls, &self.security.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.security.tls {
            let files = [
                ("ssl.ca.location", &tls.ca),
                ("ssl.certificate.location", &tls.certificate),
                ("ssl.key.location", &tls.key),
            ];
            for (name, path) in files {
                if let Some(path) = path {
                    config.set(name, path.to_string_lossy());
                }
            }
            if let Some(password) = &tls.key_password {
                config.set("ssl.key.password", password.expose_secret());
            }
        }
        if let Some(sasl) = &self.security.sasl {
            config
                .set("sasl.mechanism", sasl.mechanism.name())
                .set("sasl.username", &sasl.username)
                .set("sasl.password", sasl.password.expose_secret());
        }
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }
}

/// The isolation level of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Includes records of open and aborted transactions.
    Uncommitted,
    /// Only committed records, up to the first open transaction.
    Committed,
}

impl Isolation {
    fn name(self) -> &'static str {
        match self {
            Self::Uncommitted => "read_uncommitted",
            Self::Committed => "read_committed",
        }
    }
}

#[derive(Clone, Copy)]
enum Role {
    Consumer,
    Producer,
}

impl Role {
    /// Whether a client of this role gets the property. librdkafka logs a warning for a producer property on a consumer
    /// and vice versa, and the user's properties are for both.
    fn accepts(self, name: &str) -> bool {
        const CONSUMER: &[&str] =
            &["fetch.", "queued.", "group.", "heartbeat.", "consume.", "check.crcs", "coordinator."];
        const PRODUCER: &[&str] = &[
            "queue.buffering.",
            "linger.",
            "batch.",
            "compression.",
            "message.send.",
            "sticky.",
            "partitioner",
            "delivery.",
        ];
        let foreign = match self {
            Self::Consumer => PRODUCER,
            Self::Producer => CONSUMER,
        };
        !foreign.iter().any(|prefix| name.starts_with(prefix))
    }
}

fn set_default(config: &mut ClientConfig, given: &BTreeMap<String, String>, name: &str, value: &str) {
    if !given.contains_key(name) {
        config.set(name, value);
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// Returns an error for each property that cannot be passed through.
pub fn check_properties(properties: &BTreeMap<String, String>) -> Vec<Error> {
    let protected_error = |name: &str| {
        let found = PROTECTED.iter().find(|(protected, _)| *protected == name);
        found.map(|(_, reason)| Error::Property { name: name.to_owned(), reason: (*reason).to_owned() })
    };
    properties.keys().filter_map(|name| protected_error(name)).collect()
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Any value may be a secret, so only the names are shown.
        f.debug_struct("KafkaOptions")
            .field("bootstrap", &self.bootstrap)
            .field("client_id", &self.client_id)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("security", &self.security)
            .finish()
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sasl = self.sasl.as_ref().map(|sasl| (sasl.mechanism, sasl.username.as_str()));
        f.debug_struct("Security").field("tls", &self.tls.is_some()).field("sasl", &sasl).finish()
    }
}

/// Client context that writes librdkafka's log lines to the bridge's log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Logging;

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Logging {}

/// Logs an error that librdkafka reports outside of any call. The end of a partition is not one: table reads wait for
/// it.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
        tracing::warn!(target: "librdkafka", %error, "{reason}");
    }
}

/// Writes a log line of librdkafka, for contexts that do more than log.
pub(super) fn log(level: RDKafkaLogLevel, fac: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", fac, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", fac, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", fac, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", fac, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_with(properties: &[(&str, &str)]) -> KafkaOptions {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        KafkaOptions { properties, ..KafkaOptions::new("broker:9092") }
    }

    #[test]
    fn protected_properties_are_all_rejected_by_name() {
        let options = options_with(&[("acks", "1"), ("linger.ms", "5"), ("enable.auto.commit", "true")]);
        let rejected: Vec<String> = check_properties(&options.properties).iter().map(ToString::to_string).collect();
        assert_eq!(rejected.len(), 2, "{rejected:?}");
        assert!(rejected[0].contains("`acks`") && rejected[1].contains("`enable.auto.commit`"), "{rejected:?}");
    }

    #[test]
    fn protected_properties_are_not_overridden() {
        // Without the check.
        let given: Vec<(&str, &str)> = PROTECTED.iter().map(|(name, _)| (*name, "0")).collect();
        let options = options_with(&given);
        let consumer = options.group_consumer("g", Duration::from_secs(6), Duration::from_secs(60));
        for (name, value) in [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("isolation.level", "read_committed"),
            ("session.timeout.ms", "6000"),
            ("group.id", "g"),
        ] {
            assert_eq!(consumer.get(name), Some(value), "{name}");
        }
        let producer = options.producer(Duration::from_secs(2));
        for (name, value) in [("acks", "all"), ("enable.idempotence", "true"), ("message.timeout.ms", "2000")] {
            assert_eq!(producer.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn librdkafka_accepts_every_configuration() {
        let options = options_with(&[("compression.type", "zstd"), ("fetch.wait.max.ms", "70"), ("linger.ms", "2")]);
        let (session_timeout, max_poll_interval) = (Duration::from_secs(6), Duration::from_secs(60));
        for config in [
            options.group_consumer("g", session_timeout, max_poll_interval),
            options.table_reader("g", Isolation::Committed),
            options.lookup(),
            options.producer(session_timeout),
            options.transactional_producer("t", session_timeout),
            options.admin(),
        ] {
            config.create_native_config().expect("known names and values");
        }
        let consumer = options.group_consumer("g", session_timeout, max_poll_interval);
        assert_eq!((consumer.get("linger.ms"), consumer.get("fetch.wait.max.ms")), (None, Some("70")));
    }

    #[test]
    fn secrets_are_not_shown() {
        let sasl = Sasl { mechanism: Mechanism::Plain, username: "me".into(), password: "hush".to_owned().into() };
        let tls = Tls { key_password: Some("hush".to_owned().into()), ..Tls::default() };
        let mut options = options_with(&[("ssl.key.pem", "hush")]);
        options.security = Security { tls: Some(tls), sasl: Some(sasl) };
        let shown =
            format!("{options:?} {:?}", options.producer(Duration::from_secs(1)).get("ssl.key.password").is_some());
        assert!(!shown.contains("hush") && shown.contains("ssl.key.pem") && shown.contains("me"), "{shown}");
    }
}
