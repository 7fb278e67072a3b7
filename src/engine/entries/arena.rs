//! Storage of packed records: chunks of 64 KiB that are filled one after the other.
//!
//! A record keeps its address until it is dropped or moved. The bytes of dropped records are waste until their chunk is
//! compacted. [`Arena::chunk_to_compact`] returns a chunk when there is too much, so that waste stays below a quarter
//! of the live bytes plus one chunk.

use super::varint::{Reader, put_number};

/// A record's chunk in the upper 16 bits, its offset in the chunk in the lower 16.
pub(super) type Address = u32;

/// Maximum number of bytes of a chunk: the offset after the last byte must fit into 16 bits, too.
const CHUNK: usize = 0xffff;

/// Records, each preceded by its length.
#[derive(Debug, Clone, Default)]
pub(super) struct Arena {
    chunks: Vec<Chunk>,
    /// Emptied chunks, to be reused.
    empty: Vec<u16>,
    /// The chunk that is being filled.
    current: u16,
    /// Bytes of live records.
    live: usize,
    /// Bytes of dropped records in all chunks.
    waste: usize,
}

#[derive(Debug, Clone, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Bytes of dropped records.
    waste: usize,
}

impl Arena {
    /// Stores a record; `None` if it is longer than a chunk, or all four GiB are in use.
    pub(super) fn append(&mut self, record: &[u8]) -> Option<Address> {
        let size = size_of(record);
        if size > CHUNK {
            return None;
        }
        if self.chunks.get(usize::from(self.current)).is_none_or(|chunk| chunk.bytes.len() + size > CHUNK) {
            self.current = self.new_chunk()?;
        }
        let chunk = self.chunks.get_mut(usize::from(self.current))?;
        let at = u32::try_from(chunk.bytes.len()).ok()?;
        put_number(&mut chunk.bytes, record.len() as u64);
        chunk.bytes.extend_from_slice(record);
        self.live += size;
        Some(u32::from(self.current) << 16 | at)
    }

    fn new_chunk(&mut self) -> Option<u16> {
        let number = match self.empty.pop() {
            Some(number) => number,
            None => u16::try_from(self.chunks.len()).ok()?,
        };
        // The first chunk grows by doubling as it is filled, because many partitions have few keys.
        let capacity = if number == 0 { 1 << 10 } else { CHUNK + 1 };
        let chunk = Chunk { bytes: Vec::with_capacity(capacity), waste: 0 };
        match self.chunks.get_mut(usize::from(number)) {
            Some(empty) => *empty = chunk,
            None => self.chunks.push(chunk),
        }
        Some(number)
    }

    /// The record at an address; empty if there is none.
    pub(super) fn record(&self, at: Address) -> &[u8] {
        self.next(at).map_or(&[], |(_, record, _)| record)
    }

    /// The record at an address, dropped or not, and the address after it; `None` at the chunk's end.
    pub(super) fn next(&self, at: Address) -> Option<(Address, &[u8], Address)> {
        let bytes = self.chunks.get(chunk_of(at))?.bytes.get(offset_of(at)..)?;
        let mut reader = Reader::new(bytes);
        let length = usize::try_from(reader.number()?).ok()?;
        let record = reader.read_bytes(length)?;
        let end = offset_of(at) + reader.bytes_read();
        Some((at, record, (at & !0xffff) | u32::try_from(end).ok()?))
    }

    /// Counts a record as waste.
    pub(super) fn drop_record(&mut self, at: Address) {
        let Some((_, record, _)) = self.next(at) else { return };
        let size = size_of(record);
        if let Some(chunk) = self.chunks.get_mut(chunk_of(at)) {
            chunk.waste += size;
            self.waste += size;
            self.live -= size;
        }
    }

    /// The number of chunks.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The start of the chunk after this address; after the last chunk, that of the first.
    pub(super) fn next_chunk(&self, at: Address) -> Address {
        let next = chunk_of(at) + 1;
        if next < self.chunks.len() { u32::try_from(next << 16).unwrap_or(0) } else { 0 }
    }

    /// The chunk with the most waste, if there is too much waste in total.
    pub(super) fn chunk_to_compact(&self) -> Option<u16> {
        if self.waste <= CHUNK + self.live / 4 {
            return None;
        }
        let chunks = (0_u16..).zip(&self.chunks).filter(|(number, _)| *number != self.current);
        chunks.max_by_key(|(_, chunk)| chunk.waste).filter(|(_, chunk)| chunk.waste > 0).map(|(number, _)| number)
    }

    /// Copies of all records of a chunk, dropped ones included, with their addresses.
    pub(super) fn records(&self, chunk: u16) -> Vec<(Address, Vec<u8>)> {
        let mut records = Vec::new();
        let mut at = u32::from(chunk) << 16;
        while let Some((address, record, next)) = self.next(at) {
            records.push((address, record.to_vec()));
            at = next;
        }
        records
    }

    /// Empties a chunk, unless it has a live record.
    pub(super) fn clear(&mut self, number: u16) {
        let Some(chunk) = self.chunks.get_mut(usize::from(number)) else { return };
        if chunk.waste == chunk.bytes.len() {
            self.waste -= chunk.waste;
            *chunk = Chunk::default();
            self.empty.push(number);
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum()
    }
}

fn chunk_of(at: Address) -> usize {
    (at >> 16) as usize
}

fn offset_of(at: Address) -> usize {
    (at & 0xffff) as usize
}

/// Bytes of a record and its length.
fn size_of(record: &[u8]) -> usize {
    let length = match record.len() {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        _ => 3,
    };
    length + record.len()
}
