//! Where a record's alerts go. Pure: a record in, records of the internal topic out.
//!
//! The alerts of a body that share a partition go as one record, which says which of them are meant there. The whole body
//! is decoded, although only its keys are asked for: what the sink could not read later must be known here, or each
//! partition's copy of it would become a dead letter. What can't be read goes on in one defined partition, so that the
//! sink makes the letter; what has no alerts (a test event, a record without a value) goes nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec;
use crate::kafka::ProduceRequest;
use crate::mapping::GroupBy;
use crate::model::{AlertEvent, Record};
use crate::systems::Decoder;

/// How records of a topic are spread over the internal one.
#[derive(Debug, Clone)]
pub struct Spread {
    /// Reads records.
    pub decoder: Decoder,
    /// The internal topic.
    pub topic: Arc<str>,
    /// Its partitions.
    pub partitions: i32,
    /// Where the route makes digests: which alerts go together. They go to their group's home, the others to their own.
    pub group_by: Option<GroupBy>,
}

impl Spread {
    /// Adds what a record becomes to `out`; answers how many alerts were in it.
    pub fn spread(&self, record: &Record, out: &mut Vec<ProduceRequest>) -> usize {
        if record.value.is_none() {
            return 0;
        }
        let Ok(events) = self.decoder.decode(record) else {
            out.push(self.request(record, record.partition % self.partitions.max(1), None));
            return 0;
        };
        let count = events.len();
        let mut homes: BTreeMap<i32, (Vec<u32>, Vec<Option<String>>)> = BTreeMap::new();
        for (index, event) in (0..).zip(events) {
            let (partition_for, group) = self.partition_for(event);
            let (meant, groups) = homes.entry(partition_for).or_default();
            meant.push(index);
            groups.push(group);
        }
        out.extend(homes.iter().map(|(partition_for, meant)| self.request(record, *partition_for, Some(meant))));
        count
    }

    /// Where an alert belongs, and to which group.
    fn partition_for(&self, event: AlertEvent) -> (i32, Option<String>) {
        let Some(rule) = &self.group_by else { return (codec::partition_for(&event.key, self.partitions), None) };
        let event = Arc::new(event);
        let group = rule.key(&event);
        (codec::partition_for(group.as_ref().unwrap_or(&event.key), self.partitions), group)
    }

    fn request(
        &self,
        record: &Record,
        partition: i32,
        meant: Option<&(Vec<u32>, Vec<Option<String>>)>,
    ) -> ProduceRequest {
        ProduceRequest {
            topic: Arc::clone(&self.topic),
            partition: Some(partition),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: match meant {
                Some((meant, groups)) if self.group_by.is_some() => codec::grouped_headers(record, meant, groups),
                _ => codec::rekeyed_headers(record, meant.map(|(meant, _)| meant.as_slice())),
            },
            tag: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::By;

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

    fn spread(decoder: Decoder, value: Option<&str>) -> (usize, Vec<ProduceRequest>) {
        let mut out = Vec::new();
        let alerts =
            Spread { decoder, topic: "inner".into(), partitions: 4, group_by: None }.spread(&record(value), &mut out);
        (alerts, out)
    }

    fn header<'a>(request: &'a ProduceRequest, name: &str) -> Option<&'a str> {
        let found = request.headers.iter().find(|(n, _)| n == name)?;
        std::str::from_utf8(found.1.as_deref()?).ok()
    }

    #[test]
    fn alerts_of_one_body_go_home_and_those_of_one_home_go_together() {
        let alerts: Vec<String> = (0..20)
            .map(|n| format!("{{\"status\":\"firing\",\"labels\":{{\"alertname\":\"A\"}},\"fingerprint\":\"f{n}\"}}"))
            .collect();
        let body = format!("{{\"version\":\"4\",\"status\":\"firing\",\"alerts\":[{}]}}", alerts.join(","));
        let (count, out) = spread(Decoder::Alertmanager(By::Alert), Some(&body));
        assert_eq!((count, out.len()), (20, 4));
        let mut seen = Vec::new();
        for request in &out {
            assert_eq!(request.value.as_deref(), Some(body.as_bytes()));
            assert_eq!(request.key.as_deref(), Some(b"host-1".as_slice()), "some formats take the alert's key from it");
            for index in header(request, "nowbridge-events").expect("listed").split(',') {
                let partition_for = codec::partition_for(&format!("alertmanager:alert:f{index}"), 4);
                assert_eq!(request.partition, Some(partition_for));
                seen.push(index.parse::<u32>().expect("a number"));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_read_goes_on_in_one_place_and_says_nothing_of_its_events() {
        let (count, out) = spread(Decoder::Canonical, Some("{"));
        assert_eq!((count, out.len()), (0, 1));
        assert_eq!(out[0].partition, Some(3));
        assert_eq!(header(&out[0], "nowbridge-origin"), Some("alerts/7/41"));
        assert_eq!(header(&out[0], "nowbridge-events"), None);
    }

    #[test]
    fn what_holds_no_alert_goes_nowhere() {
        let test = r#"{"source":"x","key":"k","action":"open","title":"t","mode":"test"}"#;
        assert_eq!(spread(Decoder::Canonical, Some(test)), (0, Vec::new()));
        assert_eq!(spread(Decoder::Canonical, None), (0, Vec::new()));
    }
}
