//! Entries behave like a map, whether packed or not, and use little memory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::{AttemptId, EventOrder, FieldHash, LastSeen, PartialNote, Position, Token};

/// An entry as it is after an incident was written with the columns of the default mapping.
fn sample_entry(number: u64) -> Entry {
    let own = |column: &str| {
        (column.into(), FieldHash { sent: number.wrapping_mul(0x9e37_79b9_7f4a_7c15), stored: None, kept: None })
    };
    let common =
        |column: &str, value| (column.into(), FieldHash { sent: value + number % 3, stored: None, kept: None });
    Entry {
        token: Token(17),
        attempt: AttemptId { token: Token(17), number },
        sys_id: format!("{:032x}", u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
        number: format!("INC{number:07}"),
        generation: 1,
        position: Position::new(3, 40_000 + number.cast_signed(), 0),
        partial_note: None,
        fields: vec![
            own("description"),
            common("impact", 10),
            common("priority", 20),
            own("short_description"),
            common("state", 30),
            common("u_source", 40),
            common("urgency", 50),
        ],
        earlier_tickets: Vec::new(),
        order: EventOrder::of_time(1_790_000_000_000 + number.cast_signed() * 7),
        resolved_at: None,
        event_ids: vec![number.wrapping_mul(0x2545_f491_4f6c_dd1d)],
        episode: None,
        ended_by_user: false,
        last_seen: LastSeen {
            state: "1".into(),
            mod_count: 0,
            updated_by: "svc_nowbridge".into(),
            inactive: false,
            at: 1_790_000_000_900,
        },
        written_at: 1_790_000_000_901 + number.cast_signed() * 7,
    }
}

fn key(number: u64) -> Key {
    format!("prometheus/host-{number:06}/disk").into()
}

impl Entries {
    /// Heap bytes of inactive entries.
    fn bytes(&self) -> usize {
        self.arena.size() + self.index.allocation_size()
    }
}

#[test]
fn a_million_keys_cost_less_than_150_bytes_each() {
    // A twentieth of a million, at the worst moment for the index: right after it has grown.
    let count = 57_345;
    let entries: Entries = (0..count).map(|number| (key(number), sample_entry(number))).collect();
    let each = entries.bytes() / usize::try_from(count).expect("a small number");
    assert!(each <= 150, "{each} bytes per key");
    assert_eq!(entries.len(), 57_345);
    assert_eq!(entries.get(&key(4711)).as_deref(), Some(&sample_entry(4711)));
}

#[test]
fn repeated_changes_leave_at_most_a_quarter_of_waste() {
    let mut entries: Entries = (0..5_000).map(|number| (key(number), sample_entry(number))).collect();
    let before = entries.bytes();
    for round in 1..=20 {
        for number in 0..5_000 {
            let key = key(number);
            entries.get_mut(&key).expect("an entry").generation = round;
            entries.deactivate(&key);
        }
    }
    assert!(entries.bytes() <= before * 3 / 2 + 2 * 65_536, "{} bytes, {before} before", entries.bytes());
    assert!(
        (0..5_000).all(|n| entries.get(&key(n)).is_some_and(|e| *e == Entry { generation: 20, ..sample_entry(n) }))
    );
}

#[test]
fn a_round_returns_every_inactive_key_once() {
    let mut entries: Entries = (0..3_000).map(|number| (key(number), sample_entry(number))).collect();
    (0..3_000).step_by(3).for_each(|number| drop(entries.remove(&key(number))));
    entries.activate(&key(1));
    let mut seen: Vec<Key> = (0..1_999).filter_map(|_| entries.next_inactive().map(|(key, _)| key)).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 1_999);
    assert!(!seen.contains(&key(1)) && !seen.contains(&key(3)));
    assert!(entries.next_inactive().is_some(), "the next round starts");
    assert!(Entries::default().next_inactive().is_none());
}

#[test]
fn an_entry_longer_than_a_chunk_is_kept_as_a_value() {
    let mut entries = Entries::default();
    let long = Entry { earlier_tickets: vec!["0123456789abcdef".repeat(2); 3_000], ..sample_entry(1) };
    entries.insert(key(1), long.clone());
    entries.deactivate(&key(1));
    assert_eq!(entries.get(&key(1)).as_deref(), Some(&long));
    assert_eq!(entries.remove(&key(1)), Some(long));
    assert!(entries.is_empty());
}

