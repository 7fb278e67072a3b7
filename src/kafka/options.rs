//! How this bridge configures its Kafka clients.
//!
//! A [`KafkaOptions`] is what a person may choose: where, as whom, and librdkafka properties passed through. The
//! builders add what the delivery guarantees rest on, last, so that nothing passed through can override it; and
//! [`check_properties`] refuses those properties by name, so that nobody believes a setting that is ignored.
//! Secrets appear in no `Debug` output and in no error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use secrecy::{ExposeSecret, SecretString};

use super::Error;

/// Properties that can't be passed through, and why. Delivery rests on them, or they have a setting of their own.
pub const PROTECTED: &[(&str, &str)] = &[
    ("group.protocol", "the rebalance rendezvous is built on the classic protocol"),
    ("partition.assignment.strategy", "partitions are handed over cooperatively; leave it out"),
    ("enable.auto.commit", "offsets are committed only when their records are resolved"),
    ("auto.commit.interval.ms", "offsets are committed only when their records are resolved"),
    ("enable.auto.offset.store", "offsets are committed only when their records are resolved"),
    ("auto.commit.enable", "offsets are committed only when their records are resolved"),
    ("auto.offset.reset", "the route's own `start` setting says where reading begins; a reset would skip records"),
    ("isolation.level", "each reader needs a certain level"),
    ("enable.partition.eof", "table reads rest on it"),
    ("acks", "an acknowledgement by fewer replicas proves nothing"),
    ("request.required.acks", "an acknowledgement by fewer replicas proves nothing"),
    ("enable.idempotence", "without it a retry inside the client doubles a record"),
    ("enable.gapless.guarantee", "the bridge handles gaps itself"),
    ("max.in.flight", "order per key rests on it"),
    ("max.in.flight.requests.per.connection", "order per key rests on it"),
    ("transactional.id", "the bridge derives it from the route"),
    ("transaction.timeout.ms", "set by the bridge"),
    ("message.timeout.ms", "the drain deadline rests on it"),
    ("delivery.timeout.ms", "the drain deadline rests on it"),
    ("allow.auto.create.topics", "a topic made by accident has the wrong settings; use `nowbridge topics create`"),
    ("session.timeout.ms", "use the setting `kafka.session_timeout`: leases are counted from it"),
    ("max.poll.interval.ms", "use the setting `kafka.max_poll_interval`: leases are counted from it"),
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
    ("statistics.interval.ms", "the bridge counts for itself"),
    ("log.queue", "log lines go to the bridge's log"),
    ("test.mock.num.brokers", "it would replace the cluster by a mock"),
    ("plugin.library.paths", "the bridge loads no code"),
];

/// What a person may choose about the connection to the cluster.
#[derive(Clone)]
pub struct KafkaOptions {
    /// `host:port`, several separated by commas.
    pub bootstrap: String,
    /// Names this process in the brokers' logs and quotas.
    pub client_id: String,
    /// librdkafka properties passed through, already checked by [`check_properties`].
    pub properties: BTreeMap<String, String>,
    /// TLS and SASL.
    pub security: Security,
}

/// How connections are secured. Neither part set: plain text.
#[derive(Clone, Default)]
pub struct Security {
    /// Encryption.
    pub tls: Option<Tls>,
    /// Authentication.
    pub sasl: Option<Sasl>,
}

/// TLS settings. All files are PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Authorities to trust; the system's where `None`.
    pub ca: Option<PathBuf>,
    /// Our certificate chain, for brokers that ask for one.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// The key's passphrase.
    pub key_password: Option<SecretString>,
}

/// SASL settings.
#[derive(Clone)]
pub struct Sasl {
    /// How.
    pub mechanism: Mechanism,
    /// Who.
    pub username: String,
    /// The proof.
    pub password: SecretString,
}

