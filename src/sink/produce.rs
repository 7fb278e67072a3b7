//! What the driver produces: ledger records, dead letters, results; and what waits while the producer's queue is full.

use std::sync::Arc;

use super::driver::{Driver, NOBODY};
use crate::codec;
use crate::engine::event::{DeadLetter, Event, LedgerWrite, OpId, ProduceOutcome, Report};
use crate::error_catalog;
use crate::kafka::producer::{ProduceError, ProduceRequest};
use crate::ledger;
use crate::runtime::clock;
use crate::runtime::error_chain;
use crate::runtime::failpoint::{self, Point};
use crate::runtime::metrics;

/// How long records of the results topic are gathered, milliseconds, and how many at most. Nobody waits for one, and one
/// by one each of them would be a request of its own to Kafka.
const GATHER: (u64, usize) = (100, 1_000);

impl Driver {
    fn produce(&mut self, request: ProduceRequest) {
        if !self.backlog.is_empty() {
            self.backlog.push(request);
            return;
        }
        self.try_produce(request);
    }

    fn try_produce(&mut self, request: ProduceRequest) {
        let tag = request.tag;
        match self.producer.produce(request) {
            Ok(()) => {}
            Err(ProduceError::QueueFull(request)) => self.backlog.insert(0, *request),
            Err(error) => {
                tracing::warn!(route = %self.route.name, error = error_chain::chain(&error), "can't produce");
                if tag != NOBODY {
                    // Answered through the channel, never from within `apply`.
                    let _ = self.events.send(Event::Produced { op: OpId(tag), outcome: ProduceOutcome::Refused });
                }
            }
        }
    }

    pub(super) fn flush_backlog(&mut self) {
        let waiting = std::mem::take(&mut self.backlog);
        for request in waiting {
            self.produce(request);
        }
    }

    pub(super) fn ledger(&mut self, op: OpId, partition: i32, write: &LedgerWrite) {
        let (key, value) = ledger::wire::encode(write);
        self.produce(ProduceRequest {
            topic: Arc::clone(&self.route.ledger),
            partition: Some(partition),
            key: Some(key),
            value,
            headers: Vec::new(),
            tag: op.0,
        });
        match write {
            LedgerWrite::Claim(..) => failpoint::pass(Point::Claim),
            LedgerWrite::Entry(..) => failpoint::pass(Point::Entry),
            _ => {}
        }
    }

    pub(super) fn dead_letter(&mut self, op: OpId, letter: &DeadLetter) {
        metrics::dead_letter(&self.route.name, &letter.code);
        self.status.count("dead_letters", 1);
        let explain = error_catalog::name(&letter.code);
        tracing::warn!(
            route = %self.route.name, topic = %letter.raw.topic, position = %letter.position,
            key = letter.key.as_deref(), code = letter.code, explain,
            reason = letter.reason, "dead letter"
        );
        let described = codec::Letter {
            code: &letter.code,
            explain: &explain,
            reason: &letter.reason,
            position: letter.position,
            key: letter.key.as_deref(),
            route: &self.route.name,
            origin: codec::origin(&letter.raw).filter(|_| self.route.mapping.rekeyed_from.is_some()),
            superseded: &letter.superseded,
        };
        let (key, value, headers) = codec::dead_letter(&letter.raw, &described, clock::unix());
        let topic = Arc::clone(&self.route.dead_letters);
        self.produce(ProduceRequest { topic, partition: None, key, value, headers, tag: op.0 });
    }

    pub(super) fn result(&mut self, report: Report) {
        metrics::applied(&self.route.name, report.outcome, report.positions.len(), report.latency);
        self.status.count(report.outcome, 1);
        tracing::debug!(
            route = %self.route.name, key = %report.key, outcome = report.outcome, number = report.number,
            events = report.positions.len(), attempts = report.attempts, latency_ms = report.latency, "applied intent"
        );
        for warning in &report.warnings {
            tracing::warn!(route = %self.route.name, key = %report.key, number = report.number, warning, "stands otherwise");
        }
        let Some(topic) = self.route.results.clone() else { return };
        let fields = codec::ReportFields {
            schema: codec::ReportFields::SCHEMA.into(),
            route: self.route.name.to_string(),
            key: report.key.to_string(),
            outcome: report.outcome.into(),
            sys_id: report.sys_id,
            number: report.number,
            positions: codec::ReportFields::positions(&report.positions),
            fields: report.fields.into_iter().map(|(c, v)| (c.to_string(), v)).collect(),
            notes: report.notes as u64,
            attempts: report.attempts,
            latency_ms: report.latency,
            warnings: report.warnings,
            time: jiff::Timestamp::now().to_string(),
        };
        let (key, value) = codec::report(&fields);
        let (key, value) = (Some(key), Some(value));
        self.results.push(ProduceRequest { topic, partition: None, key, value, headers: Vec::new(), tag: NOBODY });
        if self.results.len() >= GATHER.1 {
            self.flush_results();
        }
    }

    /// Produces the gathered results, if it is time.
    pub(super) fn pass_results(&mut self, now: u64) {
        if now >= self.results_passed + GATHER.0 {
            self.results_passed = now;
            self.flush_results();
        }
    }

    pub(super) fn flush_results(&mut self) {
        for result in std::mem::take(&mut self.results) {
            self.produce(result);
        }
    }
}
