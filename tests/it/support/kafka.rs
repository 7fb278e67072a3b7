//! The Kafka broker of the tests: one for the whole run. It is the first of these that is available: the broker named
//! by
//! `NOWBRIDGE_TEST_KAFKA=host:port`; Docker, if the tests are built with `--features docker` and a daemon responds; a
//! local Apache Kafka from its Maven artifacts, if a JDK and Maven are installed; librdkafka's mock cluster.
//! `NOWBRIDGE_TEST_BROKER=docker|local|mock` allows only one kind. Tests that prove a guarantee need a real Kafka: they
//! call [`real`], which reports them as skipped, by name, if there is none.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nowbridge::kafka::KafkaOptions;
use nowbridge::kafka::topics::{Strictness, TopicSpec, Topics};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;

pub use super::kafka_local::LocalBroker;

/// A broker that the tests share.
pub struct Broker {
    /// `host:port`.
    pub bootstrap: String,
    /// Its kind in words.
    pub kind: &'static str,
    /// Whether it is a real Apache Kafka. The mock cluster proves no guarantee.
    pub real: bool,
    _keep: Keep,
}

/// What must exist as long as the broker is used.
#[allow(dead_code)]
enum Keep {
    Nothing,
    Local(LocalBroker),
    ExitCommand(std::process::Child),
}

static SHARED: OnceLock<Broker> = OnceLock::new();

impl Broker {
    /// Returns the run's broker. The first call starts it.
    pub fn start() -> &'static Self {
        SHARED.get_or_init(|| {
            // In a thread of its own: the caller may be in a tokio runtime, and testcontainers starts another one.
            let broker = std::thread::spawn(find_or_start).join().expect("a broker is found or started");
            let line = format!("broker of these tests: {} at {}\n", broker.kind, broker.bootstrap);
            let _ = std::io::stderr().write_all(line.as_bytes());
            broker
        })
    }

    /// Options for its clients.
    pub fn options(&self) -> KafkaOptions {
        KafkaOptions::new(&self.bootstrap)
    }

    /// Creates these topics.
    pub async fn create(&self, specs: &[TopicSpec]) {
        create(&self.options(), specs, !self.real).await;
    }
}

/// Returns the shared broker if it is a real Kafka, else reports the test as skipped.
pub fn real(test: &str) -> Option<&'static Broker> {
    let broker = Broker::start();
    if !broker.real {
        skipped(test, REAL_KAFKA);
    }
    broker.real.then_some(broker)
}

/// All ways to a real Kafka, for messages.
pub const REAL_KAFKA: &str = "a real Kafka: a JDK and Maven, Docker with `cargo test --features docker`, or \
                              NOWBRIDGE_TEST_KAFKA=host:port";

/// Starts a broker for one test, which may kill or freeze it and use any topic names; or reports the test as skipped.
pub fn private(test: &str, settings: &[(&str, &str)]) -> Option<LocalBroker> {
    let broker = LocalBroker::available().then(|| LocalBroker::start(settings));
    if broker.is_none() {
        skipped(test, "a broker of its own: a JDK and Maven");
    }
    broker
}

/// Starts a broker with SASL over TLS and client certificates, or reports the test as skipped.
pub fn secure(test: &str) -> Option<LocalBroker> {
    let broker = (LocalBroker::available() && runs("openssl", &["version"])).then(LocalBroker::start_secure);
    if broker.is_none() {
        skipped(test, "a secured broker: a JDK, Maven and openssl");
    }
    broker
}

