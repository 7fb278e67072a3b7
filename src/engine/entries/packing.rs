//! An entry as bytes and back. The form lives in memory only, so it may change with every release.
//!
//! What is common to many entries is a number of [`Words`]; times are distances from the time the entry was written; a
//! `sys_id` is sixteen bytes. All of it comes back exactly, also what looks unlike anything an instance sends.

use super::interner::Words;
use super::varint::{Reader, put_number, put_signed, put_text};
use crate::model::{AttemptId, Column, Entry, FieldDigest, Position, Seen, Token};

/// What an entry has, beside what each has.
mod flag {
    /// The attempt was made under the entry's own token.
    pub const OWN_ATTEMPT: u8 = 1;
    /// The `sys_id` is 32 lower-case hexadecimal digits.
    pub const HEX: u8 = 2;
    /// The number is a word and digits.
    pub const DIGITS: u8 = 4;
    /// A long note is written in part.
    pub const PARTIAL: u8 = 8;
    /// It was resolved.
    pub const RESOLVED: u8 = 16;
    /// The key had tickets before.
    pub const EARLIER: u8 = 32;
}

/// Packs a key and its entry.
pub(super) fn pack(key: &str, entry: &Entry, words: &mut Words) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    put_text(&mut out, key);
    let (id, digits) = (from_hex(&entry.sys_id), split_digits(&entry.number));
    let mut flags = 0;
    for (set, bit) in [
        (entry.attempt.token == entry.token, flag::OWN_ATTEMPT),
        (id.is_some(), flag::HEX),
        (digits.is_some(), flag::DIGITS),
        (entry.partial.is_some(), flag::PARTIAL),
        (entry.resolved_at.is_some(), flag::RESOLVED),
        (!entry.earlier.is_empty(), flag::EARLIER),
    ] {
        flags |= if set { bit } else { 0 };
    }
    out.push(flags);
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
            put_word(&mut out, prefix, words);
            out.push(count);
            put_number(&mut out, value);
        }
        None => put_text(&mut out, &entry.number),
    }
    put_number(&mut out, u64::from(entry.generation));
    put_position(&mut out, entry.position);
    if let Some((at, parts)) = entry.partial {
        put_position(&mut out, at);
        put_number(&mut out, u64::from(parts));
    }
    put_number(&mut out, entry.fields.len() as u64);
    for field in &entry.fields {
        put_field(&mut out, field, words);
    }
    if !entry.earlier.is_empty() {
        put_number(&mut out, entry.earlier.len() as u64);
        entry.earlier.iter().for_each(|id| put_text(&mut out, id));
    }
    put_signed(&mut out, entry.written_at);
    put_signed(&mut out, entry.occurred_at.wrapping_sub(entry.written_at));
    if let Some(at) = entry.resolved_at {
        put_signed(&mut out, at.wrapping_sub(entry.written_at));
    }
    put_number(&mut out, entry.event_ids.len() as u64);
    entry.event_ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    put_word(&mut out, &entry.seen.state, words);
    put_number(&mut out, entry.seen.mod_count);
    put_word(&mut out, &entry.seen.updated_by, words);
    put_signed(&mut out, entry.seen.at.wrapping_sub(entry.written_at));
    out
}

/// The key of a packed entry; empty where it is none.
pub(super) fn key_of(record: &[u8]) -> &str {
    Reader::new(record).text().unwrap_or_default()
}