prop_compose! {
    fn any_entry()(
        texts in prop::collection::vec(".{0,12}|[0-9]{1,25}|[A-Z]{0,4}[0-9]{0,20}|[0-9a-f]{32}|[0-9A-F]{32}", 5),
        numbers in prop::array::uniform8(any::<u64>()),
        (partition, index, generation, near) in any::<(i32, u32, u32, u16)>(),
        fields in prop::collection::btree_map(
            "[a-z_]{1,8}|.{0,80}",
            (0_u64..4, prop::option::of(any::<u64>()), prop::option::of(any::<u64>())),
            0..9
        ),
        earlier_tickets in prop::collection::vec("[0-9a-f]{32}", 0..3),
        (partial, resolved, near_times) in any::<(bool, bool, bool)>(),
        event_ids in prop::collection::vec(any::<u64>(), 0..17),
    ) -> Entry {
        let time = |n: u64| if near_times { 1_790_000_000_000 + i64::from(near) } else { n.cast_signed() };
        let position = Position::new(partition, numbers[1].cast_signed(), index);
        Entry {
            token: Token(numbers[3].cast_signed()),
            attempt: AttemptId { token: Token(if near_times { numbers[3] } else { numbers[4] }.cast_signed()), number: numbers[5] },
            sys_id: texts[0].clone(),
            number: texts[1].clone(),
            generation,
            position,
            partial_note: partial.then_some(PartialNote { position: Position { index: u32::MAX, ..position }, parts: 7 }),
            fields: fields.into_iter().map(|(c, (sent, stored, kept))| (c.into(), FieldHash { sent, stored, kept })).collect(),
            earlier_tickets,
            order: match (near_times, partial) {
                (true, _) => EventOrder::of_time(time(1)),
                (false, true) => EventOrder::of_place(position),
                (false, false) => EventOrder::UNKNOWN,
            },
            resolved_at: resolved.then(|| time(numbers[7])),
            event_ids,
            episode: partial.then_some(numbers[6]),
            ended_by_user: near_times,
            last_seen: LastSeen {
                state: texts[2].clone(),
                mod_count: numbers[7],
                updated_by: texts[3].clone(),
                inactive: resolved,
                at: time(0),
            },
            written_at: time(numbers[2]),
        }
    }
}

/// An operation on a key.
#[derive(Debug, Clone)]
enum Step {
    Insert(u8, Box<Entry>),
    Change(u8, u32),
    Activate(u8),
    Deactivate(u8),
    Remove(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = 0_u8..12;
    prop_oneof![
        (key.clone(), any_entry()).prop_map(|(key, entry)| Step::Insert(key, Box::new(entry))),
        (key.clone(), any::<u32>()).prop_map(|(key, generation)| Step::Change(key, generation)),
        key.clone().prop_map(Step::Activate),
        key.clone().prop_map(Step::Deactivate),
        key.prop_map(Step::Remove),
    ]
}

proptest! {
    #[test]
    fn entries_behave_like_a_map(steps in prop::collection::vec(any_step(), 0..80)) {
        let name = |key: u8| Key::from(format!("k{key}"));
        let (mut entries, mut model) = (Entries::default(), BTreeMap::<Key, Entry>::new());
        for step in steps {
            match step {
                Step::Insert(key, entry) => {
                    prop_assert_eq!(entries.insert(name(key), (*entry).clone()), model.insert(name(key), *entry));
                }
                Step::Change(key, generation) => {
                    let (changed, expected) = (entries.get_mut(&name(key)), model.get_mut(&name(key)));
                    prop_assert_eq!(changed.is_some(), expected.is_some());
                    for entry in changed.into_iter().chain(expected) {
                        entry.generation = generation;
                    }
                }
                Step::Activate(key) => entries.activate(&name(key)),
                Step::Deactivate(key) => entries.deactivate(&name(key)),
                Step::Remove(key) => prop_assert_eq!(entries.remove(&name(key)), model.remove(&name(key))),
            }
            prop_assert_eq!(entries.len(), model.len());
            for key in (0..12).map(name) {
                let found = entries.get(&key);
                prop_assert_eq!(found.as_deref(), model.get(&key));
                prop_assert_eq!(entries.contains_key(&key), model.contains_key(&key));
            }
        }
    }
}
