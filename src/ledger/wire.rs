//! The format of ledger records. Keys contain the kind, the alert's key and the token; values are versioned JSON.
//!
//! | key | value |
//! |---|---|
//! | `header` | what the partition belongs to |
//! | `owner` | which member took the partition over, and when; its offset is the owner's token |
//! | `mark:<token>` | the watermark and the previous owners |
//! | `entry:K:<token>` | what was done for K |
//! | `claim:K:<token>` | what is about to be written for K |
//! | `park:K:<token>` | why K is parked |
//!
//! K is any text and may contain colons: the kind ends at the first colon, the token begins after the last.

use serde::{Deserialize, Serialize};

use crate::engine::event::{LedgerKey, LedgerWrite};
use crate::model::{Claim, Entry, Key, Mark, Park, Token};

use super::header::Header;

/// The version that this release writes. Records of higher versions are rejected.
pub const VERSION: u32 = 1;

/// The value of an `owner` record: the member that took the partition over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name of the member: its route and process id.
    pub member: String,
    pub host: String,
    pub route: String,
    /// When, Unix milliseconds of the member's host.
    pub at: i64,
}

/// The key of a ledger record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireKey {
    /// `header`
    Header,
    /// `owner`
    Owner,
    /// `mark:<token>`, `entry:K:<token>`, `claim:K:<token>`, `park:K:<token>`
    WithToken(LedgerKey, Token),
}

/// The value of a ledger record.
#[derive(Debug, Clone, PartialEq)]
pub enum WireValue {
    Header(Header),
    Owner(Owner),
    Mark(Mark),
    Entry(Box<Entry>),
    Claim(Box<Claim>),
    Park(Park),
}

/// Why a ledger record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The key is not that of a ledger record.
    #[error("`{0}` is not the key of a ledger record: the topic must contain nothing but ledger records")]
    Key(String),
    /// A later release wrote the record.
    #[error(
        "`{key}` has version {version}, but this release reads versions up to {VERSION}: run the release that wrote it"
    )]
    Newer { key: String, version: u32 },
    /// The value is damaged.
    #[error("can't read the value of `{key}`")]
    Value {
        key: String,
        #[source]
        source: serde_json::Error,
    },
}

/// The envelope of every value.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    d: T,
}

#[derive(Deserialize)]
struct VersionOnly {
    v: u32,
}

/// Returns the key and the value of a ledger record. The value of a tombstone is `None`.
pub fn encode(write: &LedgerWrite) -> (Vec<u8>, Option<Vec<u8>>) {
    match write {
        LedgerWrite::Entry(key, entry) => (key_of("entry", key, entry.token), Some(value_of(entry))),
        LedgerWrite::Claim(key, token, claim) => (key_of("claim", key, *token), Some(value_of(claim))),
        LedgerWrite::Park(key, park) => (key_of("park", key, park.token), Some(value_of(park))),
        LedgerWrite::Mark(token, mark) => (mark_key(*token), Some(value_of(mark))),
        LedgerWrite::Tombstone(key, token) => (encode_key(key, *token), None),
    }
}

/// Returns the key bytes of a ledger record.
pub fn encode_key(key: &LedgerKey, token: Token) -> Vec<u8> {
    match key {
        LedgerKey::Entry(key) => key_of("entry", key, token),
        LedgerKey::Claim(key) => key_of("claim", key, token),
        LedgerKey::Park(key) => key_of("park", key, token),
        LedgerKey::Mark => mark_key(token),
    }
}

/// Returns the value bytes of a `header` record.
pub fn encode_header(header: &Header) -> Vec<u8> {
    value_of(header)
}

/// Returns the value bytes of an `owner` record.
pub fn encode_owner(owner: &Owner) -> Vec<u8> {
    value_of(owner)
}

fn key_of(kind: &str, key: &Key, token: Token) -> Vec<u8> {
    format!("{kind}:{key}:{}", token.0).into_bytes()
}

fn mark_key(token: Token) -> Vec<u8> {
    format!("mark:{}", token.0).into_bytes()
}

fn value_of<T: Serialize>(value: &T) -> Vec<u8> {
    // serde_json cannot fail: these types have only string keys and finite numbers.
    serde_json::to_vec(&Versioned { v: VERSION, d: value }).unwrap_or_default()
}

/// Parses a key.
pub fn decode_key(bytes: &[u8]) -> Result<WireKey, WireError> {
    let unknown = || WireError::Key(String::from_utf8_lossy(bytes).into_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| unknown())?;
    match text {
        "header" => return Ok(WireKey::Header),
        "owner" => return Ok(WireKey::Owner),
        _ => {}
    }
    let (kind, rest) = text.split_once(':').ok_or_else(unknown)?;
    let token = |digits: &str| digits.parse().map(Token).map_err(|_| unknown());
    if kind == "mark" {
        return Ok(WireKey::WithToken(LedgerKey::Mark, token(rest)?));
    }
    let (key, digits) = rest.rsplit_once(':').ok_or_else(unknown)?;
    let ledger_key = match kind {
        "entry" => LedgerKey::Entry(key.into()),
        "claim" => LedgerKey::Claim(key.into()),
        "park" => LedgerKey::Park(key.into()),
        _ => return Err(unknown()),
    };
    Ok(WireKey::WithToken(ledger_key, token(digits)?))
}

