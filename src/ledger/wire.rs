//! The form of ledger records: keys that carry kind, alert key and token, values that are versioned JSON, parsed
//! straight into their types.
//!
//! | key | value |
//! |---|---|
//! | `header` | what the partition belongs to |
//! | `owner` | who took it over, and when; its offset is the owner's token |
//! | `mark:<token>` | every offset below is done |
//! | `entry:K:<token>` | what was done for K |
//! | `claim:K:<token>` | what is about to be written for K |
//! | `park:K:<token>` | why K's records are dead letters |
//!
//! K is any text, colons included: the kind ends at the first colon, the token begins after the last.

use serde::{Deserialize, Serialize};

use crate::engine::event::{LedgerKey, LedgerWrite};
use crate::model::{Claim, Entry, Key, Mark, Park, Token};

use super::header::Header;

/// The version that is written. Versions above it are refused.
pub const VERSION: u32 = 1;

/// Who took a partition over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The member.
    pub member: String,
    /// Its host.
    pub host: String,
    /// The route.
    pub route: String,
    /// When, Unix milliseconds of that host.
    pub at: i64,
}

/// A ledger record's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireKey {
    /// `header`
    Header,
    /// `owner`
    Owner,
    /// `mark:<token>`, `entry:K:<token>`, `claim:K:<token>`, `park:K:<token>`
    Tokened(LedgerKey, Token),
}

/// A ledger record's value.
#[derive(Debug, Clone, PartialEq)]
pub enum WireValue {
    /// Of `header`.
    Header(Header),
    /// Of `owner`.
    Owner(Owner),
    /// Of `mark`.
    Mark(Mark),
    /// Of `entry`.
    Entry(Box<Entry>),
    /// Of `claim`.
    Claim(Box<Claim>),
    /// Of `park`.
    Park(Park),
}

/// Why a ledger record can't be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not one of our keys.
    #[error("`{0}` is no key of a ledger: the topic must hold nothing else")]
    Key(String),
    /// Written by a later release.
    #[error("`{key}` is of version {version}, and this release reads up to {VERSION}: run the release that wrote it")]
    Newer {
        /// The key.
        key: String,
        /// Its version.
        version: u32,
    },
    /// Damaged.
    #[error("the value of `{key}` can't be read")]
    Value {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What stands around every value.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    d: T,
}

#[derive(Deserialize)]
struct VersionOnly {
    v: u32,
}

/// The key and value to produce. A tombstone's value is `None`.
pub fn encode(write: &LedgerWrite) -> (Vec<u8>, Option<Vec<u8>>) {
    match write {
        LedgerWrite::Entry(key, entry) => (key_of("entry", key, entry.token), Some(value_of(entry))),
        LedgerWrite::Claim(key, token, claim) => (key_of("claim", key, *token), Some(value_of(claim))),
        LedgerWrite::Park(key, park) => (key_of("park", key, park.token), Some(value_of(park))),
        LedgerWrite::Mark(token, mark) => (mark_key(*token), Some(value_of(mark))),
        LedgerWrite::Tombstone(key, token) => (encode_key(key, *token), None),
    }
}

/// The key bytes of a ledger record.
pub fn encode_key(key: &LedgerKey, token: Token) -> Vec<u8> {
    match key {
        LedgerKey::Entry(key) => key_of("entry", key, token),
        LedgerKey::Claim(key) => key_of("claim", key, token),
        LedgerKey::Park(key) => key_of("park", key, token),
        LedgerKey::Mark => mark_key(token),
    }
}

/// The value bytes of a header.
pub fn encode_header(header: &Header) -> Vec<u8> {
    value_of(header)
}

/// The value bytes of an owner.
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
    // These types have string keys and finite numbers only, for which serde_json can't fail.
    serde_json::to_vec(&Versioned { v: VERSION, d: value }).unwrap_or_default()
}

/// Reads a key.
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
        return Ok(WireKey::Tokened(LedgerKey::Mark, token(rest)?));
    }
    let (key, digits) = rest.rsplit_once(':').ok_or_else(unknown)?;
    let named = match kind {
        "entry" => LedgerKey::Entry(key.into()),
        "claim" => LedgerKey::Claim(key.into()),
        "park" => LedgerKey::Park(key.into()),
        _ => return Err(unknown()),
    };
    Ok(WireKey::Tokened(named, token(digits)?))
}

