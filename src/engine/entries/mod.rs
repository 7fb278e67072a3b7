//! What was done for which key: the ledger's entries of one partition, small enough for millions of keys.
//!
//! Nearly all keys rest most of the time. A resting key's entry is packed into an arena and found by an index of four
//! bytes a key, so that a key costs about 150 bytes instead of several allocations; the entry of a key at work is a
//! value that is changed in place. Guarantees: what is put in comes out the same, packed or not; an entry that can't be
//! packed (longer than a chunk) is kept as it is. It does not know what an entry means.

mod arena;
mod interner;
mod packing;
mod varint;

use std::borrow::Cow;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use self::arena::{Address, Arena};
use self::interner::Words;
use crate::model::{Entry, FastMap, Key};

/// The entries of one partition.
#[derive(Debug, Clone, Default)]
pub struct Entries {
    /// Keys at work, and what can't be packed. A key is here or in the arena, never in both.
    awake: FastMap<Key, Entry>,
    arena: Arena,
    index: HashTable<Address>,
    hasher: foldhash::fast::RandomState,
    words: Words,
    /// Where the walk through the resting entries goes on.
    walk: Address,
}

impl Entries {
    /// Keys that have an entry.
    pub fn len(&self) -> usize {
        self.awake.len() + self.index.len()
    }

    /// True where no key has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the key has an entry.
    pub fn contains_key(&self, key: &str) -> bool {
        self.awake.contains_key(key) || self.find(key).is_some()
    }

    /// The key's entry; unpacked for the occasion where the key rests.
    pub fn get(&self, key: &str) -> Option<Cow<'_, Entry>> {
        if let Some(entry) = self.awake.get(key) {
            return Some(Cow::Borrowed(entry));
        }
        let record = self.arena.record(self.find(key)?);
        packing::unpack(record, &self.words).map(|(_, entry)| Cow::Owned(entry))
    }

    /// The key's entry, to be changed. The key is awake from here on, until [`Entries::rest`].
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.wake(key);
        self.awake.get_mut(&**key)
    }

    /// Puts an entry in and answers the one that it replaces. The key is awake from here on.
    pub fn insert(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        let resting = self.take_packed(&key);
        self.awake.insert(key, entry).or(resting)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        self.awake.remove(key).or_else(|| self.take_packed(key))
    }

    /// A key begins to work: its entry is unpacked, once for all that follows.
    pub fn wake(&mut self, key: &Key) {
        if let Some(entry) = self.take_packed(key) {
            self.awake.insert(key.clone(), entry);
        }
    }

    /// A key has nothing to do for now: its entry is packed.
    pub fn rest(&mut self, key: &str) {
        let Some((key, entry)) = self.awake.remove_entry(key) else { return };
        give_back_room(&mut self.awake);
        let record = packing::pack(&key, &entry, &mut self.words);
        debug_assert_eq!(packing::unpack(&record, &self.words), Some((&*key, entry.clone())), "packed as it was");
        let Some(address) = self.arena.append(&record) else {
            self.awake.insert(key, entry);
            return;
        };
        let hash = self.hasher.hash_one(&*key);
        let Self { arena, hasher, index, .. } = self;
        index.insert_unique(hash, address, |&at| hasher.hash_one(packing::key_of(arena.record(at))));
        self.tidy();
    }

    /// The next resting entry in a walk that begins anew behind the last one. A key that is packed again while the walk is
    /// under way may be met twice or not at all in this round.
    pub fn walk(&mut self) -> Option<(Key, Entry)> {
        // All keys may have been removed from many chunks: at most one round is looked for one.
        for _ in 0..=self.arena.chunks() {
            while let Some((address, record, next)) = self.arena.next(self.walk) {
                self.walk = next;
                let key = packing::key_of(record);
                if self.find(key) == Some(address) {
                    return packing::unpack(record, &self.words).map(|(key, entry)| (key.into(), entry));
                }
            }
            self.walk = self.arena.next_chunk(self.walk);
        }
        None
    }

    /// All entries, those at rest unpacked for the occasion, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, Entry)> {
        let awake = self.awake.iter().map(|(key, entry)| (key.clone(), entry.clone()));
        let resting = self.index.iter().filter_map(|&at| packing::unpack(self.arena.record(at), &self.words));
        awake.chain(resting.map(|(key, entry)| (key.into(), entry)))
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
        let entry = packing::unpack(self.arena.record(address), &self.words).map(|(_, entry)| entry);
        self.arena.drop_record(address);
        entry
    }

    /// Moves what is left of the emptiest chunk, where too much of the arena is waste.
    fn tidy(&mut self) {
        let Some(chunk) = self.arena.wasteful() else { return };
        let Self { arena, index, hasher, .. } = self;
        for (address, record) in arena.records(chunk) {
            let hash = hasher.hash_one(packing::key_of(&record));
            let Some(slot) = index.find_mut(hash, |&at| at == address) else { continue };
            // Where there is no room for it, it stays, and the chunk with it.
            let Some(moved) = arena.append(&record) else { break };
            *slot = moved;
            arena.drop_record(address);
        }
        arena.clear(chunk);
        if self.walk >> 16 == u32::from(chunk) {
            self.walk = self.arena.next_chunk(self.walk);
        }
    }
}

/// A map that a storm has filled gives its room back once it is nearly empty.
pub(in crate::engine) fn give_back_room<V>(map: &mut FastMap<Key, V>) {
    if map.capacity() > 1_024 && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}

impl FromIterator<(Key, Entry)> for Entries {
    fn from_iter<T: IntoIterator<Item = (Key, Entry)>>(entries: T) -> Self {
        let mut all = Self::default();
        for (key, entry) in entries {
            all.insert(key.clone(), entry);
            all.rest(&key);
        }
        all
    }
}

#[cfg(test)]
mod tests;
