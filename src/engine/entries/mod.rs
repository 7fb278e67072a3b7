//! The ledger's entries of one partition, small enough for millions of keys.
//!
//! Nearly all keys are inactive most of the time. The entry of an inactive key is packed into an arena and found by an
//! index of four bytes per key, so that a key costs about 150 bytes instead of several allocations; the entry of a key
//! with work is a value that is changed in place. Guarantees: an entry is returned as it was inserted, packed or not;
//! an entry that cannot be packed (longer than a chunk) is kept as a value. This module does not interpret entries.

mod arena;
mod interner;
mod packing;
mod varint;

use std::borrow::Cow;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use self::arena::{Address, Arena};
use self::interner::Interner;
use crate::model::{Entry, FastMap, Key};

/// The entries of one partition.
#[derive(Debug, Clone, Default)]
pub struct Entries {
    /// Keys with work, and entries that cannot be packed. A key is either here or in the arena.
    active: FastMap<Key, Entry>,
    arena: Arena,
    index: HashTable<Address>,
    hasher: foldhash::fast::RandomState,
    interner: Interner,
    /// Where [`Entries::next_inactive`] continues.
    cursor: Address,
}

impl Entries {
    /// Number of keys that have an entry.
    pub fn len(&self) -> usize {
        self.active.len() + self.index.len()
    }

    /// True if no key has an entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if the key has an entry.
    pub fn contains_key(&self, key: &str) -> bool {
        self.active.contains_key(key) || self.find(key).is_some()
    }

    /// The key's entry; unpacked for this call if the key is inactive.
    pub fn get(&self, key: &str) -> Option<Cow<'_, Entry>> {
        if let Some(entry) = self.active.get(key) {
            return Some(Cow::Borrowed(entry));
        }
        let record = self.arena.record(self.find(key)?);
        packing::unpack(record, &self.interner).map(|(_, entry)| Cow::Owned(entry))
    }

    /// The key's entry, to be changed. This activates the key, until [`Entries::deactivate`].
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.activate(key);
        self.active.get_mut(&**key)
    }

    /// Inserts an entry and returns the one that it replaces. This activates the key.
    pub fn insert(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        let packed = self.take_packed(&key);
        self.active.insert(key, entry).or(packed)
    }

    /// Removes an entry and returns it.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        self.active.remove(key).or_else(|| self.take_packed(key))
    }

    /// Unpacks the entry of a key that gets work.
    pub fn activate(&mut self, key: &Key) {
        if let Some(entry) = self.take_packed(key) {
            self.active.insert(key.clone(), entry);
        }
    }

    /// Packs the entry of a key that has no work any more.
    pub fn deactivate(&mut self, key: &str) {
        let Some((key, entry)) = self.active.remove_entry(key) else { return };
        shrink_if_sparse(&mut self.active);
        let record = packing::pack(&key, &entry, &mut self.interner);
        debug_assert_eq!(packing::unpack(&record, &self.interner), Some((&*key, entry.clone())), "packed unchanged");
        let Some(address) = self.arena.append(&record) else {
            self.active.insert(key, entry);
            return;
        };
        let hash = self.hasher.hash_one(&*key);
        let Self { arena, hasher, index, .. } = self;
        index.insert_unique(hash, address, |&at| hasher.hash_one(packing::key_of(arena.record(at))));
        self.compact();
    }

    /// The next inactive entry. After the last one, the first one follows. A key that is packed again during a round
    /// may be returned twice or not at all in this round.
    pub fn next_inactive(&mut self) -> Option<(Key, Entry)> {
        // Chunks may contain only removed records: searches all of them, at most once.
        for _ in 0..=self.arena.chunks() {
            while let Some((address, record, next)) = self.arena.next(self.cursor) {
                self.cursor = next;
                let key = packing::key_of(record);
                if self.find(key) == Some(address) {
                    return packing::unpack(record, &self.interner).map(|(key, entry)| (key.into(), entry));
                }
            }
            self.cursor = self.arena.next_chunk(self.cursor);
        }
        None
    }

    /// All entries in no particular order, inactive ones unpacked for this call.
    pub fn iter(&self) -> impl Iterator<Item = (Key, Entry)> {
        let active = self.active.iter().map(|(key, entry)| (key.clone(), entry.clone()));
        let inactive = self.index.iter().filter_map(|&at| packing::unpack(self.arena.record(at), &self.interner));
        active.chain(inactive.map(|(key, entry)| (key.into(), entry)))
    }

    fn find(&self, key: &str) -> Option<Address> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |&at| packing::key_of(self.arena.record(at)) == key).copied()
    }

    fn take_packed(&mut self, key: &str) -> Option<Entry> {
        if self.index.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let Self { arena, index, .. } = self;
        let slot = index.find_entry(hash, |&at| packing::key_of(arena.record(at)) == key).ok()?;
        let (address, _) = slot.remove();
        let entry = packing::unpack(self.arena.record(address), &self.interner).map(|(_, entry)| entry);
        self.arena.drop_record(address);
        entry
    }

    /// Moves the live records out of the chunk with the most waste, if the arena has too much waste.
    fn compact(&mut self) {
        let Some(chunk) = self.arena.chunk_to_compact() else { return };
        let Self { arena, index, hasher, .. } = self;
        for (address, record) in arena.records(chunk) {
            let hash = hasher.hash_one(packing::key_of(&record));
            let Some(slot) = index.find_mut(hash, |&at| at == address) else { continue };
            // If there is no room for a record, it stays where it is, and so does its chunk.
            let Some(moved) = arena.append(&record) else { break };
            *slot = moved;
            arena.drop_record(address);
        }
        arena.clear(chunk);
        if self.cursor >> 16 == u32::from(chunk) {
            self.cursor = self.arena.next_chunk(self.cursor);
        }
    }
}

/// Shrinks a map that is nearly empty and was much larger.
pub(in crate::engine) fn shrink_if_sparse<V>(map: &mut FastMap<Key, V>) {
    if map.capacity() > 1_024 && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}

impl FromIterator<(Key, Entry)> for Entries {
    fn from_iter<T: IntoIterator<Item = (Key, Entry)>>(entries: T) -> Self {
        let mut all = Self::default();
        for (key, entry) in entries {
            all.insert(key.clone(), entry);
            all.deactivate(&key);
        }
        all
    }
}

#[cfg(test)]
mod tests;
