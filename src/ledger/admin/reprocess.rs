//! Events of the past applied again: the input is read once more from an earlier place, and what the ledger says of
//! having applied them no longer counts. The tickets themselves stay known, so none is made twice.
//!
//! By default only alerts whose tickets are open take part, and those that the ledger does not know; what is resolved or
//! closed stays as it is. Everything of an event is applied again: values, state, and its note once more, since nobody
//! can tell why it should be left out. Positions begin anew under another incarnation, which stands in the markers of
//! notes, so that a look for one written now does not find the one of then.
//!
//! Cut short, it leaves a ledger that goes on where it was: the offsets move last.

use std::collections::BTreeMap;
use std::time::Duration;

use super::headers::Begin;
use super::{Error, Site, blocking, refuse_unsettled};
use crate::engine::event::LedgerWrite;
use crate::kafka::{groups, table};
use crate::ledger::{Header, StartAt, Survey, wire};
use crate::model::{AttemptId, Entry, Mark, Phase, Position, Token};

/// How the keys of marks begin.
const MARK: &[u8] = b"mark:";

/// What takes part.
#[derive(Debug, Clone, Copy)]
pub struct Again {
    /// From where.
    pub from: StartAt,
    /// Alerts whose tickets are resolved or closed take part, too.
    pub finished: bool,
    /// The ledger may have forgotten keys of which events are read again: each that it does not know is looked up.
    pub incomplete: bool,
}

/// What is read again of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reread {
    /// The partition.
    pub partition: i32,
    /// The first offset that is read again.
    pub from: i64,
    /// Where reading had come to.
    pub upto: i64,
    /// Keys that take part, of those that the ledger knows.
    pub keys: usize,
    /// Keys that stay as they are, because their tickets are finished.
    pub finished: usize,
}

/// What would be read again; partitions of which nothing is are left out. Changes nothing.
///
/// # Errors
/// The ledger belongs to something else, has parked keys or unsettled writes, or the cluster does not answer.
pub async fn reread(site: &Site, again: Again) -> Result<Vec<Reread>, Error> {
    Ok(plan(site, again).await?.into_iter().map(|(reread, _)| reread).collect())
}

/// Sets the ledger and the group's offsets back. First it waits until no write of before can strike any more: `span`
/// after the ledger's newest record. All is read and checked before anything is written.
///
/// # Errors
/// As of [`reread`]; what was written then may stay, and the command may be given again.
pub async fn reprocess(site: &Site, again: Again, span: Duration) -> Result<Vec<Reread>, Error> {
    let mut marks = BTreeMap::new();
    for partition in 0..site.partitions {
        let mut keys = site.remains(partition, span).await?.keys;
        keys.retain(|key| key.starts_with(MARK));
        marks.insert(partition, keys);
    }
    let planned = plan(site, again).await?;
    let now = u32::try_from(crate::runtime::clock::unix() / 1_000).unwrap_or(u32::MAX);
    for (reread, survey) in &planned {
        let partition = reread.partition;
        let incomplete =
            again.incomplete || survey.header.as_ref().is_some_and(|header| header.may_lack_keys(&site.identity));
        let header = Header { identity: site.identity_in(now), incomplete };
        site.write_header(partition, &header).await?;
        let token = site.write_owner(partition).await?;
        let entries = entries(site, *reread, survey, again.finished, token);
        site.write(&site.ledger, partition, entries).await?;
        // A mark never falls: the highest of all counts.
        let marks = marks.remove(&partition).into_iter().flatten();
        site.write(&site.ledger, partition, marks.map(|key| (key, None))).await?;
        let mark = Mark { watermark: reread.from, former: survey.loaded.former.clone() };
        site.write_mark(partition, token, mark).await?;
    }
    let starts: Vec<(i32, i64)> = planned.iter().map(|(reread, _)| (reread.partition, reread.from)).collect();
    let (options, group, input) = (site.options.clone(), site.group.clone(), site.input.clone());
    blocking("setting the group's offsets", move || Ok(groups::commit(&options, &group, &input, &starts)?)).await?;
    Ok(planned.into_iter().map(|(reread, _)| reread).collect())
}

async fn plan(site: &Site, again: Again) -> Result<Vec<(Reread, Survey)>, Error> {
    let starts = site.starts(Begin::At(again.from)).await?;
    let (options, input, group, timeout) = (site.options.clone(), site.input.clone(), site.group.clone(), site.timeout);
    let partitions = site.partitions;
    let progress = move || Ok(table::progress(&options, &input, partitions, &group, timeout)?);
    let progress = blocking("a look at the group", progress).await?;
    let mut planned = Vec::new();
    for ((partition, from), progress) in starts.into_iter().zip(progress) {
        let survey = site.survey(partition, |_| ()).await?;
        let Some(upto) = progress.committed.max(survey.mark).filter(|upto| from < *upto) else { continue };
        site.own_header(partition, &survey, None)?;
        refuse_unsettled(&survey)?;
        if let Some(key) = survey.loaded.parks.keys().next() {
            return Err(Error::Parked { count: survey.loaded.parks.len(), key: key.to_string() });
        }
        let all = survey.loaded.entries.len();
        let keys = survey.loaded.entries.iter().filter(|(_, entry)| takes_part(site, entry, again.finished)).count();
        planned.push((Reread { partition, from, upto, keys, finished: all - keys }, survey));
    }
    Ok(planned)
}

fn takes_part(site: &Site, entry: &Entry, finished: bool) -> bool {
    finished || !matches!(site.states.phase(&entry.seen.state), Phase::Resolved | Phase::Closed)
}

/// The entries that take part, as if nothing from there on had been applied.
fn entries(
    site: &Site,
    reread: Reread,
    survey: &Survey,
    finished: bool,
    token: Token,
) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
    let before = Position::new(reread.partition, reread.from - 1, u32::MAX);
    let known = survey.loaded.entries.iter().filter(move |(_, entry)| takes_part(site, entry, finished));
    known.zip(0..).map(move |((key, entry), number)| {
        let position = entry.position.min(before);
        let attempt = AttemptId { token, number };
        let entry = Entry { token, attempt, position, occurred_at: 0, event_ids: Vec::new(), partial: None, ..entry };
        wire::encode(&LedgerWrite::Entry(key, Box::new(entry)))
    })
}
