//! A broker for the tests: one for the whole run, found in this order: `NOWBRIDGE_TEST_KAFKA=host:port`; Docker, if a
//! daemon answers; a local Apache Kafka from its Maven artifacts, if a JDK and Maven are there; librdkafka's mock
//! cluster. Tests that prove a guarantee need a real one: they ask [`real`], which reports them as skipped, by name,
//! where there is none. `NOWBRIDGE_TEST_BROKER=docker|local|mock` asks for one kind only.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nowbridge::kafka::KafkaOptions;
use nowbridge::kafka::topics::{Strictness, TopicSpec, Topics};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use testcontainers_modules::kafka::apache::{KAFKA_PORT, Kafka};
use testcontainers_modules::testcontainers::ImageExt;
use testcontainers_modules::testcontainers::runners::SyncRunner;

pub use super::kafka_local::LocalBroker;
use super::kafka_local::leash;

/// A broker that the tests share.
pub struct Broker {
    /// `host:port`.
    pub bootstrap: String,
    /// Which kind it is, for people.
    pub kind: &'static str,
    /// A real Apache Kafka; else the mock, which proves no guarantee.
    pub real: bool,
    _keep: Keep,
}

/// What must live as long as the broker is used; ends with the process.
#[allow(dead_code)]
enum Keep {
    Nothing,
    Local(LocalBroker),
    Leash(std::process::Child),
}

static SHARED: OnceLock<Broker> = OnceLock::new();

impl Broker {
    /// The run's broker, started by whoever asks first.
    pub fn start() -> &'static Self {
        SHARED.get_or_init(|| {
            // On a thread of its own: whoever asks first may be on a runtime, and testcontainers brings its own.
            let broker = std::thread::spawn(find).join().expect("a broker is found or started");
            let line = format!("broker for these tests: {} at {}\n", broker.kind, broker.bootstrap);
            let _ = std::io::stderr().write_all(line.as_bytes());
            broker
        })
    }

    /// Options for clients of it.
    pub fn options(&self) -> KafkaOptions {
        KafkaOptions::new(&self.bootstrap)
    }

    /// Makes these topics.
    pub async fn create(&self, specs: &[TopicSpec]) {
        create(&self.options(), specs, !self.real).await;
    }
}

/// The shared broker if it is a real one; else says that this test is skipped.
pub fn real(test: &str) -> Option<&'static Broker> {
    let broker = Broker::start();
    if !broker.real {
        skipped(test, "a real Kafka (a JDK and Maven, Docker, or NOWBRIDGE_TEST_KAFKA)");
    }
    broker.real.then_some(broker)
}

/// A broker of one's own, to be broken; `None` says that this test is skipped.
pub fn private(test: &str, settings: &[(&str, &str)]) -> Option<LocalBroker> {
    let broker = LocalBroker::available().then(|| LocalBroker::start(settings));
    if broker.is_none() {
        skipped(test, "a broker of its own (a JDK and Maven)");
    }
    broker
}

/// A broker with SASL over TLS and client certificates; `None` says that this test is skipped.
pub fn secure(test: &str) -> Option<LocalBroker> {
    let broker = (LocalBroker::available() && runs("openssl", &["version"])).then(LocalBroker::start_secure);
    if broker.is_none() {
        skipped(test, "a secured broker (a JDK, Maven and openssl)");
    }
    broker
}

/// Says so past the test runner, which shows nothing of what a passing test prints.
fn skipped(test: &str, needs: &str) {
    let line = format!("SKIPPED {test}: needs {needs}; the guarantees that it proves were NOT tested\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A name that no other test and no other run uses.
pub fn unique(name: &str) -> String {
    format!("{name}-{:08x}", fastrand::u32(..))
}

/// Makes topics for one broker.
pub async fn create(options: &KafkaOptions, specs: &[TopicSpec], embedded: bool) {
    let topics = Topics::new(options, Duration::from_secs(20));
    let strictness = Strictness { unsafe_topics: true, embedded };
    topics.create_missing(specs, strictness).await.expect("the topics can be made");
}

/// Waits until a client gets metadata: the port opens earlier.
pub fn await_ready(bootstrap: &str, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let options = KafkaOptions::new(bootstrap);
    let consumer: BaseConsumer = options.lookup().create().expect("a client");
    while Instant::now() < deadline {
        let answer = consumer.fetch_metadata(None, Duration::from_millis(500));
        if answer.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
            return true;
        }
    }
    false
}

/// Whether a program is there and succeeds.
pub fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn find() -> Broker {
    let named = |bootstrap, kind, real, keep| Broker { bootstrap, kind, real, _keep: keep };
    if let Ok(bootstrap) = std::env::var("NOWBRIDGE_TEST_KAFKA") {
        assert!(await_ready(&bootstrap, Duration::from_secs(30)), "no Kafka answers at NOWBRIDGE_TEST_KAFKA");
        return named(bootstrap, "NOWBRIDGE_TEST_KAFKA", true, Keep::Nothing);
    }
    let wish = std::env::var("NOWBRIDGE_TEST_BROKER").unwrap_or_default();
    let wanted = |kind: &str| wish.is_empty() || wish == kind;
    if wanted("docker")
        && runs("timeout", &["5", "docker", "info"])
        && let Some((bootstrap, leash)) = in_docker()
    {
        return named(bootstrap, "Apache Kafka in Docker", true, Keep::Leash(leash));
    }
    if wanted("local") && LocalBroker::available() {
        let local = LocalBroker::start(&[]);
        return named(local.bootstrap.clone(), "local Apache Kafka", true, Keep::Local(local));
    }
    let mock = MockCluster::new(1).expect("librdkafka has a mock cluster");
    let bootstrap = mock.bootstrap_servers();
    // It can't stand in a static, and lives as long as the process.
    std::mem::forget(mock);
    named(bootstrap, "librdkafka's mock cluster", false, Keep::Nothing)
}

fn in_docker() -> Option<(String, std::process::Child)> {
    let mut image = Kafka::default().with_jvm_image().with_tag("4.1.0");
    // As in `tests/kafka/broker.properties`: short sessions, no waiting for members that won't come, one replica.
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
    // A static is never dropped, so the container is tied to this process by other means.
    let leash = leash(&format!("docker rm -f {}", container.id()));
    std::mem::forget(container);
    let bootstrap = format!("127.0.0.1:{port}");
    await_ready(&bootstrap, Duration::from_secs(60)).then_some((bootstrap, leash))
}
