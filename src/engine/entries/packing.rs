//! An entry as bytes and back. The format exists in memory only, so any release may change it.
//!
//! Values that many entries have in common are numbers of the [`Interner`]; times are differences from the time at
//! which the entry was written; a `sys_id` takes 16 bytes. Unpacking restores all values exactly, even those that no
//! instance would send.

use super::interner::Interner;
use super::varint::{Reader, put_number, put_signed, put_text};
use crate::model::{AttemptId, Column, Entry, EventOrder, FieldHash, LastSeen, PartialNote, Position, Token};

/// Optional properties of an entry.
mod flag {
    /// The attempt was made under the entry's own token.
    pub const OWN_ATTEMPT: u8 = 1;
    /// The `sys_id` is 32 lower-case hexadecimal digits.
    pub const HEX: u8 = 2;
    /// The ticket number is an interned prefix and digits.
    pub const DIGITS: u8 = 4;
    /// A long note is partly written.
    pub const PARTIAL: u8 = 8;
    /// The ticket was resolved.
    pub const RESOLVED: u8 = 16;
    /// The key had earlier tickets.
    pub const EARLIER: u8 = 32;
    /// The ticket was last seen inactive, or a user ended it, or the episode is known: a byte of [`more`] follows.
    pub const MORE: u8 = 64;
}

/// Rare properties of an entry.
mod more {
    pub const INACTIVE: u8 = 1;
    pub const ENDED_BY_USER: u8 = 2;
    pub const EPISODE: u8 = 4;
    pub const ORDER_BY_TIME: u8 = 8;
}

/// A number near that of the entry's order, so that the difference is short.
fn order_near(by_time: bool, written_at: i64, position: Position) -> i64 {
    if by_time { written_at.wrapping_neg() } else { EventOrder::of_place(position).to_number() }
}

/// Packs a key and its entry.
pub(super) fn pack(key: &str, entry: &Entry, interner: &mut Interner) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    put_text(&mut out, key);
    let (id, digits) = (from_hex(&entry.sys_id), split_digits(&entry.number));
    let mut more_flags = 0;
    for (set, bit) in [
        (entry.last_seen.inactive, more::INACTIVE),
        (entry.ended_by_user, more::ENDED_BY_USER),
        (entry.episode.is_some(), more::EPISODE),
        (entry.order.is_time(), more::ORDER_BY_TIME),
    ] {
        more_flags |= if set { bit } else { 0 };
    }
    let mut flags = 0;
    for (set, bit) in [
        (entry.attempt.token == entry.token, flag::OWN_ATTEMPT),
        (id.is_some(), flag::HEX),
        (digits.is_some(), flag::DIGITS),
        (entry.partial_note.is_some(), flag::PARTIAL),
        (entry.resolved_at.is_some(), flag::RESOLVED),
        (!entry.earlier_tickets.is_empty(), flag::EARLIER),
        (more_flags != 0, flag::MORE),
    ] {
        flags |= if set { bit } else { 0 };
    }
    out.push(flags);
    if more_flags != 0 {
        out.push(more_flags);
    }
    if let Some(episode) = entry.episode {
        out.extend_from_slice(&episode.to_le_bytes());
    }
    put_signed(&mut out, entry.token.0);
    if entry.attempt.token != entry.token {
        put_signed(&mut out, entry.attempt.token.0);
    }
    put_number(&mut out, entry.attempt.number);
    match id {
        Some(id) => out.extend_from_slice(&id.to_be_bytes()),
        None => put_text(&mut out, &entry.sys_id),
    }
    match digits {
        Some((prefix, count, value)) => {
            put_word(&mut out, prefix, interner);
            out.push(count);
            put_number(&mut out, value);
        }
        None => put_text(&mut out, &entry.number),
    }
    put_number(&mut out, u64::from(entry.generation));
    put_position(&mut out, entry.position);
    if let Some(PartialNote { position, parts }) = entry.partial_note {
        put_position(&mut out, position);
        put_number(&mut out, u64::from(parts));
    }
    put_number(&mut out, entry.fields.len() as u64);
    for field in &entry.fields {
        put_field(&mut out, field, interner);
    }
    if !entry.earlier_tickets.is_empty() {
        put_number(&mut out, entry.earlier_tickets.len() as u64);
        entry.earlier_tickets.iter().for_each(|id| put_text(&mut out, id));
    }
    put_signed(&mut out, entry.written_at);
    let near = order_near(entry.order.is_time(), entry.written_at, entry.position);
    put_signed(&mut out, entry.order.to_number().wrapping_sub(near));
    if let Some(at) = entry.resolved_at {
        put_signed(&mut out, at.wrapping_sub(entry.written_at));
    }
    put_number(&mut out, entry.event_ids.len() as u64);
    entry.event_ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    put_word(&mut out, &entry.last_seen.state, interner);
    put_number(&mut out, entry.last_seen.mod_count);
    put_word(&mut out, &entry.last_seen.updated_by, interner);
    put_signed(&mut out, entry.last_seen.at.wrapping_sub(entry.written_at));
    out
}

/// The key of a packed entry; empty if the bytes are not one.
pub(super) fn key_of(record: &[u8]) -> &str {
    Reader::new(record).text().unwrap_or_default()
}

