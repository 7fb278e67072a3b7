//! What a ledger belongs to, set right by a person: taken along with the instance to its new address, or begun anew.
//!
//! **Begun anew** means that nothing of what stood in it counts: its records are removed, the group's offsets and the
//! mark are set to where reading goes on, and the header says that the ledger does not know every key. From then on each
//! key that it does not know is looked up in the instance at its next event, before anything is written: open tickets
//! are found and kept, at the price of one request a key. Not known any more are positions (so nothing may be read
//! again that was applied), who wrote which value last (a value that a person put there may be overwritten), and which
//! notes stand.

use std::time::Duration;

use super::{Error, Site, blocking};
use crate::kafka::{groups, table};
use crate::ledger::header::{ADOPT, Difference};
use crate::ledger::{Header, Identity, Remains, StartAt, wire};
use crate::model::{Mark, Token};

/// Where reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the group's offset.
    Committed,
    /// There.
    At(StartAt),
}

/// In what the ledger differs from what the route is now, partition by partition; partitions without a header are left
/// out.
///
/// # Errors
/// The cluster does not answer, or the ledger can't be read.
pub async fn differences(site: &Site) -> Result<Vec<(i32, Vec<Difference>)>, Error> {
    let mut all = Vec::new();
    for partition in 0..site.partitions {
        let place = site.place(partition);
        if let Some(header) = blocking("reading the ledger", move || Ok(place.header()?)).await? {
            all.push((partition, header.differences(&site.identity)));
        }
    }
    Ok(all)
}

/// Takes the ledger along to the instance's new address. With `proven` a person says that it knows every open ticket,
/// though it was begun anew or its input has grown: keys are not looked up any more. Answers how many headers were
/// written.
///
/// # Errors
/// It differs in something else, a partition has no header, or the cluster does not answer.
pub async fn adopt(site: &Site, proven: bool) -> Result<usize, Error> {
    let mut headers = Vec::new();
    for partition in 0..site.partitions {
        let header = site.own_header(partition, &site.survey(partition, |_| ()).await?, Some(ADOPT))?;
        let incomplete = header.may_lack_keys(&site.identity) && !proven;
        let wanted = Header { identity: site.identity_in(header.identity.topic_generation), incomplete };
        if header != wanted {
            headers.push((partition, wanted));
        }
    }
    for (partition, header) in &headers {
        site.write_header(*partition, header).await?;
    }
    Ok(headers.len())
}

/// Begins the ledger anew. Waits until no write of before can strike any more: `span` after the ledger's newest record.
/// `tell` hears of each partition: where it begins, and how many records were removed.
///
/// # Errors
/// Where to begin can't be told, or the cluster does not answer; the command may be given again.
pub async fn rebuild(
    site: &Site,
    begin: Begin,
    span: Duration,
    tell: &mut (dyn FnMut(i32, i64, usize) + Send),
) -> Result<(), Error> {
    let starts = site.starts(begin).await?;
    let now = u32::try_from(crate::runtime::clock::unix() / 1_000).unwrap_or(u32::MAX);
    for (partition, start) in &starts {
        let remains = site.remains(*partition, span).await?;
        // What is read on from the group's offset has the positions that it had, if that is known.
        let known = remains.header.filter(|_| begin == Begin::Committed);
        let topic_generation = known.map_or(now, |header| header.identity.topic_generation);
        // First of all what makes every key be looked up, whatever becomes of the rest.
        let header = Header { identity: site.identity_in(topic_generation), incomplete: true };
        site.write_header(*partition, &header).await?;
        let removed = remains.keys.len();
        site.write(&site.ledger, *partition, remains.keys.into_iter().map(|key| (key, None))).await?;
        let token = site.write_owner(*partition).await?;
        site.write_mark(*partition, token, Mark::at(*start)).await?;
        tell(*partition, *start, removed);
    }
    let (options, group, input) = (site.options.clone(), site.group.clone(), site.input.clone());
    blocking("setting the group's offsets", move || Ok(groups::commit(&options, &group, &input, &starts)?)).await
}

impl Site {
    /// Where reading begins, partition by partition.
    pub(super) async fn starts(&self, begin: Begin) -> Result<Vec<(i32, i64)>, Error> {
        let (options, input, group, timeout) =
            (self.options.clone(), self.input.clone(), self.group.clone(), self.timeout);
        let partitions = self.partitions;
        blocking("a look at the input", move || {
            let progress = table::progress(&options, &input, partitions, &group, timeout)?;
            let mut starts = Vec::new();
            for (partition, one) in (0..).zip(progress) {
                let low = table::low(&options, &input, partition, timeout)?;
                let start = match begin {
                    Begin::At(StartAt::Earliest) => low,
                    Begin::At(StartAt::Latest) => one.end,
                    Begin::At(StartAt::Time(time)) => {
                        table::offset_for_time(&options, &input, partition, time, timeout)?
                    }
                    Begin::Committed => match one.committed.filter(|offset| (low..=one.end).contains(offset)) {
                        Some(offset) => offset,
                        // Nothing was ever read of an empty partition.
                        None if one.end == 0 && one.committed.is_none() => 0,
                        None => {
                            let committed =
                                one.committed.map_or("has no offset there".into(), |o| format!("is at {o}"));
                            return Err(Error::From { input, partition, low, high: one.end, group, committed });
                        }
                    },
                };
                starts.push((partition, start));
            }
            Ok(starts)
        })
        .await
    }

    /// What the route is now, its positions those of that incarnation.
    pub(super) fn identity_in(&self, topic_generation: u32) -> Identity {
        Identity { topic_generation, ..self.identity.clone() }
    }

    pub(super) async fn write_header(&self, partition: i32, header: &Header) -> Result<(), Error> {
        self.write(&self.ledger, partition, [(b"header".to_vec(), Some(wire::encode_header(header)))]).await?;
        Ok(())
    }

    /// A token of our own, as an owner's.
    pub(super) async fn write_owner(&self, partition: i32) -> Result<Token, Error> {
        let owner = wire::Owner {
            member: "nowbridge ledger".into(),
            host: String::new(),
            route: self.identity.route.clone(),
            at: crate::runtime::clock::unix(),
        };
        let owner = [(b"owner".to_vec(), Some(wire::encode_owner(&owner)))];
        Ok(Token(self.write(&self.ledger, partition, owner).await?.unwrap_or(0)))
    }

    /// Under such a token.
    pub(super) async fn write_mark(&self, partition: i32, token: Token, mark: Mark) -> Result<(), Error> {
        let mark = wire::encode(&crate::engine::event::LedgerWrite::Mark(token, mark));
        self.write(&self.ledger, partition, [mark]).await?;
        Ok(())
    }

    /// What stands in a partition, once its newest record is so old.
    pub(super) async fn remains(&self, partition: i32, span: Duration) -> Result<Remains, Error> {
        loop {
            let place = self.place(partition);
            let remains = blocking("reading the ledger", move || Ok(place.remains()?)).await?;
            let age =
                remains.newest.map_or(u64::MAX, |at| u64::try_from(crate::runtime::clock::unix() - at).unwrap_or(0));
            let wait = span.saturating_sub(Duration::from_millis(age));
            if wait.is_zero() {
                return Ok(remains);
            }
            tokio::time::sleep(wait).await;
        }
    }
}
