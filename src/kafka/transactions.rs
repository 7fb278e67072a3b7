//! The transactional producer of a source route: everything of one page, its checkpoint included, in one Kafka
//! transaction, or nothing of it.
//!
//! All calls block in librdkafka, so the client lives on a thread of its own, behind an async interface. A second
//! producer with the same transactional id fences the first, which learns it at its next transaction.

use std::time::Duration;

use super::{Error, KafkaOptions, ProduceRequest};

/// Why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// Another instance took this transactional id over: stop, it works now.
    #[error("another instance has taken over: {0}")]
    Fenced(String),
    /// Nothing of it is visible; the same records may be sent again with this producer.
    #[error("the transaction was aborted: {0}")]
    Retriable(String),
    /// Whether it was committed is not known: make a new producer with the same id (which settles the old
    /// transaction), read the checkpoint, and go on from there.
    #[error("the commit was not answered: {0}")]
    InDoubt(String),
    /// This producer is of no use any more; a new one may be.
    #[error("the transactional producer has failed: {0}")]
    Fatal(String),
}

/// A producer that writes transactions.
pub struct TransactionalProducer {
    _private: (),
}

impl TransactionalProducer {
    /// Connects, fences earlier producers of this id and settles what they left open. Takes at most `timeout`, which
    /// also bounds each transaction, on the broker too.
    pub async fn init(
        options: &KafkaOptions,
        transactional_id: &str,
        timeout: Duration,
    ) -> Result<Self, TransactionError> {
        let _ = (options, transactional_id, timeout);
        Err(TransactionError::Fatal("not built yet".into()))
    }

    /// Writes all these records in one transaction. Tags are not used.
    pub async fn send_all(&self, records: Vec<ProduceRequest>) -> Result<(), TransactionError> {
        let _ = records;
        Err(TransactionError::Fatal("not built yet".into()))
    }
}

/// Kept until the thread uses it.
pub type ThreadError = Error;