/// Reads a value; what it must be follows from the key.
pub fn decode_value(key: &WireKey, bytes: &[u8]) -> Result<WireValue, WireError> {
    match key {
        WireKey::Header => parse(key, bytes).map(WireValue::Header),
        WireKey::Owner => parse(key, bytes).map(WireValue::Owner),
        WireKey::Tokened(LedgerKey::Mark, _) => parse(key, bytes).map(WireValue::Mark),
        WireKey::Tokened(LedgerKey::Entry(_), _) => parse(key, bytes).map(WireValue::Entry),
        WireKey::Tokened(LedgerKey::Claim(_), _) => parse(key, bytes).map(WireValue::Claim),
        WireKey::Tokened(LedgerKey::Park(_), _) => parse(key, bytes).map(WireValue::Park),
    }
}

fn parse<T: for<'a> Deserialize<'a>>(key: &WireKey, bytes: &[u8]) -> Result<T, WireError> {
    match serde_json::from_slice::<Versioned<T>>(bytes) {
        Ok(versioned) if versioned.v <= VERSION => Ok(versioned.d),
        Ok(versioned) => Err(WireError::Newer { key: key.to_string(), version: versioned.v }),
        // A later version may have another shape: its number says more than the parser's complaint.
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
            Self::Tokened(key, token) => f.write_str(&String::from_utf8_lossy(&encode_key(key, *token))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Position;

    #[test]
    fn keys_may_hold_colons() {
        for key in ["k", "", ":", "a:b:c", "entry:x:7", "ünïcode:9", "mark"] {
            for name in [LedgerKey::Entry(key.into()), LedgerKey::Claim(key.into()), LedgerKey::Park(key.into())] {
                let bytes = encode_key(&name, Token(12));
                assert_eq!(decode_key(&bytes).expect("ours"), WireKey::Tokened(name, Token(12)));
            }
        }
        assert_eq!(decode_key(b"mark:3").expect("ours"), WireKey::Tokened(LedgerKey::Mark, Token(3)));
        for foreign in [&b"greeting"[..], b"entry:k", b"entry:k:x", b"mark:", b"other:k:1", b"\xff:k:1"] {
            assert!(matches!(decode_key(foreign), Err(WireError::Key(_))), "{foreign:?}");
        }
    }

    #[test]
    fn values_come_back_and_the_golden_form_stands() {
        let park = Park {
            token: Token(4),
            position: Position::new(1, 2, 0),
            newest: None,
            occurred_at: None,
            event_ids: Vec::new(),
            failed: None,
            redriving: None,
            announced: false,
            code: "business_rule".into(),
            reason: "no".into(),
        };
        let (key, value) = encode(&LedgerWrite::Park("a:b".into(), park.clone()));
        assert_eq!(key, b"park:a:b:4");
        let value = value.expect("a value");
        let golden = r#"{"v":1,"d":{"t":4,"p":{"partition":1,"offset":2,"index":0},"c":"business_rule","why":"no"}}"#;
        assert_eq!(String::from_utf8_lossy(&value), golden);
        let key = decode_key(&key).expect("ours");
        assert_eq!(decode_value(&key, &value).expect("ours"), WireValue::Park(park));
        let (key, value) = encode(&LedgerWrite::Mark(Token(4), Mark::at(77)));
        assert_eq!((key.as_slice(), value.as_deref()), (&b"mark:4"[..], Some(&br#"{"v":1,"d":{"w":77}}"#[..])));
    }

    #[test]
    fn a_later_version_is_refused_whatever_its_shape() {
        let key = decode_key(b"park:k:4").expect("ours");
        for value in [r#"{"v":2,"d":{"t":4}}"#, r#"{"v":9,"other":[]}"#] {
            let refused = decode_value(&key, value.as_bytes()).expect_err("too new");
            assert!(matches!(refused, WireError::Newer { version: 2 | 9, .. }), "{refused}");
        }
        assert!(matches!(decode_value(&key, b"{}"), Err(WireError::Value { .. })));
    }
}
