//! Commands that rewrite the headers of a ledger: adopt (the instance has a new address) and rebuild (start from an
//! empty ledger).
//!
//! **Rebuild** removes all records, sets the group's offsets and the mark to where reading continues, and writes a
//! header that says that the ledger may lack keys. From then on the bridge looks each unknown key up in the instance at
//! the key's next event, before it writes anything: it finds and keeps open tickets, at the cost of progress request
//! per key. A rebuild loses the positions (so applied records must not be read again), who last wrote which value (a
//! user's value may be overwritten), and which notes are written.

use std::time::Duration;

use super::{Error, RouteLedger, blocking};
use crate::kafka::{groups, table};
use crate::ledger::header::{ADOPT_COMMAND, IdentityMismatch};
use crate::ledger::{Header, Identity, LedgerKeys, StartAt, wire};
use crate::model::{Mark, Token};

/// Where reading continues after a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebuildFrom {
    /// At the group's offset.
    Committed,
    /// At this start.
    At(StartAt),
}

/// Returns by partition how the ledger's headers differ from the route. Skips partitions without a header.
///
/// # Errors
/// The cluster does not respond, or the ledger cannot be read.
pub async fn mismatches(ledger: &RouteLedger) -> Result<Vec<(i32, Vec<IdentityMismatch>)>, Error> {
    let mut all = Vec::new();
    for partition in 0..ledger.partitions {
        let reader = ledger.partition(partition);
        if let Some(header) = blocking("reading the ledger", move || Ok(reader.read_header()?)).await? {
            all.push((partition, header.mismatches(&ledger.identity)));
        }
    }
    Ok(all)
}

/// Adopts the ledger for the instance's new address. With `complete` the operator states that the ledger has every open
/// ticket although it was rebuilt or its input got more partitions: the bridge then no longer looks keys up. Returns
/// how many headers were written.
///
/// # Errors
/// The ledger differs in another property, a partition has no header, or the cluster does not respond.
pub async fn adopt(ledger: &RouteLedger, complete: bool) -> Result<usize, Error> {
    let mut headers = Vec::new();
    for partition in 0..ledger.partitions {
        let content = ledger.read_partition(partition, |_| ()).await?;
        let header = ledger.matching_header(partition, &content, Some(ADOPT_COMMAND))?;
        let incomplete = header.may_lack_keys(&ledger.identity) && !complete;
        let wanted = Header { identity: ledger.identity_with(header.identity.topic_generation), incomplete };
        if header != wanted {
            headers.push((partition, wanted));
        }
    }
    for (partition, header) in &headers {
        ledger.write_header(*partition, header).await?;
    }
    Ok(headers.len())
}

/// Rebuilds the ledger. First waits until no earlier write can be committed any more: `span` after the newest ledger
/// record. Calls `report` for each partition with the offset at which reading starts and the number of removed records.
///
/// # Errors
/// The start offset is unknown, or the cluster does not respond. The command can be repeated.
pub async fn rebuild(
    ledger: &RouteLedger,
    from: RebuildFrom,
    span: Duration,
    report: &mut (dyn FnMut(i32, i64, usize) + Send),
) -> Result<(), Error> {
    let starts = ledger.start_offsets(from).await?;
    let now = u32::try_from(crate::runtime::clock::unix() / 1_000).unwrap_or(u32::MAX);
    for (partition, start) in &starts {
        let content = ledger.read_keys(*partition, span).await?;
        // Reading from the group's offset continues with the same positions, so the topic generation stays, if it is
        // known.
        let header = content.header.filter(|_| from == RebuildFrom::Committed);
        let topic_generation = header.map_or(now, |header| header.identity.topic_generation);
        // The header goes first: it makes the bridge look up every key, even if the rest of the command fails.
        let header = Header { identity: ledger.identity_with(topic_generation), incomplete: true };
        ledger.write_header(*partition, &header).await?;
        let removed = content.keys.len();
        ledger.write(&ledger.topic, *partition, content.keys.into_iter().map(|key| (key, None))).await?;
        let token = ledger.write_owner_record(*partition).await?;
        ledger.write_mark(*partition, token, Mark::at(*start)).await?;
        report(*partition, *start, removed);
    }
    let (options, group, input) = (ledger.options.clone(), ledger.group.clone(), ledger.input.clone());
    blocking("setting the group's offsets", move || Ok(groups::set_offsets(&options, &group, &input, &starts)?)).await
}