/// Reports a test as skipped. Writes past the test runner, which hides the output of passing tests.
pub fn skipped(test: &str, needs: &str) {
    let line = format!("SKIPPED {test}: needs {needs}. What it proves was NOT tested\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Returns a name that no other test and no other run uses.
pub fn unique(name: &str) -> String {
    format!("{name}-{:08x}", fastrand::u32(..))
}

/// Creates topics on a broker.
pub async fn create(options: &KafkaOptions, specs: &[TopicSpec], embedded: bool) {
    let topics = Topics::new(options, Duration::from_secs(20));
    let strictness = Strictness { unsafe_topics: true, embedded };
    topics.create_missing(specs, strictness).await.expect("the topics are created");
}

/// Waits until a client gets metadata; a broker opens its port earlier. Returns false after `timeout`.
pub fn await_ready(bootstrap: &str, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    let options = KafkaOptions::new(bootstrap);
    let consumer: BaseConsumer = options.lookup().create().expect("a client");
    while Instant::now() < deadline {
        let response = consumer.fetch_metadata(None, Duration::from_millis(500));
        if response.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
            return true;
        }
    }
    false
}

/// Whether a program is installed and succeeds with these arguments.
pub fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn find_or_start() -> Broker {
    let broker = |bootstrap, kind, real, keep| Broker { bootstrap, kind, real, _keep: keep };
    if let Ok(bootstrap) = std::env::var("NOWBRIDGE_TEST_KAFKA") {
        assert!(await_ready(&bootstrap, Duration::from_secs(30)), "no Kafka responds at NOWBRIDGE_TEST_KAFKA");
        return broker(bootstrap, "NOWBRIDGE_TEST_KAFKA", true, Keep::Nothing);
    }
    let only = std::env::var("NOWBRIDGE_TEST_BROKER").unwrap_or_default();
    let allowed = |kind: &str| only.is_empty() || only == kind;
    #[cfg(feature = "docker")]
    if allowed("docker")
        && runs("timeout", &["5", "docker", "info"])
        && let Some((bootstrap, exit_command)) = docker::start()
    {
        return broker(bootstrap, "Apache Kafka in Docker", true, Keep::ExitCommand(exit_command));
    }
    assert!(
        cfg!(feature = "docker") || only != "docker",
        "NOWBRIDGE_TEST_BROKER=docker needs the tests built with Docker support: cargo test --features docker"
    );
    if allowed("local") && LocalBroker::available() {
        let local = LocalBroker::start(&[]);
        return broker(local.bootstrap.clone(), "local Apache Kafka", true, Keep::Local(local));
    }
    let mock = MockCluster::new(1).expect("librdkafka has a mock cluster");
    let bootstrap = mock.bootstrap_servers();
    // A static cannot hold it; it exists as long as the process.
    std::mem::forget(mock);
    broker(bootstrap, "librdkafka's mock cluster", false, Keep::Nothing)
}

#[cfg(feature = "docker")]
mod docker {
    use std::time::Duration;

    use testcontainers_modules::kafka::apache::{KAFKA_PORT, Kafka};
    use testcontainers_modules::testcontainers::ImageExt;
    use testcontainers_modules::testcontainers::runners::SyncRunner;

    use super::await_ready;
    use crate::support::kafka_local::run_at_exit;

    /// Starts Apache Kafka in a container. Returns its `host:port`, and the command that removes it.
    pub(super) fn start() -> Option<(String, std::process::Child)> {
        let mut image = Kafka::default().with_jvm_image().with_tag("4.1.0");
        // As in `tests/kafka/broker.properties`: short sessions, no delay of the first rebalance, one replica.
        for (name, value) in [
            ("KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS", "1000"),
            ("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
            ("KAFKA_LOG_CLEANER_BACKOFF_MS", "200"),
            ("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false"),
            ("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1"),
            ("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1"),
        ] {
            image = image.with_env_var(name, value);
        }
        let container = image.start();
        let container = container.inspect_err(|error| eprintln!("no Kafka in Docker: {error}")).ok()?;
        let port = container.get_host_port_ipv4(KAFKA_PORT).ok()?;
        // A static is never dropped, so a shell removes the container when this process ends.
        let exit_command = run_at_exit(&format!("docker rm -f {}", container.id()));
        std::mem::forget(container);
        let bootstrap = format!("127.0.0.1:{port}");
        await_ready(&bootstrap, Duration::from_secs(60)).then_some((bootstrap, exit_command))
    }
}
