//! Finds the partitions of a record's alerts. Pure: an input record in, records of the internal topic out.
//!
//! The alerts of a body that share a partition stay one record, whose header says which of them count there. The whole
//! body is decoded, not only its keys: if the sink could not decode a record later, the copy in each partition would
//! become a dead letter. A record that cannot be decoded is copied to one defined partition, and the sink makes the
//! dead letter. A record without alerts (a test event, a record without a value) is not copied.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec;
use crate::kafka::ProduceRequest;
use crate::mapping::GroupBy;
use crate::model::{AlertEvent, Record};
use crate::systems::Decoder;

/// The configuration of the repartitioning step.
#[derive(Debug, Clone)]
pub struct Partitioner {
    pub decoder: Decoder,
    /// The internal topic, which is written.
    pub topic: Arc<str>,
    /// Partitions of the internal topic.
    pub partitions: i32,
    /// The rule of the route's grouping, if it has one. Alerts with a group are partitioned by the group's key, others
    /// by their own.
    pub group_by: Option<GroupBy>,
}

/// The alerts of a record that belong to one partition.
#[derive(Default)]
struct Included {
    /// Indexes in the record.
    events: Vec<u32>,
    /// The keys of their groups.
    groups: Vec<Option<String>>,
}

impl Partitioner {
    /// Adds the copies of an input record to `out`. Returns the number of alerts in the record.
    pub fn repartition(&self, record: &Record, out: &mut Vec<ProduceRequest>) -> usize {
        if record.value.is_none() {
            return 0;
        }
        let Ok(events) = self.decoder.decode(record) else {
            out.push(self.request(record, record.partition % self.partitions.max(1), None));
            return 0;
        };
        let count = events.len();
        let mut by_partition: BTreeMap<i32, Included> = BTreeMap::new();
        for (index, event) in (0..).zip(events) {
            let (partition, group) = self.partition_and_group(event);
            let included = by_partition.entry(partition).or_default();
            included.events.push(index);
            included.groups.push(group);
        }
        out.extend(by_partition.iter().map(|(partition, included)| self.request(record, *partition, Some(included))));
        count
    }

    /// Returns the partition of an alert, and the key of its group.
    fn partition_and_group(&self, event: AlertEvent) -> (i32, Option<String>) {
        let Some(rule) = &self.group_by else { return (codec::partition_for(&event.key, self.partitions), None) };
        let event = Arc::new(event);
        let group = rule.key(&event);
        (codec::partition_for(group.as_ref().unwrap_or(&event.key), self.partitions), group)
    }

    fn request(&self, record: &Record, partition: i32, included: Option<&Included>) -> ProduceRequest {
        ProduceRequest {
            topic: Arc::clone(&self.topic),
            partition: Some(partition),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: match included {
                Some(Included { events, groups }) if self.group_by.is_some() => {
                    codec::grouped_headers(record, events, groups)
                }
                _ => codec::repartitioned_headers(record, included.map(|included| included.events.as_slice())),
            },
            tag: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::TicketPer;

    fn record(value: Option<&str>) -> Record {
        Record {
            topic: "alerts".into(),
            partition: 7,
            offset: 41,
            key: Some(b"host-1".to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: Vec::new(),
            timestamp: Some(77),
        }
    }

    fn repartition(decoder: Decoder, value: Option<&str>) -> (usize, Vec<ProduceRequest>) {
        let partitioner = Partitioner { decoder, topic: "inner".into(), partitions: 4, group_by: None };
        let mut out = Vec::new();
        let alerts = partitioner.repartition(&record(value), &mut out);
        (alerts, out)
    }

    fn header<'a>(request: &'a ProduceRequest, name: &str) -> Option<&'a str> {
        let found = request.headers.iter().find(|(n, _)| n == name)?;
        std::str::from_utf8(found.1.as_deref()?).ok()
    }

    #[test]
    fn a_body_is_copied_once_to_each_partition_of_its_alerts() {
        let alerts: Vec<String> = (0..20)
            .map(|n| format!("{{\"status\":\"firing\",\"labels\":{{\"alertname\":\"A\"}},\"fingerprint\":\"f{n}\"}}"))
            .collect();
        let body = format!("{{\"version\":\"4\",\"status\":\"firing\",\"alerts\":[{}]}}", alerts.join(","));
        let (count, out) = repartition(Decoder::Alertmanager(TicketPer::Alert), Some(&body));
        assert_eq!((count, out.len()), (20, 4));
        let mut seen = Vec::new();
        for request in &out {
            assert_eq!(request.value.as_deref(), Some(body.as_bytes()));
            assert_eq!(
                request.key.as_deref(),
                Some(b"host-1".as_slice()),
                "some formats take the alert's key from the record key"
            );
            for index in header(request, "nowbridge-events").expect("listed").split(',') {
                let partition = codec::partition_for(&format!("alertmanager:alert:f{index}"), 4);
                assert_eq!(request.partition, Some(partition));
                seen.push(index.parse::<u32>().expect("a number"));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_record_that_cannot_be_decoded_is_copied_to_one_partition_without_a_list_of_events() {
        let (count, out) = repartition(Decoder::Canonical, Some("{"));
        assert_eq!((count, out.len()), (0, 1));
        assert_eq!(out[0].partition, Some(3));
        assert_eq!(header(&out[0], "nowbridge-origin"), Some("alerts/7/41"));
        assert_eq!(header(&out[0], "nowbridge-events"), None);
    }

    #[test]
    fn a_record_without_alerts_is_not_copied() {
        let test = r#"{"source":"x","key":"k","action":"open","title":"t","mode":"test"}"#;
        assert_eq!(repartition(Decoder::Canonical, Some(test)), (0, Vec::new()));
        assert_eq!(repartition(Decoder::Canonical, None), (0, Vec::new()));
    }
}