impl RouteLedger {
    /// Returns by partition the offset at which reading starts.
    pub(super) async fn start_offsets(&self, from: RebuildFrom) -> Result<Vec<(i32, i64)>, Error> {
        let (options, input, group, timeout) =
            (self.options.clone(), self.input.clone(), self.group.clone(), self.timeout);
        let partitions = self.partitions;
        blocking("reading the input's offsets", move || {
            let all = table::group_progress(&options, &input, partitions, &group, timeout)?;
            let mut starts = Vec::new();
            for (partition, progress) in (0..).zip(all) {
                let low = table::log_start_offset(&options, &input, partition, timeout)?;
                let start = match from {
                    RebuildFrom::At(StartAt::Earliest) => low,
                    RebuildFrom::At(StartAt::Latest) => progress.end,
                    RebuildFrom::At(StartAt::Time(time)) => {
                        table::offset_for_time(&options, &input, partition, time, timeout)?
                    }
                    RebuildFrom::Committed => {
                        match progress.committed.filter(|offset| (low..=progress.end).contains(offset)) {
                            Some(offset) => offset,
                            // An empty partition was never read.
                            None if progress.end == 0 && progress.committed.is_none() => 0,
                            None => {
                                let committed =
                                    progress.committed.map_or("has no offset".into(), |o| format!("is at offset {o}"));
                                return Err(Error::UnknownStart {
                                    input,
                                    partition,
                                    low,
                                    high: progress.end,
                                    group,
                                    committed,
                                });
                            }
                        }
                    }
                };
                starts.push((partition, start));
            }
            Ok(starts)
        })
        .await
    }

    /// Returns the route's identity with this topic generation.
    pub(super) fn identity_with(&self, topic_generation: u32) -> Identity {
        Identity { topic_generation, ..self.identity.clone() }
    }

    pub(super) async fn write_header(&self, partition: i32, header: &Header) -> Result<(), Error> {
        self.write(&self.topic, partition, [(b"header".to_vec(), Some(wire::encode_header(header)))]).await?;
        Ok(())
    }

    /// Writes an `owner` record and returns its offset as a token.
    pub(super) async fn write_owner_record(&self, partition: i32) -> Result<Token, Error> {
        let owner = wire::Owner {
            member: "nowbridge ledger".into(),
            host: String::new(),
            route: self.identity.route.clone(),
            at: crate::runtime::clock::unix(),
        };
        let owner = [(b"owner".to_vec(), Some(wire::encode_owner(&owner)))];
        Ok(Token(self.write(&self.topic, partition, owner).await?.unwrap_or(0)))
    }

    /// Writes a mark under a token of [`RouteLedger::write_owner_record`].
    pub(super) async fn write_mark(&self, partition: i32, token: Token, mark: Mark) -> Result<(), Error> {
        let mark = wire::encode(&crate::engine::event::LedgerWrite::Mark(token, mark));
        self.write(&self.topic, partition, [mark]).await?;
        Ok(())
    }

    /// Reads the keys of a partition, once its newest record is at least `span` old.
    pub(super) async fn read_keys(&self, partition: i32, span: Duration) -> Result<LedgerKeys, Error> {
        loop {
            let reader = self.partition(partition);
            let content = blocking("reading the ledger", move || Ok(reader.read_keys()?)).await?;
            let age = content
                .newest_timestamp
                .map_or(u64::MAX, |at| u64::try_from(crate::runtime::clock::unix() - at).unwrap_or(0));
            let wait = span.saturating_sub(Duration::from_millis(age));
            if wait.is_zero() {
                return Ok(content);
            }
            tokio::time::sleep(wait).await;
        }
    }
}
