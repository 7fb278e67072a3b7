//! Consumer groups seen from outside: lists the members, and sets the offsets of a group without members.
//!
//! Joins no group. A list of members is true only at the moment of the response, so a command that relies on it tells
//! the user not to start any members meanwhile.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::options::{Isolation, Logging};
use super::{Error, KafkaOptions};

/// Returns the members of a group, as `client id at host`; none if the group does not exist. Blocks.
///
/// # Errors
/// The cluster does not answer, or denies access.
pub fn members(options: &KafkaOptions, group: &str, timeout: Duration) -> Result<Vec<String>, Error> {
    let fail = |error| Error::call(format!("can't list the members of the group {group}"), error);
    let consumer: BaseConsumer<Logging> = options.lookup().create_with_context(Logging).map_err(fail)?;
    let found = consumer.fetch_group_list(Some(group), timeout).map_err(fail)?;
    let members =
        found.groups().iter().filter(|known| known.name() == group).flat_map(rdkafka::groups::GroupInfo::members);
    let describe = |member: &rdkafka::groups::GroupMemberInfo| {
        format!("{} at {}", member.client_id(), member.client_host().trim_start_matches('/'))
    };
    Ok(members.map(describe).collect())
}

/// Sets the group's offsets of a topic. The coordinator rejects it while the group has members. Blocks.
///
/// # Errors
/// The cluster does not answer, or rejects the offsets.
pub fn set_offsets(options: &KafkaOptions, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), Error> {
    let fail = |error| Error::call(format!("can't set the offsets of the group {group} in {topic}"), error);
    let config = options.table_reader(group, Isolation::Uncommitted);
    let consumer: BaseConsumer<Logging> = config.create_with_context(Logging).map_err(fail)?;
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for &(partition, offset) in offsets {
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(fail)?;
    }
    consumer.commit(&list, CommitMode::Sync).map_err(fail)
}
