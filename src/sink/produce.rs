//! Produces ledger records, dead letters and results, and queues them while the producer's own queue is full.

use std::sync::Arc;

use super::driver::{Driver, UNTRACKED};
use crate::codec;
use crate::engine::event::{DeadLetter, Event, LedgerWrite, ProduceId, ProduceOutcome, WriteResult};
use crate::error_catalog;
use crate::kafka::producer::{ProduceError, ProduceRequest};
use crate::ledger;
use crate::runtime::clock;
use crate::runtime::error_chain;
use crate::runtime::failpoint::{self, Failpoint};
use crate::runtime::metrics;

/// Interval at which records of the results topic are flushed, milliseconds. They are produced together, because each
/// alone would cost a request to Kafka, and no work waits for them.
const RESULTS_FLUSH_INTERVAL: u64 = 100;

/// Number of records of the results topic that are flushed without waiting for the interval.
const MAX_BUFFERED_RESULTS: usize = 1_000;

impl Driver {
    fn produce(&mut self, request: ProduceRequest) {
        if !self.produce_queue.is_empty() {
            self.produce_queue.push(request);
            return;
        }
        self.try_produce(request);
    }

    fn try_produce(&mut self, request: ProduceRequest) {
        let tag = request.tag;
        match self.producer.produce(request) {
            Ok(()) => {}
            Err(ProduceError::QueueFull(request)) => self.produce_queue.insert(0, *request),
            Err(error) => {
                tracing::warn!(route = %self.route.name, error = error_chain::chain(&error), "can't produce a record");
                if tag != UNTRACKED {
                    // The answer goes through the channel, never directly into `apply`.
                    let _ = self.events.send(Event::ProduceCompleted {
                        produce_id: ProduceId(tag),
                        outcome: ProduceOutcome::NotWritten,
                    });
                }
            }
        }
    }

    pub(super) fn flush_produce_queue(&mut self) {
        let queued = std::mem::take(&mut self.produce_queue);
        for request in queued {
            self.produce(request);
        }
    }

    pub(super) fn produce_ledger_record(&mut self, produce_id: ProduceId, partition: i32, write: &LedgerWrite) {
        let (key, value) = ledger::wire::encode(write);
        self.produce(ProduceRequest {
            topic: Arc::clone(&self.route.ledger),
            partition: Some(partition),
            key: Some(key),
            value,
            headers: Vec::new(),
            tag: produce_id.0,
        });
        match write {
            LedgerWrite::Claim(..) => failpoint::hit(Failpoint::Claim),
            LedgerWrite::Entry(..) => failpoint::hit(Failpoint::Entry),
            _ => {}
        }
    }

    pub(super) fn produce_dead_letter(&mut self, produce_id: ProduceId, letter: &DeadLetter) {
        metrics::dead_letter(&self.route.name, &letter.code);
        self.status.count("dead_letters", 1);
        let explain = error_catalog::error_number(&letter.code);
        tracing::warn!(
            route = %self.route.name, topic = %letter.raw.topic, position = %letter.position,
            key = letter.key.as_deref(), code = letter.code, explain,
            reason = letter.reason, "dead letter"
        );
        let details = codec::DeadLetterDetails {
            code: &letter.code,
            explain: &explain,
            reason: &letter.reason,
            position: letter.position,
            key: letter.key.as_deref(),
            route: &self.route.name,
            origin: codec::origin(&letter.raw).filter(|_| self.route.mapping.repartitioned_from.is_some()),
            superseded: &letter.superseded,
        };
        let (key, value, headers) = codec::dead_letter(&letter.raw, &details, clock::unix());
        let topic = Arc::clone(&self.route.dead_letters);
        self.produce(ProduceRequest { topic, partition: None, key, value, headers, tag: produce_id.0 });
    }

    pub(super) fn produce_result(&mut self, result: WriteResult) {
        metrics::applied(&self.route.name, result.outcome, result.positions.len(), result.latency_ms);
        self.status.count(result.outcome, 1);
        tracing::debug!(
            route = %self.route.name, key = %result.key, outcome = result.outcome, number = result.number,
            events = result.positions.len(), requests = result.requests, latency_ms = result.latency_ms, "write applied"
        );
        for warning in &result.warnings {
            tracing::warn!(route = %self.route.name, key = %result.key, number = result.number, warning, "record differs from the write");
        }
        let Some(topic) = self.route.results.clone() else { return };
        let fields = codec::ResultRecord {
            schema: codec::ResultRecord::SCHEMA.into(),
            route: self.route.name.to_string(),
            key: result.key.to_string(),
            outcome: result.outcome.into(),
            sys_id: result.sys_id,
            number: result.number,
            positions: codec::ResultRecord::format_positions(&result.positions),
            fields: result.fields.into_iter().map(|(c, v)| (c.to_string(), v)).collect(),
            notes: result.notes as u64,
            attempts: result.requests,
            latency_ms: result.latency_ms,
            warnings: result.warnings,
            time: jiff::Timestamp::now().to_string(),
        };
        let (key, value) = codec::encode_result(&fields);
        let (key, value) = (Some(key), Some(value));
        self.results.push(ProduceRequest { topic, partition: None, key, value, headers: Vec::new(), tag: UNTRACKED });
        if self.results.len() >= MAX_BUFFERED_RESULTS {
            self.flush_results();
        }
    }

    /// Produces the buffered results, if the flush interval has passed.
    pub(super) fn flush_results_if_due(&mut self, now: u64) {
        if now >= self.results_flushed_at + RESULTS_FLUSH_INTERVAL {
            self.results_flushed_at = now;
            self.flush_results();
        }
    }

    pub(super) fn flush_results(&mut self) {
        for result in std::mem::take(&mut self.results) {
            self.produce(result);
        }
    }
}
