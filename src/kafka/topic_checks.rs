//! Compares a topic with its specification, and returns findings with remedies. Pure: no I/O.

use super::topics::{Finding, Purpose, REPARTITIONED_RETENTION_MS, Strictness, TopicSpec, TopicState, is_durable};

/// Returns what is wrong with a topic. `state` is `None` if the topic does not exist.
pub fn check_topic(spec: &TopicSpec, state: Option<&TopicState>, strictness: Strictness) -> Vec<Finding> {
    let mut check = TopicCheck { spec, strictness, findings: Vec::new() };
    match state {
        None => check.add(true, "it does not exist", "create it: `nowbridge topics create`"),
        Some(state) => {
            check.partitions(state);
            check.settings(state);
        }
    }
    check.findings
}

struct TopicCheck<'a> {
    spec: &'a TopicSpec,
    strictness: Strictness,
    findings: Vec<Finding>,
}

impl TopicCheck<'_> {
    fn add(&mut self, fatal: bool, problem: impl Into<String>, remedy: impl Into<String>) {
        let topic = self.spec.name.clone();
        self.findings.push(Finding { topic, problem: problem.into(), remedy: remedy.into(), fatal });
    }

    fn partitions(&mut self, state: &TopicState) {
        let Some(needed) = self.spec.partitions else { return };
        if state.partitions == needed {
            return;
        }
        let name = &self.spec.name;
        let remedy =
            format!("give it {needed} partitions: `kafka-topics.sh --alter --topic {name} --partitions {needed}`");
        // More partitions do no harm: those above the input's are never used.
        let fatal = state.partitions < needed;
        self.add(fatal, format!("it has {} partitions, and needs {needed}", state.partitions), remedy);
    }

    fn settings(&mut self, state: &TopicState) {
        if self.strictness.embedded {
            return;
        }
        let durable = is_durable(self.spec.purpose);
        if state.settings.is_empty() {
            let problem = "can't read the topic's configuration";
            self.add(durable, problem, "allow this user DescribeConfigs on the topic");
            return;
        }
        let setting = |name: &str| state.settings.get(name).map_or("", String::as_str);
        self.cleanup(setting("cleanup.policy"));
        if self.spec.purpose == Purpose::Ledger && setting("message.timestamp.type") != "LogAppendTime" {
            let problem = "its records have the producers' timestamps, but the bridge measures how long it waits for \
                           ambiguous writes by the broker's clock";
            self.add(true, problem, self.alter("message.timestamp.type=LogAppendTime"));
        }
        if self.spec.purpose == Purpose::Repartitioned {
            self.retention(setting("retention.ms"));
        }
        if durable {
            let in_sync = setting("min.insync.replicas").parse().unwrap_or(1);
            self.durability(state.replication, in_sync, setting("unclean.leader.election.enable"));
        }
    }

    fn cleanup(&mut self, policy: &str) {
        match self.spec.purpose {
            Purpose::Ledger | Purpose::Table if policy != "compact" => {
                let problem = format!("its cleanup.policy is `{policy}`: state of the bridge would be deleted by age");
                self.add(true, problem, self.alter("cleanup.policy=compact"));
            }
            Purpose::DeadLetters if policy.contains("compact") => {
                let problem =
                    format!("its cleanup.policy is `{policy}`: only the last dead letter of a key would be retained");
                self.add(true, problem, self.alter("cleanup.policy=delete"));
            }
            Purpose::Repartitioned if policy.contains("compact") => {
                let problem =
                    format!("its cleanup.policy is `{policy}`: only the last event of a key would be retained");
                self.add(true, problem, self.alter("cleanup.policy=delete"));
            }
            Purpose::Input if policy.contains("compact") => {
                let problem =
                    format!("its cleanup.policy is `{policy}`: events may be removed before the bridge has read them");
                self.add(false, problem, self.alter("cleanup.policy=delete"));
            }
            _ => {}
        }
    }

    fn retention(&mut self, retention_ms: &str) {
        let retention = retention_ms.parse().ok().filter(|ms: &i64| (0..REPARTITIONED_RETENTION_MS).contains(ms));
        let Some(retention) = retention else { return };
        let hours = retention / 3_600_000;
        let problem =
            format!("it retains records for {hours} hours: records that the sink has not written by then are lost");
        self.add(false, problem, self.alter(&format!("retention.ms={REPARTITIONED_RETENTION_MS}")));
    }

    fn durability(&mut self, replicas: i32, in_sync: i32, unclean: &str) {
        if in_sync > replicas {
            let problem =
                format!("its min.insync.replicas is {in_sync}, but it has {replicas} replicas: all writes to it fail");
            self.add(true, problem, self.alter(&format!("min.insync.replicas={replicas}")));
        }
        if self.strictness.unsafe_topics {
            return;
        }
        let fatal = self.spec.purpose != Purpose::DeadLetters;
        let or_unsafe = "or set `topics: { unsafe_topics: true }` if its loss does not matter";
        if replicas < 3 {
            let problem = format!(
                "it has {replicas} replicas: with fewer than 3, acknowledged records can be lost with a broker"
            );
            self.add(fatal, problem, format!("reassign it to three brokers, {or_unsafe}"));
        }
        if in_sync < 2 {
            let problem =
                format!("its min.insync.replicas is {in_sync}: a record acknowledged by a single broker can be lost");
            self.add(fatal, problem, format!("{}, {or_unsafe}", self.alter("min.insync.replicas=2")));
        }
        if unclean == "true" {
            let problem = "unclean leader election is enabled: acknowledged records can be lost";
            self.add(fatal, problem, format!("{}, {or_unsafe}", self.alter("unclean.leader.election.enable=false")));
        }
    }

    /// Returns the command that sets a setting of the topic.
    fn alter(&self, setting: &str) -> String {
        let name = &self.spec.name;
        format!("`kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {setting}`")
    }
}
