//! Consumer groups from outside: who is a member, and setting the offsets of a group that has none.
//!
//! Joins no group. That a group is without members is true at the moment of the answer only; whoever relies on it says
//! to people that nothing may be started meanwhile.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::options::{Isolation, Logging};
use super::{Error, KafkaOptions};

/// The members of a group, as `client id at host`; none where there is no such group. Blocks.
///
/// # Errors
/// The cluster does not answer, or does not let us look.
pub fn members(options: &KafkaOptions, group: &str, timeout: Duration) -> Result<Vec<String>, Error> {
    let fail = |error| Error::call(format!("can't learn who is in the group {group}"), error);
    let consumer: BaseConsumer<Logging> = options.lookup().create_with_context(Logging).map_err(fail)?;
    let found = consumer.fetch_group_list(Some(group), timeout).map_err(fail)?;
    let members =
        found.groups().iter().filter(|known| known.name() == group).flat_map(rdkafka::groups::GroupInfo::members);
    Ok(members.map(|one| format!("{} at {}", one.client_id(), one.client_host().trim_start_matches('/'))).collect())
}

/// Sets the group's offsets of a topic. The coordinator refuses it while the group has members. Blocks.
///
/// # Errors
/// The cluster does not answer, or refuses.
pub fn commit(options: &KafkaOptions, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), Error> {
    let fail = |error| Error::call(format!("can't set the offsets of the group {group} in {topic}"), error);
    let config = options.table_reader(group, Isolation::Uncommitted);
    let consumer: BaseConsumer<Logging> = config.create_with_context(Logging).map_err(fail)?;
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for &(partition, offset) in offsets {
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(fail)?;
    }
    consumer.commit(&list, CommitMode::Sync).map_err(fail)
}