/// What was packed with these words; `None` where it was not.
pub(super) fn unpack<'a>(record: &'a [u8], words: &'a Words) -> Option<(&'a str, Entry)> {
    let mut reader = Reader::new(record);
    let from = &mut reader;
    let key = from.text()?;
    let flags = from.byte()?;
    let has = |bit: u8| flags & bit != 0;
    let token = Token(from.signed()?);
    let attempted = if has(flag::OWN_ATTEMPT) { token } else { Token(from.signed()?) };
    let attempt = AttemptId { token: attempted, number: from.number()? };
    let sys_id = if has(flag::HEX) {
        format!("{:032x}", u128::from_be_bytes(from.take(16)?.try_into().ok()?))
    } else {
        from.text()?.to_owned()
    };
    let number = if has(flag::DIGITS) {
        let prefix = word(from, words)?;
        let (count, value) = (usize::from(from.byte()?), from.number()?);
        format!("{prefix}{value:0count$}")
    } else {
        from.text()?.to_owned()
    };
    let generation = from.small()?;
    let position = position(from)?;
    let partial = if has(flag::PARTIAL) { Some((self::position(from)?, from.small()?)) } else { None };
    let count: usize = from.small()?;
    let fields = (0..count).map(|_| field(from, words)).collect::<Option<_>>()?;
    let count: usize = if has(flag::EARLIER) { from.small()? } else { 0 };
    let earlier = (0..count).map(|_| from.text().map(str::to_owned)).collect::<Option<_>>()?;
    let written_at = from.signed()?;
    let occurred_at = written_at.wrapping_add(from.signed()?);
    let resolved_at = if has(flag::RESOLVED) { Some(written_at.wrapping_add(from.signed()?)) } else { None };
    let count: usize = from.small()?;
    let event_ids = (0..count).map(|_| from.whole()).collect::<Option<_>>()?;
    let (state, mod_count) = (word(from, words)?.to_owned(), from.number()?);
    let updated_by = word(from, words)?.to_owned();
    let seen = Seen { state, mod_count, updated_by, at: written_at.wrapping_add(from.signed()?) };
    let entry = Entry {
        token,
        attempt,
        sys_id,
        number,
        generation,
        position,
        partial,
        fields,
        earlier,
        occurred_at,
        resolved_at,
        event_ids,
        seen,
        written_at,
    };
    Some((key, entry))
}

fn put_position(out: &mut Vec<u8>, at: Position) {
    put_signed(out, i64::from(at.partition));
    put_signed(out, at.offset);
    // The last index of all stands for the end of a record, and is the most frequent one after 0.
    put_number(out, u64::from(at.index.wrapping_add(1)));
}

fn position(from: &mut Reader<'_>) -> Option<Position> {
    let (partition, offset) = (i32::try_from(from.signed()?).ok()?, from.signed()?);
    Some(Position::new(partition, offset, from.small::<u32>()?.wrapping_sub(1)))
}

/// A number from 1, or 0 and the text.
fn put_word(out: &mut Vec<u8>, word: &str, words: &mut Words) {
    if let Some(number) = words.number(word) {
        put_number(out, u64::from(number) + 1);
    } else {
        out.push(0);
        put_text(out, word);
    }
}

fn word<'a>(from: &mut Reader<'a>, words: &'a Words) -> Option<&'a str> {
    match from.number()? {
        0 => from.text(),
        number => words.word(u16::try_from(number - 1).ok()?).map(|word| &**word),
    }
}

/// Even: the number of a value that many have. Odd: the column's word, whether it `stood` differently, and the digests;
/// 1 where the column is no word either.
fn put_field(out: &mut Vec<u8>, value: &(Column, FieldDigest), words: &mut Words) {
    if let Some(number) = words.value_number(value) {
        return put_number(out, u64::from(number) << 1);
    }
    let (column, digest) = value;
    let number = words.number(column);
    put_number(out, number.map_or(1, |number| (u64::from(number) + 1) << 1 | 1));
    if number.is_none() {
        put_text(out, column);
    }
    out.extend_from_slice(&digest.sent.to_le_bytes());
    out.push(u8::from(digest.stood.is_some()));
    if let Some(stood) = digest.stood {
        out.extend_from_slice(&stood.to_le_bytes());
    }
}

fn field(from: &mut Reader<'_>, words: &Words) -> Option<(Column, FieldDigest)> {
    let number = from.number()?;
    if number & 1 == 0 {
        return words.value(u16::try_from(number >> 1).ok()?).cloned();
    }
    let column = match number >> 1 {
        0 => from.text()?.into(),
        number => words.word(u16::try_from(number - 1).ok()?)?.clone(),
    };
    let sent = from.whole()?;
    let stood = if from.byte()? == 0 { None } else { Some(from.whole()?) };
    Some((column, FieldDigest { sent, stood }))
}

/// The value of 32 lower-case hexadecimal digits.
fn from_hex(text: &str) -> Option<u128> {
    let plain = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u128::from_str_radix(text, 16).ok() } else { None }
}

/// `INC0010001` as `INC`, seven digits, 10001.
fn split_digits(number: &str) -> Option<(&str, u8, u64)> {
    let prefix = number.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &number[prefix.len()..];
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    Some((prefix, u8::try_from(digits.len()).ok()?, digits.parse().ok()?))
}
