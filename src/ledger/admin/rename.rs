//! A ledger taken along to a route's new name: copied to the topic of the new one, offsets and all.
//!
//! In the new topic offsets begin at 0, and a token is an offset. So everything is written under token 0, which no owner
//! will ever have, and each attempt is numbered anew, so that none is taken for one of a later owner. Writes of unknown
//! outcome can't be taken along, and are refused. The old topic is left as it is.

use super::{Error, Site, blocking, refuse_unsettled};
use crate::engine::event::LedgerWrite;
use crate::kafka::topics::Topics;
use crate::kafka::{groups, table};
use crate::ledger::header::RENAME;
use crate::ledger::{Header, Survey, wire};
use crate::model::{AttemptId, Entry, Mark, Park, Token};

/// The token that stands in what was copied.
const COPIED: Token = Token(0);

/// What the route was.
#[derive(Debug, Clone)]
pub struct Old {
    /// Its ledger.
    pub ledger: String,
    /// Its group.
    pub group: String,
}

/// Copies the ledger and the group's offsets; or where the ledger is the same topic, says in it whose it is now. `tell`
/// hears of each partition how many keys were taken along. All is read and checked before anything is written.
///
/// # Errors
/// It belongs to something else than another name of this route, the new ledger is not empty, or the cluster does not
/// answer.
pub async fn rename(site: &Site, old: &Old, tell: &mut (dyn FnMut(i32, usize) + Send)) -> Result<(), Error> {
    let from = Site { ledger: old.ledger.as_str().into(), group: old.group.clone(), ..site.clone() };
    let found = Topics::new(&site.options, site.timeout).partitions(&from.ledger).await?;
    let partitions = found.ok_or_else(|| Error::NoLedger(old.ledger.clone()))?;
    if partitions != site.partitions {
        let (from, to) = (old.ledger.clone(), site.ledger.to_string());
        return Err(Error::Partitions { from, old: partitions, to, new: site.partitions });
    }
    let same = from.ledger == site.ledger;
    for partition in 0..partitions {
        check(&from, partition).await?;
        if !same && site.is_written_to(partition).await? {
            return Err(Error::NotEmpty(site.ledger.to_string()));
        }
    }
    for partition in 0..partitions {
        let survey = from.survey(partition, |_| ()).await?;
        let incomplete = survey.header.as_ref().is_some_and(|header| header.may_lack_keys(&site.identity));
        let topic_generation = survey.header.as_ref().map_or(0, |header| header.identity.topic_generation);
        let header = Header { identity: site.identity_in(topic_generation), incomplete };
        let keys = if same { survey.loaded.entries.len() } else { copy(site, partition, survey).await? };
        // Last, so that a copy that was cut short is not taken for a whole one.
        site.write_header(partition, &header).await?;
        tell(partition, keys);
    }
    if from.group == site.group {
        return Ok(());
    }
    let (options, input, timeout) = (site.options.clone(), site.input.clone(), site.timeout);
    let (of, to) = (from.group, site.group.clone());
    blocking("taking the group's offsets along", move || {
        let progress = table::progress(&options, &input, partitions, &of, timeout)?;
        let offsets: Vec<(i32, i64)> =
            (0..).zip(progress).filter_map(|(partition, one)| Some((partition, one.committed?))).collect();
        Ok(groups::commit(&options, &to, &input, &offsets)?)
    })
    .await
}

/// Whether a partition's ledger is another name's of this route, and nothing of it is under way.
async fn check(from: &Site, partition: i32) -> Result<(), Error> {
    let survey = from.survey(partition, |_| ()).await?;
    from.own_header(partition, &survey, Some(RENAME))?;
    refuse_unsettled(&survey)
}

/// Writes what counts of a partition to the new ledger; how many keys that is.
async fn copy(site: &Site, partition: i32, survey: Survey) -> Result<usize, Error> {
    let entries = survey.loaded.entries.iter().zip(0..).map(|((key, entry), number)| {
        let attempt = AttemptId { token: COPIED, number };
        wire::encode(&LedgerWrite::Entry(key, Box::new(Entry { token: COPIED, attempt, ..entry })))
    });
    let parks = survey
        .loaded
        .parks
        .iter()
        .map(|(key, park)| wire::encode(&LedgerWrite::Park(key.clone(), Park { token: COPIED, ..park.clone() })));
    site.write(&site.ledger, partition, entries.chain(parks)).await?;
    if let Some(watermark) = survey.mark {
        let mark = wire::encode(&LedgerWrite::Mark(COPIED, Mark::at(watermark)));
        site.write(&site.ledger, partition, [mark]).await?;
    }
    Ok(survey.loaded.entries.len())
}

impl Site {
    /// Whether a member has had this partition, or a copy is whole.
    async fn is_written_to(&self, partition: i32) -> Result<bool, Error> {
        let survey = self.survey(partition, |_| ()).await?;
        let of_members = survey.loaded.tokens.iter().any(|token| *token != COPIED);
        Ok(survey.header.is_some() || of_members)
    }
}
