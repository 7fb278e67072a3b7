//! Builds the repartition and grouping stages of a route, and rejects a route that was switched to repartitioning or
//! back: the positions in its ledger refer to the topic that it has read so far.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::config::{Config, Sink, Start};
use crate::kafka::topics::Topics;
use crate::kafka::{KafkaOptions, table};
use crate::ledger::{Identity, StartAt};
use crate::repartition::{Grouping, Partitioner, Stage, Step};

/// Timeout of each call to the cluster.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Returns where a route starts reading if its group has no offset.
pub fn start_at(sink: &Sink) -> StartAt {
    match sink.start {
        Start::Earliest => StartAt::Earliest,
        Start::Latest => StartAt::Latest,
        Start::At(time) => StartAt::Time(time),
    }
}

/// Returns the stages of a route before its sink: none without `repartition`, one with it, and two with `grouping`.
/// `partitions` is the number of partitions of the internal topics.
pub fn stages(config: &Config, sink: &Sink, options: &KafkaOptions, partitions: i32) -> Vec<Stage> {
    let Some(consumed_topic) = sink.repartition_topic.as_deref() else { return Vec::new() };
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
    let Some(grouping) = &sink.grouping else {
        let step = Step::Repartition(Box::new(Partitioner {
            decoder: decoder(),
            topic: consumed_topic.into(),
            partitions,
            group_by: None,
        }));
        return vec![stage(&sink.topic, sink.repartition_group(), step, start_at(sink))];
    };
    let (group_by, topic) = (Some(grouping.group_by.clone()), grouping.input_topic.as_str().into());
    let repartition_step = Step::Repartition(Box::new(Partitioner { decoder: decoder(), topic, partitions, group_by }));
    let grouping_step = Step::Grouping(Grouping {
        decoder: decoder(),
        topic: consumed_topic.into(),
        state_topic: grouping.state_topic.as_str().into(),
        partitions,
        group_by: grouping.group_by.text().into(),
        max_listed: grouping.max_listed,
    });
    vec![
        stage(&sink.topic, sink.repartition_group(), repartition_step, start_at(sink)),
        // All records that the first stage has written are processed.
        stage(&grouping.input_topic, sink.grouping_group(), grouping_step, StartAt::Earliest),
    ]
}

/// Rejects a route that previously ran with another setting of `repartition` or `grouping`, or whose internal topic has
/// another number of partitions than before. `known` is the identity in the header of its ledger, if it has one.
///
/// # Errors
/// The route was switched: what to do. Or the cluster does not respond.
pub async fn reject_switch(
    sink: &Sink,
    options: &KafkaOptions,
    partitions: i32,
    known: Option<&Identity>,
) -> Result<()> {
    let name = &sink.name;
    let previous = known.map(|identity| identity.topic.as_str());
    const NEW_ROUTE: &str = "or give the route a new name (and thus a new ledger and consumer group) while few alerts \
                             are open: it will not know the existing tickets";
    let Some(topic) = &sink.repartition_topic else {
        let settings =
            [("repartition: true", &sink.default_repartition_topic), ("grouping", &sink.default_groups_topic)];
        if let Some((setting, topic)) = settings.into_iter().find(|(_, topic)| previous == Some(topic.as_str())) {
            bail!(
                "route {name}: it previously ran with `{setting}`, and the positions in its ledger {} refer to {topic}; \
                 set it again, {NEW_ROUTE}",
                sink.ledger,
            );
        }
        return Ok(());
    };
    if previous == Some(sink.topic.as_str()) || (previous.is_none() && has_read(sink, options).await?) {
        bail!(
            "route {name}: it previously ran without `repartition`, and the positions in its ledger {} refer to {}; \
             remove `repartition: true` or `grouping`, {NEW_ROUTE}",
            sink.ledger,
            sink.topic
        );
    }
    // Checked before a stage starts: a stage commits offsets, and the topic that the route read before would lack the
    // records before these offsets.
    if let Some(previous) = previous.filter(|previous| previous != topic) {
        bail!(
            "route {name}: the positions in its ledger {} refer to {previous}, but the route would now read {topic}: \
             `repartition_topic` or `grouping` was changed; undo the change, {NEW_ROUTE}",
            sink.ledger
        );
    }
    let old_partitions = known.filter(|identity| identity.topic == *topic).map(|identity| identity.partitions);
    if let Some(old_partitions) = old_partitions.filter(|old_partitions| *old_partitions != partitions) {
        bail!(
            "route {name}: the internal topic {topic} had {old_partitions} partitions when the route started, and now \
             has {partitions}: alerts would be in other partitions than their earlier records. Partitions can't be \
             removed, so give the route a new name (and thus new topics)"
        );
    }
    Ok(())
}

/// Returns true if the sink's group has committed offsets of the user's topic.
async fn has_read(sink: &Sink, options: &KafkaOptions) -> Result<bool> {
    let partitions = Topics::new(options, TIMEOUT).partitions(&sink.topic).await?.unwrap_or(0);
    let (options, topic, group) = (options.clone(), sink.topic.clone(), sink.group.clone());
    let query = move || table::group_progress(&options, &topic, partitions, &group, TIMEOUT);
    let progress =
        tokio::task::spawn_blocking(query).await.context("reading the offsets of the group was interrupted")??;
    Ok(progress.iter().any(|partition| partition.committed.is_some()))
}
