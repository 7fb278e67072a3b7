//! Checks of Kafka: reachable, authenticated, topics configured as required, consumer groups permitted.

use super::CheckContext;
use super::run::{CheckRun, Verdict};
use crate::kafka::probe::{self, Cluster, Unreachable};
use crate::kafka::topics::{Purpose, TopicSpec, Topics};
use crate::runtime::error_chain;

pub async fn check(run: &mut CheckRun<'_>, context: &CheckContext<'_>) {
    run.start("the Kafka cluster");
    let reached = probe::connect(&context.kafka, context.options.kafka_timeout).await;
    if !run.record("kafka.reach", "Kafka reachable and authenticated", reach_verdict(context, reached)) {
        run.record("kafka.topics", "topics and groups", Verdict::skipped("the cluster is not reachable"));
        return;
    }
    let topics = Topics::new(&context.kafka, context.options.kafka_timeout);
    let (mut counts, mut read) = (Vec::new(), Vec::new());
    for sink in &context.config.sinks {
        // The check of the topic below reports an input that is missing or forbidden.
        let mut state = topics.describe(sink.consumed_topic()).await.ok().flatten();
        read.push(if state.is_some() { sink.consumed_topic() } else { &sink.topic });
        if state.is_none() && sink.repartition_topic.is_some() {
            // It will be created with the partition count of the topic that is repartitioned.
            state = topics.describe(&sink.topic).await.ok().flatten();
        }
        counts.push(state.map_or(1, |state| state.partitions));
    }
    let mut checked = Vec::new();
    for spec in (context.topics)(&counts) {
        if checked.contains(&spec.name) {
            continue;
        }
        run.start(&format!("topic {}", spec.name));
        let title = format!("topic {} ({})", spec.name, purpose_label(spec.purpose));
        run.record(format!("topic.{}", spec.name), title, topic_verdict(context, &topics, &spec).await);
        checked.push(spec.name);
    }
    for (sink, topic) in context.config.sinks.iter().zip(read) {
        check_group(run, context, &format!("sink.{}.group", sink.name), &sink.group, topic).await;
        for (other, topic) in sink.consumer_groups().iter().skip(1) {
            let purpose = other.rsplit('.').next().unwrap_or_default();
            check_group(run, context, &format!("sink.{}.{purpose}", sink.name), other, topic).await;
        }
    }
}

async fn check_group(run: &mut CheckRun<'_>, context: &CheckContext<'_>, id: &str, group: &str, topic: &str) {
    run.start(&format!("group {group}"));
    let offset = probe::group_offset(&context.kafka, group, topic, context.options.kafka_timeout).await;
    let verdict = match offset {
        Ok(Some(offset)) => Verdict::pass(format!("committed offset of partition 0: {offset}")),
        Ok(None) => Verdict::pass("no committed offset yet"),
        Err(error) => Verdict::fail(
            error_chain::chain(&error),
            format!("allow this user Read on the group {group} (`nowbridge topics create --print` lists the ACLs)"),
        ),
    };
    run.record(id, format!("consumer group {group} can be used"), verdict);
}

fn reach_verdict(context: &CheckContext<'_>, reached: Result<Cluster, Unreachable>) -> Verdict {
    let bootstrap = &context.config.kafka.bootstrap;
    match reached {
        Ok(Cluster { brokers, id }) => {
            let id = id.map(|id| format!(", cluster {id}")).unwrap_or_default();
            let security = match (&context.config.kafka.tls, &context.config.kafka.sasl) {
                (None, None) => "without TLS or authentication",
                (Some(_), None) => "over TLS, without authentication",
                (None, Some(sasl)) if sasl.mechanism == "PLAIN" => {
                    return Verdict::warn(
                        format!("{brokers} brokers at {bootstrap}{id}; the password is sent in clear text"),
                        "use TLS (`kafka.tls`) or a SCRAM mechanism",
                    );
                }
                (None, Some(_)) => "authenticated, without TLS",
                (Some(_), Some(_)) => "authenticated over TLS",
            };
            Verdict::pass(format!("{brokers} brokers at {bootstrap}{id}, {security}"))
        }
        Err(error) => {
            let remedy = match &error {
                Unreachable::Credentials(_) => "check `kafka.sasl`: mechanism, user and password",
                Unreachable::Tls(_) => {
                    "check `kafka.tls`, that the port is a TLS port, and that `ca_file` contains its authority"
                }
                Unreachable::UnknownHost(_) => {
                    "check `kafka.bootstrap`, and that this host can resolve the brokers' advertised.listeners"
                }
                Unreachable::NoAnswer(_) => {
                    "check `kafka.bootstrap` and the network; a TLS port does not respond to a connection without TLS"
                }
                Unreachable::Client(_) => "check `kafka.properties`",
            };
            Verdict::fail(format!("{bootstrap}: {error}"), remedy)
        }
    }
}

async fn topic_verdict(context: &CheckContext<'_>, topics: &Topics, spec: &TopicSpec) -> Verdict {
    let findings = match topics.check(std::slice::from_ref(spec), context.strictness).await {
        Ok(findings) => findings,
        Err(error) => {
            let remedy = "allow this user Describe and DescribeConfigs on it (`nowbridge topics create --print` lists \
                          the ACLs)";
            return Verdict::fail(error_chain::chain(&error), remedy);
        }
    };
    if findings.is_empty() {
        let partitions = spec.partitions.map(|p| format!(", {p} partitions required")).unwrap_or_default();
        return Verdict::pass(format!("exists with the required configuration{partitions}"));
    }
    if spec.purpose != Purpose::Input && matches!(topics.describe(&spec.name).await, Ok(None)) {
        let remedy = "nothing, if `nowbridge run` may create topics; otherwise run `nowbridge topics create`, or \
                      request the topics that `--print` lists";
        return Verdict::warn("it does not exist yet", remedy);
    }
    let join = |of: fn(&crate::kafka::topics::Finding) -> &str| findings.iter().map(of).collect::<Vec<_>>().join("; ");
    let (detail, remedy) = (join(|f| &f.problem), join(|f| &f.remedy));
    if findings.iter().any(|f| f.fatal) { Verdict::fail(detail, remedy) } else { Verdict::warn(detail, remedy) }
}

fn purpose_label(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Input => "input",
        Purpose::Ledger => "ledger",
        Purpose::Table => "compacted table",
        Purpose::DeadLetters => "dead letters",
        Purpose::Repartitioned => "repartitioned input",
        Purpose::Stream => "stream",
    }
}
