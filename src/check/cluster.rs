//! Kafka: reachable, logs in, topics as they must be, groups allowed.

use super::Subject;
use super::rounds::{Rounds, Verdict};
use crate::kafka::probe::{self, Cluster, Unreachable};
use crate::kafka::topics::{Purpose, TopicSpec, Topics};
use crate::runtime::error_chain;

pub async fn check(rounds: &mut Rounds<'_>, subject: &Subject<'_>) {
    rounds.looking("the Kafka cluster");
    let reached = probe::reach(&subject.kafka, subject.options.kafka_timeout).await;
    if !rounds.note("kafka.reach", "Kafka answers and lets us in", reach(subject, reached)) {
        rounds.note("kafka.topics", "topics and groups", Verdict::skipped("the cluster can't be used"));
        return;
    }
    let topics = Topics::new(&subject.kafka, subject.options.kafka_timeout);
    let (mut counts, mut read) = (Vec::new(), Vec::new());
    for sink in &subject.config.sinks {
        // A missing or forbidden input is told by the look at its topic below.
        let mut state = topics.describe(sink.reads()).await.ok().flatten();
        read.push(if state.is_some() { sink.reads() } else { &sink.topic });
        if state.is_none() && sink.rekeyed.is_some() {
            // It will be made with as many partitions as the topic that is re-keyed.
            state = topics.describe(&sink.topic).await.ok().flatten();
        }
        counts.push(state.map_or(1, |state| state.partitions));
    }
    let mut seen = Vec::new();
    for spec in (subject.topics)(&counts) {
        if seen.contains(&spec.name) {
            continue;
        }
        rounds.looking(&format!("topic {}", spec.name));
        let what = format!("topic {} ({})", spec.name, purpose(spec.purpose));
        rounds.note(format!("topic.{}", spec.name), what, topic(subject, &topics, &spec).await);
        seen.push(spec.name);
    }
    for (sink, topic) in subject.config.sinks.iter().zip(read) {
        group(rounds, subject, &format!("sink.{}.group", sink.name), &sink.group, topic).await;
        for (other, topic) in sink.groups().iter().skip(1) {
            let what = other.rsplit('.').next().unwrap_or_default();
            group(rounds, subject, &format!("sink.{}.{what}", sink.name), other, topic).await;
        }
    }
}

async fn group(rounds: &mut Rounds<'_>, subject: &Subject<'_>, id: &str, group: &str, topic: &str) {
    rounds.looking(&format!("group {group}"));
    let asked = probe::group_offset(&subject.kafka, group, topic, subject.options.kafka_timeout).await;
    let verdict = match asked {
        Ok(Some(offset)) => Verdict::pass(format!("has read partition 0 up to offset {offset}")),
        Ok(None) => Verdict::pass("has read nothing yet"),
        Err(error) => Verdict::fail(
            error_chain::chain(&error),
            format!("allow this user Read on the group {group} (`nowbridge topics create --print` lists the rights)"),
        ),
    };
    rounds.note(id, format!("consumer group {group} may be used"), verdict);
}

fn reach(subject: &Subject<'_>, reached: Result<Cluster, Unreachable>) -> Verdict {
    let at = &subject.config.kafka.bootstrap;
    match reached {
        Ok(Cluster { brokers, id }) => {
            let id = id.map(|id| format!(", cluster {id}")).unwrap_or_default();
            let how = match (&subject.config.kafka.tls, &subject.config.kafka.sasl) {
                (None, None) => "without TLS or log-in",
                (Some(_), None) => "over TLS, without log-in",
                (None, Some(sasl)) if sasl.mechanism == "PLAIN" => {
                    return Verdict::warn(
                        format!("{brokers} brokers at {at}{id}; the password crosses the network in the clear"),
                        "use TLS (`kafka.tls`) or a SCRAM mechanism",
                    );
                }
                (None, Some(_)) => "logged in, without TLS",
                (Some(_), Some(_)) => "logged in over TLS",
            };
            Verdict::pass(format!("{brokers} brokers at {at}{id}, {how}"))
        }
        Err(refused) => {
            let remedy = match &refused {
                Unreachable::Credentials(_) => "check `kafka.sasl`: mechanism, user and password",
                Unreachable::Tls(_) => "check `kafka.tls`: is it a TLS port, and is its authority in `ca_file`?",
                Unreachable::Name(_) => {
                    "check `kafka.bootstrap`, and that the brokers' advertised.listeners can be resolved from here"
                }
                Unreachable::Silent(_) => {
                    "check `kafka.bootstrap` and the network; a TLS port asked without TLS is silent, too"
                }
                Unreachable::Client(_) => "check `kafka.properties`",
            };
            Verdict::fail(format!("{at}: {refused}"), remedy)
        }
    }
}

async fn topic(subject: &Subject<'_>, topics: &Topics, spec: &TopicSpec) -> Verdict {
    let findings = match topics.check(std::slice::from_ref(spec), subject.strictness).await {
        Ok(findings) => findings,
        Err(error) => {
            let remedy = "allow this user Describe and DescribeConfigs on it (`nowbridge topics create --print` lists \
                          the rights)";
            return Verdict::fail(error_chain::chain(&error), remedy);
        }
    };
    if findings.is_empty() {
        let partitions = spec.partitions.map(|p| format!(", {p} partitions needed")).unwrap_or_default();
        return Verdict::pass(format!("is there, settings right{partitions}"));
    }
    if spec.purpose != Purpose::Input && matches!(topics.describe(&spec.name).await, Ok(None)) {
        let remedy = "nothing, if `nowbridge run` may create topics; else `nowbridge topics create`, or `--print` \
                      shows what to ask for";
        return Verdict::warn("it does not exist yet", remedy);
    }
    let join = |of: fn(&crate::kafka::topics::Finding) -> &str| findings.iter().map(of).collect::<Vec<_>>().join("; ");
    let (detail, remedy) = (join(|f| &f.what), join(|f| &f.remedy));
    if findings.iter().any(|f| f.fatal) { Verdict::fail(detail, remedy) } else { Verdict::warn(detail, remedy) }
}

fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Input => "input",
        Purpose::Ledger => "ledger",
        Purpose::Table => "compacted table",
        Purpose::DeadLetters => "dead letters",
        Purpose::Rekeyed => "re-keyed input",
        Purpose::Stream => "stream",
    }
}
