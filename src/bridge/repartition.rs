//! A route's re-keying: its stage put together, and what stands against it at the start. A route can't be switched to
//! re-keying or back, since its ledger goes by the positions of the topic that it has read.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::config::{Config, Sink, Start};
use crate::kafka::topics::Topics;
use crate::kafka::{KafkaOptions, table};
use crate::ledger::{Identity, StartAt};
use crate::repartition::{Digest, Spread, Stage, Step};

/// For each call to the cluster.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where a route begins.
pub fn start_at(sink: &Sink) -> StartAt {
    match sink.start {
        Start::Earliest => StartAt::Earliest,
        Start::Latest => StartAt::Latest,
        Start::At(time) => StartAt::Time(time),
    }
}

/// The stages of a route before its sink: none where it reads its topic as it is, two where it makes digests.
/// `partitions` are the internal topics'.
pub fn stages(config: &Config, sink: &Sink, options: &KafkaOptions, partitions: i32) -> Vec<Stage> {
    let Some(inner) = sink.rekeyed.as_deref() else { return Vec::new() };
    let stage = |input: &str, group: String, step: Step, start: StartAt| Stage {
        name: sink.name.as_str().into(),
        kafka: options.clone(),
        input: input.to_owned(),
        group,
        session_timeout: config.kafka.session_timeout,
        max_poll_interval: config.kafka.max_poll_interval,
        transactional_id: format!("{}.{}.{}.{:016x}", config.topics.prefix, step.name(), sink.name, fastrand::u64(..)),
        step,
        start,
    };
    let decoder = || sink.decoder.clone();
    let Some(digest) = &sink.digest else {
        let step =
            Step::Spread(Box::new(Spread { decoder: decoder(), topic: inner.into(), partitions, group_by: None }));
        return vec![stage(&sink.topic, sink.rekey_group(), step, start_at(sink))];
    };
    let (group_by, topic) = (Some(digest.group_by.clone()), digest.grouped.as_str().into());
    let spread = Step::Spread(Box::new(Spread { decoder: decoder(), topic, partitions, group_by }));
    let made = Step::Digest(Digest {
        decoder: decoder(),
        topic: inner.into(),
        table: digest.table.as_str().into(),
        partitions,
        group_by: digest.group_by.text().into(),
        list: digest.list,
    });
    vec![
        stage(&sink.topic, sink.rekey_group(), spread, start_at(sink)),
        // What the first has written is all to be taken.
        stage(&digest.grouped, sink.digest_group(), made, StartAt::Earliest),
    ]
}

/// Whether the route has been run the other way before, or its internal topic has changed its partitions. `known` is what
/// its ledger belongs to, where it has one.
///
/// # Errors
/// It has: what to do. Or the cluster does not answer.
pub async fn refuse_switch(
    sink: &Sink,
    options: &KafkaOptions,
    partitions: i32,
    known: Option<&Identity>,
) -> Result<()> {
    let name = &sink.name;
    let before = known.map(|identity| identity.topic.as_str());
    const ANEW: &str = "or give the route a new name (and with it a ledger and a group of its own) at a time when few \
                        alerts are open, for it will not know the tickets that this one has made";
    let Some(topic) = &sink.rekeyed else {
        let ways = [("rekey: true", &sink.default_rekeyed), ("digest", &sink.default_digests)];
        if let Some((way, inner)) = ways.into_iter().find(|(_, inner)| before == Some(inner.as_str())) {
            bail!(
                "route {name}: it has been run with `{way}`, and its ledger {} goes by the positions of {inner}; set \
                 that again, {ANEW}",
                sink.ledger,
            );
        }
        return Ok(());
    };
    if before == Some(sink.topic.as_str()) || (before.is_none() && has_read(sink, options).await?) {
        bail!(
            "route {name}: it has been run without `rekey`, and its ledger {} goes by the positions of {}; remove \
             `rekey: true` or `digest`, {ANEW}",
            sink.ledger,
            sink.topic
        );
    }
    // Told before a stage begins, which would take away what the old way has not read yet.
    if let Some(before) = before.filter(|before| before != topic) {
        bail!(
            "route {name}: its ledger {} goes by the positions of {before}, and the route would read {topic} now: `rekeyed` \
             or `digest` was changed; take that back, {ANEW}",
            sink.ledger
        );
    }
    let began_with = known.filter(|identity| identity.topic == *topic).map(|identity| identity.partitions);
    if let Some(began_with) = began_with.filter(|began_with| *began_with != partitions) {
        bail!(
            "route {name}: the internal topic {topic} had {began_with} partitions when the route began, and has \
             {partitions} now: alerts would be in other partitions than their earlier records. Partitions can't be taken \
             away again, so give the route a new name (and with it topics of its own)"
        );
    }
    Ok(())
}

/// Whether the sink's group has read the user's topic itself.
async fn has_read(sink: &Sink, options: &KafkaOptions) -> Result<bool> {
    let partitions = Topics::new(options, TIMEOUT).partitions(&sink.topic).await?.unwrap_or(0);
    let (options, topic, group) = (options.clone(), sink.topic.clone(), sink.group.clone());
    let look = move || table::progress(&options, &topic, partitions, &group, TIMEOUT);
    let progress = tokio::task::spawn_blocking(look).await.context("a look at the group was cut short")??;
    Ok(progress.iter().any(|one| one.committed.is_some()))
}
