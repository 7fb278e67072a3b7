//! What is wrong with a topic, and what to do about it. Pure: a topic as it should be and as it is, findings out.

use super::topics::{Finding, Purpose, REKEYED_RETENTION, Strictness, TopicSpec, TopicState, is_durable};

/// What is wrong with one topic.
pub fn judge(spec: &TopicSpec, state: Option<&TopicState>, strictness: Strictness) -> Vec<Finding> {
    let mut judge = Judge { spec, strictness, findings: Vec::new() };
    match state {
        None => judge.wrong(true, "it does not exist", "make it: `nowbridge topics create`"),
        Some(state) => {
            judge.partitions(state);
            judge.settings(state);
        }
    }
    judge.findings
}

struct Judge<'a> {
    spec: &'a TopicSpec,
    strictness: Strictness,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn wrong(&mut self, fatal: bool, what: impl Into<String>, remedy: impl Into<String>) {
        let topic = self.spec.name.clone();
        self.findings.push(Finding { topic, what: what.into(), remedy: remedy.into(), fatal });
    }

    fn partitions(&mut self, state: &TopicState) {
        let Some(wanted) = self.spec.partitions else { return };
        if state.partitions == wanted {
            return;
        }
        let name = &self.spec.name;
        let remedy =
            format!("give it {wanted} partitions: `kafka-topics.sh --alter --topic {name} --partitions {wanted}`");
        // More of them do no harm: those beyond the input's are never used.
        let fatal = state.partitions < wanted;
        self.wrong(fatal, format!("it has {} partitions, and needs {wanted}", state.partitions), remedy);
    }

    fn settings(&mut self, state: &TopicState) {
        if self.strictness.embedded {
            return;
        }
        let durable = is_durable(self.spec.purpose);
        if state.settings.is_empty() {
            let what = "the broker does not tell its settings";
            self.wrong(durable, what, "allow this user DescribeConfigs on the topic");
            return;
        }
        let setting = |name: &str| state.settings.get(name).map_or("", String::as_str);
        self.cleanup(setting("cleanup.policy"));
        if self.spec.purpose == Purpose::Ledger && setting("message.timestamp.type") != "LogAppendTime" {
            let what = "its records carry the writers' clocks, and doubts are timed by the broker's";
            self.wrong(true, what, self.alter("message.timestamp.type=LogAppendTime"));
        }
        if self.spec.purpose == Purpose::Rekeyed {
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
                let what =
                    format!("its cleanup.policy is `{policy}`: what the bridge remembers would be deleted by age");
                self.wrong(true, what, self.alter("cleanup.policy=compact"));
            }
            Purpose::DeadLetters if policy.contains("compact") => {
                let what =
                    format!("its cleanup.policy is `{policy}`: of the dead letters of a key only the last would stay");
                self.wrong(true, what, self.alter("cleanup.policy=delete"));
            }
            Purpose::Rekeyed if policy.contains("compact") => {
                let what = format!("its cleanup.policy is `{policy}`: of the events of a key only the last would stay");
                self.wrong(true, what, self.alter("cleanup.policy=delete"));
            }
            Purpose::Input if policy.contains("compact") => {
                let what = format!(
                    "its cleanup.policy is `{policy}`: events that were not read yet may vanish behind later ones"
                );
                self.wrong(false, what, self.alter("cleanup.policy=delete"));
            }
            _ => {}
        }
    }

    fn retention(&mut self, told: &str) {
        let Some(kept) = told.parse().ok().filter(|kept: &i64| (0..REKEYED_RETENTION).contains(kept)) else { return };
        let hours = kept / 3_600_000;
        let what = format!("it keeps records for {hours} hours: what the sink has not written by then is lost");
        self.wrong(false, what, self.alter(&format!("retention.ms={REKEYED_RETENTION}")));
    }

    fn durability(&mut self, replicas: i32, in_sync: i32, unclean: &str) {
        if in_sync > replicas {
            let what = format!("it wants {in_sync} replicas in sync and has {replicas}: nothing can be written to it");
            self.wrong(true, what, self.alter(&format!("min.insync.replicas={replicas}")));
        }
        if self.strictness.unsafe_topics {
            return;
        }
        let fatal = self.spec.purpose != Purpose::DeadLetters;
        let or_unsafe = "or set `unsafe_topics: true` where losing it does not matter";
        if replicas < 3 {
            let what = format!("it has {replicas} replicas, and an acknowledgement means little with fewer than 3");
            self.wrong(fatal, what, format!("reassign it to three brokers, {or_unsafe}"));
        }
        if in_sync < 2 {
            let what = format!("its min.insync.replicas is {in_sync}: a single broker may acknowledge, and be lost");
            self.wrong(fatal, what, format!("{}, {or_unsafe}", self.alter("min.insync.replicas=2")));
        }
        if unclean == "true" {
            let what = "unclean leader election is on: acknowledged records may be thrown away";
            self.wrong(fatal, what, format!("{}, {or_unsafe}", self.alter("unclean.leader.election.enable=false")));
        }
    }

    fn alter(&self, setting: &str) -> String {
        let name = &self.spec.name;
        format!("`kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {setting}`")
    }
}