/// Unpacks a key and its entry; `None` if the bytes are not one that was packed with this interner.
pub(super) fn unpack<'a>(record: &'a [u8], interner: &'a Interner) -> Option<(&'a str, Entry)> {
    let reader = &mut Reader::new(record);
    let key = reader.text()?;
    let flags = reader.byte()?;
    let has = |bit: u8| flags & bit != 0;
    let more_flags = if has(flag::MORE) { reader.byte()? } else { 0 };
    let episode = if more_flags & more::EPISODE == 0 { None } else { Some(reader.u64_le()?) };
    let token = Token(reader.signed()?);
    let attempted = if has(flag::OWN_ATTEMPT) { token } else { Token(reader.signed()?) };
    let attempt = AttemptId { token: attempted, number: reader.number()? };
    let sys_id = if has(flag::HEX) {
        format!("{:032x}", u128::from_be_bytes(reader.read_bytes(16)?.try_into().ok()?))
    } else {
        reader.text()?.to_owned()
    };
    let number = if has(flag::DIGITS) {
        let prefix = word(reader, interner)?;
        let (count, value) = (usize::from(reader.byte()?), reader.number()?);
        format!("{prefix}{value:0count$}")
    } else {
        reader.text()?.to_owned()
    };
    let generation = reader.number_as()?;
    let position = position(reader)?;
    let partial_note = if has(flag::PARTIAL) {
        Some(PartialNote { position: self::position(reader)?, parts: reader.number_as()? })
    } else {
        None
    };
    let count: usize = reader.number_as()?;
    let fields = (0..count).map(|_| field(reader, interner)).collect::<Option<_>>()?;
    let count: usize = if has(flag::EARLIER) { reader.number_as()? } else { 0 };
    let earlier_tickets = (0..count).map(|_| reader.text().map(str::to_owned)).collect::<Option<_>>()?;
    let written_at = reader.signed()?;
    let by_time = more_flags & more::ORDER_BY_TIME != 0;
    let near = order_near(by_time, written_at, position);
    let order = EventOrder::from_number(reader.signed()?.wrapping_add(near));
    let resolved_at = if has(flag::RESOLVED) { Some(written_at.wrapping_add(reader.signed()?)) } else { None };
    let count: usize = reader.number_as()?;
    let event_ids = (0..count).map(|_| reader.u64_le()).collect::<Option<_>>()?;
    let (state, mod_count) = (word(reader, interner)?.to_owned(), reader.number()?);
    let updated_by = word(reader, interner)?.to_owned();
    let at = written_at.wrapping_add(reader.signed()?);
    let last_seen = LastSeen { state, mod_count, updated_by, inactive: more_flags & more::INACTIVE != 0, at };
    let entry = Entry {
        token,
        attempt,
        sys_id,
        number,
        generation,
        position,
        partial_note,
        fields,
        earlier_tickets,
        order,
        resolved_at,
        event_ids,
        episode,
        ended_by_user: more_flags & more::ENDED_BY_USER != 0,
        last_seen,
        written_at,
    };
    Some((key, entry))
}

fn put_position(out: &mut Vec<u8>, at: Position) {
    put_signed(out, i64::from(at.partition));
    put_signed(out, at.offset);
    // The largest index stands for the end of a record, and is the most frequent one after 0.
    put_number(out, u64::from(at.index.wrapping_add(1)));
}

fn position(reader: &mut Reader<'_>) -> Option<Position> {
    let (partition, offset) = (i32::try_from(reader.signed()?).ok()?, reader.signed()?);
    Some(Position::new(partition, offset, reader.number_as::<u32>()?.wrapping_sub(1)))
}

/// Appends the number of an interned word plus 1, or 0 and the text.
fn put_word(out: &mut Vec<u8>, word: &str, interner: &mut Interner) {
    if let Some(number) = interner.number(word) {
        put_number(out, u64::from(number) + 1);
    } else {
        out.push(0);
        put_text(out, word);
    }
}

fn word<'a>(reader: &mut Reader<'a>, interner: &'a Interner) -> Option<&'a str> {
    match reader.number()? {
        0 => reader.text(),
        number => interner.word(u16::try_from(number - 1).ok()?).map(|word| &**word),
    }
}

/// Appends a column value. Even: the number of an interned value. Odd: the number of the column's word (1 if the column
/// is not interned, followed by its text), then the hashes.
fn put_field(out: &mut Vec<u8>, value: &(Column, FieldHash), interner: &mut Interner) {
    if let Some(number) = interner.value_number(value) {
        return put_number(out, u64::from(number) << 1);
    }
    let (column, hash) = value;
    let number = interner.number(column);
    put_number(out, number.map_or(1, |number| (u64::from(number) + 1) << 1 | 1));
    if number.is_none() {
        put_text(out, column);
    }
    out.extend_from_slice(&hash.sent.to_le_bytes());
    out.push(u8::from(hash.stored.is_some()) | u8::from(hash.kept.is_some()) << 1);
    for value in [hash.stored, hash.kept].into_iter().flatten() {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn field(reader: &mut Reader<'_>, interner: &Interner) -> Option<(Column, FieldHash)> {
    let number = reader.number()?;
    if number & 1 == 0 {
        return interner.value(u16::try_from(number >> 1).ok()?).cloned();
    }
    let column = match number >> 1 {
        0 => reader.text()?.into(),
        number => interner.word(u16::try_from(number - 1).ok()?)?.clone(),
    };
    let sent = reader.u64_le()?;
    let present = reader.byte()?;
    let mut optional = |bit: u8| if present & bit == 0 { Some(None) } else { reader.u64_le().map(Some) };
    let (stored, kept) = (optional(1)?, optional(2)?);
    Some((column, FieldHash { sent, stored, kept }))
}

/// The number that 32 lower-case hexadecimal digits represent.
fn from_hex(text: &str) -> Option<u128> {
    let plain = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u128::from_str_radix(text, 16).ok() } else { None }
}

/// Splits `INC0010001` into `INC`, seven digits, 10001.
fn split_digits(number: &str) -> Option<(&str, u8, u64)> {
    let prefix = number.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &number[prefix.len()..];
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    Some((prefix, u8::try_from(digits.len()).ok()?, digits.parse().ok()?))
}
