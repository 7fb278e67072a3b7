//! The `header` record of a ledger partition: what its positions and entries belong to.
//!
//! Positions of a recreated topic, or tickets of another instance, must never be taken for those of this route. So the
//! header is written when a partition is first taken over, and compared at every later load. The client library does
//! not expose topic ids, so a topic that was deleted and recreated under its name is recognized by its offsets (a
//! watermark above the end of the log), not by the header.

use serde::{Deserialize, Serialize};

/// What a ledger belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Id of the Kafka cluster; `None` if the cluster does not report one.
    pub cluster_id: Option<String>,
    /// Input topic.
    pub topic: String,
    /// Number of partitions of the input topic.
    pub partitions: i32,
    /// What identifies the ServiceNow instance, not merely its address.
    pub instance: String,
    /// Name of the route.
    pub route: String,
    /// Table of the tickets.
    pub table: String,
    /// How keys become correlations; changes when that rule changes.
    pub key_rule: String,
    /// Topic generation: 0, or the time at which positions started to count again, Unix seconds. Known from the ledger
    /// only.
    #[serde(rename = "reprocess", default)]
    pub topic_generation: u32,
}

/// The value of a `header` record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What the partition belongs to.
    pub identity: Identity,
    /// True if the ledger was lost or rebuilt, so it may lack keys.
    #[serde(rename = "unproven", default)]
    pub incomplete: bool,
}

/// A property in which the route differs from the header of its ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityMismatch {
    /// Name of the property.
    pub property: &'static str,
    /// Value in the ledger.
    pub ledger: String,
    /// Value by the configuration or the cluster.
    pub route: String,
    /// The command that resolves the mismatch.
    pub command: &'static str,
}

impl std::fmt::Display for IdentityMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { property, ledger, route, .. } = self;
        write!(f, "was written for the {property} `{ledger}`, but this route has `{route}`")
    }
}

impl Header {
    /// Returns the first mismatch, if any.
    pub fn first_mismatch(&self, route: &Identity) -> Option<IdentityMismatch> {
        self.mismatches(route).into_iter().next()
    }

    /// Returns all mismatches. More input partitions than before are no mismatch: keys have moved, so the ledger may
    /// lack keys, but is not wrong. A cluster that reports no id matches any.
    pub fn mismatches(&self, route: &Identity) -> Vec<IdentityMismatch> {
        let ledger = &self.identity;
        let compare = |property, ledger: &str, route: &str, command| {
            (ledger != route).then(|| IdentityMismatch {
                property,
                ledger: ledger.into(),
                route: route.into(),
                command,
            })
        };
        let clusters = ledger.cluster_id.as_ref().zip(route.cluster_id.as_ref());
        let fewer = route.partitions < ledger.partitions;
        let (ledger_count, route_count) = (ledger.partitions.to_string(), route.partitions.to_string());
        [
            clusters.and_then(|(ledger, route)| compare("cluster", ledger, route, REBUILD_COMMAND)),
            compare("input topic", &ledger.topic, &route.topic, REBUILD_COMMAND),
            compare("instance", &ledger.instance, &route.instance, ADOPT_COMMAND),
            compare("table", &ledger.table, &route.table, REBUILD_COMMAND),
            compare("route", &ledger.route, &route.route, RENAME_COMMAND),
            compare("key rule", &ledger.key_rule, &route.key_rule, REBUILD_COMMAND),
            fewer.then_some(IdentityMismatch {
                property: "number of input partitions",
                ledger: ledger_count,
                route: route_count,
                command: REBUILD_COMMAND,
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether the ledger may lack keys of the route.
    pub fn may_lack_keys(&self, route: &Identity) -> bool {
        self.incomplete || self.has_new_partitions(route)
    }

    /// Whether partitions were added to the input since the header was written, so that keys may have moved.
    pub fn has_new_partitions(&self, route: &Identity) -> bool {
        route.partitions > self.identity.partitions
    }
}

/// The command that clears a ledger, so that the bridge looks up every key in the instance.
pub const REBUILD_COMMAND: &str = "nowbridge ledger rebuild";
/// The command that adopts a ledger for the instance's new address.
pub const ADOPT_COMMAND: &str = "nowbridge ledger adopt";
/// The command that migrates a ledger to the route's new name.
pub const RENAME_COMMAND: &str = "nowbridge ledger rename";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mismatch_names_its_command() {
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
        let mismatches_of = |route: Identity| {
            header.mismatches(&route).into_iter().map(|m| (m.property, m.command)).collect::<Vec<_>>()
        };
        let moved = Identity { instance: "https://new".into(), route: "new".into(), ..before.clone() };
        assert_eq!(mismatches_of(moved), [("instance", ADOPT_COMMAND), ("route", RENAME_COMMAND)]);
        let grown = Identity { partitions: 6, cluster_id: None, topic_generation: 0, ..before.clone() };
        assert_eq!(
            mismatches_of(grown.clone()),
            [],
            "more partitions, an unknown cluster id and the topic generation are no mismatches"
        );
        assert!(header.has_new_partitions(&grown));
        assert_eq!(
            mismatches_of(Identity { partitions: 3, ..before }),
            [("number of input partitions", REBUILD_COMMAND)]
        );
    }
}