/// Parses a value; its kind follows from the key.
pub fn decode_value(key: &WireKey, bytes: &[u8]) -> Result<WireValue, WireError> {
    match key {
        WireKey::Header => parse(key, bytes).map(WireValue::Header),
        WireKey::Owner => parse(key, bytes).map(WireValue::Owner),
        WireKey::WithToken(LedgerKey::Mark, _) => parse(key, bytes).map(WireValue::Mark),
        WireKey::WithToken(LedgerKey::Entry(_), _) => parse(key, bytes).map(WireValue::Entry),
        WireKey::WithToken(LedgerKey::Claim(_), _) => parse(key, bytes).map(WireValue::Claim),
        WireKey::WithToken(LedgerKey::Park(_), _) => parse(key, bytes).map(WireValue::Park),
    }
}

fn parse<T: for<'a> Deserialize<'a>>(key: &WireKey, bytes: &[u8]) -> Result<T, WireError> {
    match serde_json::from_slice::<Versioned<T>>(bytes) {
        Ok(versioned) if versioned.v <= VERSION => Ok(versioned.d),
        Ok(versioned) => Err(WireError::Newer { key: key.to_string(), version: versioned.v }),
        // A later version may have another structure: its version number explains more than the parser's error.
        Err(source) => match serde_json::from_slice::<VersionOnly>(bytes) {
            Ok(VersionOnly { v }) if v > VERSION => Err(WireError::Newer { key: key.to_string(), version: v }),
            _ => Err(WireError::Value { key: key.to_string(), source }),
        },
    }
}

impl std::fmt::Display for WireKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Owner => f.write_str("owner"),
            Self::WithToken(key, token) => f.write_str(&String::from_utf8_lossy(&encode_key(key, *token))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventOrder, Position};

    #[test]
    fn keys_may_contain_colons() {
        for key in ["k", "", ":", "a:b:c", "entry:x:7", "ünïcode:9", "mark"] {
            for name in [LedgerKey::Entry(key.into()), LedgerKey::Claim(key.into()), LedgerKey::Park(key.into())] {
                let bytes = encode_key(&name, Token(12));
                assert_eq!(decode_key(&bytes).expect("a ledger record"), WireKey::WithToken(name, Token(12)));
            }
        }
        assert_eq!(decode_key(b"mark:3").expect("a ledger record"), WireKey::WithToken(LedgerKey::Mark, Token(3)));
        for foreign in [&b"greeting"[..], b"entry:k", b"entry:k:x", b"mark:", b"other:k:1", b"\xff:k:1"] {
            assert!(matches!(decode_key(foreign), Err(WireError::Key(_))), "{foreign:?}");
        }
    }

    #[test]
    fn values_round_trip_and_their_format_is_fixed() {
        let park = Park {
            token: Token(4),
            position: Position::new(1, 2, 0),
            newest_letter: None,
            order: EventOrder::UNKNOWN,
            event_ids: Vec::new(),
            rejected_run: None,
            active_run: None,
            announced: false,
            code: "business_rule".into(),
            reason: "no".into(),
        };
        let (key, value) = encode(&LedgerWrite::Park("a:b".into(), park.clone()));
        assert_eq!(key, b"park:a:b:4");
        let value = value.expect("a value");
        let golden = r#"{"v":1,"d":{"t":4,"p":{"partition":1,"offset":2,"index":0},"c":"business_rule","why":"no"}}"#;
        assert_eq!(String::from_utf8_lossy(&value), golden);
        let key = decode_key(&key).expect("a ledger record");
        assert_eq!(decode_value(&key, &value).expect("a ledger record"), WireValue::Park(park));
        let (key, value) = encode(&LedgerWrite::Mark(Token(4), Mark::at(77)));
        assert_eq!((key.as_slice(), value.as_deref()), (&b"mark:4"[..], Some(&br#"{"v":1,"d":{"w":77}}"#[..])));
    }

    #[test]
    fn a_later_version_is_rejected_whatever_its_structure() {
        let key = decode_key(b"park:k:4").expect("a ledger record");
        for value in [r#"{"v":2,"d":{"t":4}}"#, r#"{"v":9,"other":[]}"#] {
            let rejected = decode_value(&key, value.as_bytes()).expect_err("too new");
            assert!(matches!(rejected, WireError::Newer { version: 2 | 9, .. }), "{rejected}");
        }
        assert!(matches!(decode_value(&key, b"{}"), Err(WireError::Value { .. })));
    }
}