/// The SASL mechanisms that need nothing installed. Kerberos is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// PLAIN; the password crosses the connection, so use it over TLS only.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaOptions {
    /// Plain text, nothing passed through.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            client_id: "nowbridge".into(),
            properties: BTreeMap::new(),
            security: Security::default(),
        }
    }

    /// For a consumer in a group: cooperative, nothing automatic, small buffers.
    pub fn group_consumer(&self, group: &str, session_timeout: Duration, max_poll_interval: Duration) -> ClientConfig {
        let mut config = self.consumer_base(group);
        let heartbeat = millis((session_timeout / 10).min(Duration::from_secs(3)));
        set_default(&mut config, &self.properties, "heartbeat.interval.ms", &heartbeat);
        // By default a broker answers with each single record. To wait for more, 50 ms at most, saves a quarter of the CPU
        // at 200 events a second, and the broker's share too.
        set_default(&mut config, &self.properties, "fetch.min.bytes", "65536");
        set_default(&mut config, &self.properties, "fetch.wait.max.ms", "50");
        // A commit that hangs on a dead connection must not outlast several leases.
        let socket = millis(session_timeout.clamp(Duration::from_secs(6), Duration::from_secs(30)));
        set_default(&mut config, &self.properties, "socket.timeout.ms", &socket);
        config
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", millis(session_timeout))
            .set("max.poll.interval.ms", millis(max_poll_interval))
            // A reset would silently skip or repeat records; an error stops the partition and says so.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "false");
        config
    }

    /// For a reader of one partition that joins no group. librdkafka wants a group's name for any consumer; `group`
    /// should be one that the access rules allow.
    pub fn table_reader(&self, group: &str, isolation: Isolation) -> ClientConfig {
        let mut config = self.consumer_base(group);
        set_default(&mut config, &self.properties, "fetch.wait.max.ms", "100");
        config
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", isolation.name())
            .set("enable.partition.eof", "true")
            // A table is read as fast as it goes, and then the client is closed.
            .set("fetch.message.max.bytes", "4194304")
            .set("queued.min.messages", "200000")
            .set("queued.max.messages.kbytes", "16384");
        config
    }

    /// For look-ups only: metadata, watermarks. Creates no topics.
    pub fn lookup(&self) -> ClientConfig {
        let mut config = self.base(Role::Consumer);
        // Ends are asked for as they are, open transactions included.
        config.set("allow.auto.create.topics", "false").set("isolation.level", "read_uncommitted");
        config
    }

    /// For an idempotent producer whose records are acknowledged by all in-sync replicas, or given up after `timeout`.
    pub fn producer(&self, timeout: Duration) -> ClientConfig {
        let mut config = self.base(Role::Producer);
        // Small batches cost the client and the broker more than the records in them, and each partition's is a request of
        // its own: at 200 events a second 25 ms instead of 5 save a third of the CPU. Nobody waits for it, since claims
        // are made ahead and calls take far longer.
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

    /// For a transactional producer. `timeout` bounds a transaction, on the broker too.
    pub fn transactional_producer(&self, transactional_id: &str, timeout: Duration) -> ClientConfig {
        let mut config = self.producer(timeout);
        config.set("transactional.id", transactional_id).set("transaction.timeout.ms", millis(timeout));
        config
    }

    /// For the admin client.
    pub fn admin(&self) -> ClientConfig {
        self.base(Role::Producer)
    }

    fn consumer_base(&self, group: &str) -> ClientConfig {
        let mut config = self.base(Role::Consumer);
        let given = &self.properties;
        // librdkafka fetches 64 MB ahead by default, which a pause throws away again.
        set_default(&mut config, given, "queued.max.messages.kbytes", "2048");
        set_default(&mut config, given, "queued.min.messages", "2000");
        set_default(&mut config, given, "fetch.message.max.bytes", "524288");
        // Its default waits a second after the queue was full, which shows as gaps in the flow.
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
            if role.takes(name) {
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

/// Which records of transactions a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Records of open and aborted transactions, too.
    Uncommitted,
    /// Only what was committed, up to the first open transaction.
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
    /// librdkafka warns about a producer's property on a consumer, and the other way round, each time a client is
    /// made; one list of properties serves both here, so each gets its own.
    fn takes(self, name: &str) -> bool {
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
        let other = match self {
            Self::Consumer => PRODUCER,
            Self::Producer => CONSUMER,
        };
        !other.iter().any(|prefix| name.starts_with(prefix))
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

/// Refuses properties that may not be passed through, all at once.
pub fn check_properties(properties: &BTreeMap<String, String>) -> Vec<Error> {
    let refuse = |name: &str| {
        let found = PROTECTED.iter().find(|(protected, _)| *protected == name);
        found.map(|(_, reason)| Error::Property { name: name.to_owned(), reason: (*reason).to_owned() })
    };
    properties.keys().filter_map(|name| refuse(name)).collect()
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may hold secrets under names that we do not know, so only names are shown.
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

/// Sends librdkafka's log lines to the bridge's log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Logging;

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a table is where its reading ends, and no trouble.
        if !matches!(error, KafkaError::PartitionEOF(_)) {
            tracing::warn!(target: "librdkafka", %error, "{reason}");
        }
    }
}

impl ConsumerContext for Logging {}

/// The same for contexts that do more than log.
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

    fn with(properties: &[(&str, &str)]) -> KafkaOptions {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        KafkaOptions { properties, ..KafkaOptions::new("broker:9092") }
    }

    #[test]
    fn what_guarantees_rest_on_is_refused_by_name_all_at_once() {
        let options = with(&[("acks", "1"), ("linger.ms", "5"), ("enable.auto.commit", "true")]);
        let refused: Vec<String> = check_properties(&options.properties).iter().map(ToString::to_string).collect();
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused[0].contains("`acks`") && refused[1].contains("`enable.auto.commit`"), "{refused:?}");
    }

    #[test]
    fn nothing_passed_through_overrides_what_guarantees_rest_on() {
        // As if the check had been forgotten.
        let given: Vec<(&str, &str)> = PROTECTED.iter().map(|(name, _)| (*name, "0")).collect();
        let options = with(&given);
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
    fn librdkafka_takes_every_configuration() {
        let options = with(&[("compression.type", "zstd"), ("fetch.wait.max.ms", "70"), ("linger.ms", "2")]);
        let limits = (Duration::from_secs(6), Duration::from_secs(60));
        for config in [
            options.group_consumer("g", limits.0, limits.1),
            options.table_reader("g", Isolation::Committed),
            options.lookup(),
            options.producer(limits.0),
            options.transactional_producer("t", limits.0),
            options.admin(),
        ] {
            config.create_native_config().expect("known names and values");
        }
        let consumer = options.group_consumer("g", limits.0, limits.1);
        assert_eq!((consumer.get("linger.ms"), consumer.get("fetch.wait.max.ms")), (None, Some("70")));
    }

    #[test]
    fn secrets_are_not_shown() {
        let sasl = Sasl { mechanism: Mechanism::Plain, username: "me".into(), password: "hush".to_owned().into() };
        let tls = Tls { key_password: Some("hush".to_owned().into()), ..Tls::default() };
        let mut options = with(&[("ssl.key.pem", "hush")]);
        options.security = Security { tls: Some(tls), sasl: Some(sasl) };
        let shown =
            format!("{options:?} {:?}", options.producer(Duration::from_secs(1)).get("ssl.key.password").is_some());
        assert!(!shown.contains("hush") && shown.contains("ssl.key.pem") && shown.contains("me"), "{shown}");
    }
}
