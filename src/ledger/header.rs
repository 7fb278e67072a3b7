//! The `header` record of a ledger partition: what its positions and entries belong to. Positions of a recreated
//! topic, or tickets of another instance, must never be taken for ours; so the header is written when a partition is
//! first taken over and compared at every load after that.
//!
//! A topic's id is not told by the client library, so a topic that was deleted and made anew under its name is
//! recognised by its offsets (a mark above the end of the log), not by the header.

use serde::{Deserialize, Serialize};

/// What a ledger belongs to, as the running route sees itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's id, where it tells one.
    pub cluster_id: Option<String>,
    /// The input topic.
    pub topic: String,
    /// Partitions of the input topic.
    pub partitions: i32,
    /// The ServiceNow instance: what identifies it, not merely its address.
    pub instance: String,
    /// The route.
    pub route: String,
    /// The table.
    pub table: String,
    /// How keys become correlations; changes with the rule.
    pub key_rule: String,
    /// 0, or when positions began to count anew, Unix seconds. The ledger alone knows.
    #[serde(rename = "reprocess", default)]
    pub topic_generation: u32,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What the partition belongs to.
    pub identity: Identity,
    /// True where the ledger was lost and begun anew: it does not know every key.
    #[serde(default)]
    pub incomplete: bool,
}

/// Something in which the route differs from the ledger it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What.
    pub what: &'static str,
    /// What the ledger says.
    pub ledger: String,
    /// What the configuration or the cluster says.
    pub route: String,
    /// The command that resolves it.
    pub command: &'static str,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, ledger, route, .. } = self;
        write!(f, "was written for the {what} `{ledger}`, and this route has `{route}`")
    }
}

impl Header {
    /// The first difference that matters, if any.
    pub fn differs_from(&self, route: &Identity) -> Option<Difference> {
        self.differences(route).into_iter().next()
    }

    /// All differences that matter. More partitions than before are none: keys have moved, which makes the ledger
    /// unproven, not wrong. What a cluster does not tell of itself differs from nothing.
    pub fn differences(&self, route: &Identity) -> Vec<Difference> {
        let ledger = &self.identity;
        let both = |what, ledger: &str, route: &str, command| {
            (ledger != route).then(|| Difference { what, ledger: ledger.into(), route: route.into(), command })
        };
        let clusters = ledger.cluster_id.as_ref().zip(route.cluster_id.as_ref());
        let fewer = route.partitions < ledger.partitions;
        let (had, has) = (ledger.partitions.to_string(), route.partitions.to_string());
        [
            clusters.and_then(|(ledger, route)| both("cluster", ledger, route, REBUILD)),
            both("input topic", &ledger.topic, &route.topic, REBUILD),
            both("instance", &ledger.instance, &route.instance, ADOPT),
            both("table", &ledger.table, &route.table, REBUILD),
            both("route", &ledger.route, &route.route, RENAME),
            both("key rule", &ledger.key_rule, &route.key_rule, REBUILD),
            fewer.then_some(Difference {
                what: "number of input partitions",
                ledger: had,
                route: has,
                command: REBUILD,
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether the partition may not know every key of the route, as it stands now.
    pub fn may_lack_keys(&self, route: &Identity) -> bool {
        self.incomplete || self.has_grown(route)
    }

    /// Whether keys may have moved here from other partitions since the ledger was begun.
    pub fn has_grown(&self, route: &Identity) -> bool {
        route.partitions > self.identity.partitions
    }
}

/// The command that reads the tickets anew.
pub const REBUILD: &str = "nowbridge ledger rebuild";
/// The command that takes a ledger over for another instance.
pub const ADOPT: &str = "nowbridge ledger adopt";
/// The command that renames the route in its ledger.
pub const RENAME: &str = "nowbridge ledger rename";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_differs_is_told_each_with_its_command() {
        let before = Identity {
            cluster_id: Some("a".into()),
            topic: "alerts".into(),
            partitions: 4,
            instance: "https://old".into(),
            route: "old".into(),
            table: "incident".into(),
            key_rule: "plain".into(),
            topic_generation: 7,
        };
        let header = Header { identity: before.clone(), incomplete: false };
        let told =
            |route: Identity| header.differences(&route).into_iter().map(|d| (d.what, d.command)).collect::<Vec<_>>();
        let moved = Identity { instance: "https://new".into(), route: "new".into(), ..before.clone() };
        assert_eq!(told(moved), [("instance", ADOPT), ("route", RENAME)]);
        let grown = Identity { partitions: 6, cluster_id: None, topic_generation: 0, ..before.clone() };
        assert_eq!(
            told(grown.clone()),
            [],
            "more partitions, a cluster that does not say and a count of ours are none"
        );
        assert!(header.has_grown(&grown));
        assert_eq!(told(Identity { partitions: 3, ..before }), [("number of input partitions", REBUILD)]);
    }
}
