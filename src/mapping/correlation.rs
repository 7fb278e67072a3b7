//! Computes the `correlation_id` of an alert's key.
//!
//! The column has 100 characters, and look-ups put the value into an encoded query, where `^` separates conditions and
//! the instance evaluates a leading `javascript:`. A key that is short and safe enough is used unchanged, so that users
//! can search for it. Any other key becomes `nb:` and the SHA-256 of its bytes. Keys that differ only in case have
//! different lanes; a look-up compares the correlations of the rows that it finds byte by byte.

use sha2::{Digest, Sha256};

/// Length of `correlation_id` in characters (`sys_dictionary` of a standard instance).
pub const CORRELATION_LENGTH: usize = 100;

/// Name of the rule that computes correlations. The header of a ledger contains it, and a ledger that was written with
/// another rule is rejected.
pub const KEY_RULE: &str = "plain-or-sha256/1";

/// Prefix of hashed keys. A key with this prefix is hashed too, so that no key can equal the hash of another.
const HASH_PREFIX: &str = "nb:";

/// Returns the correlation of a key: the key itself if it is safe, otherwise `nb:` and 64 hex digits.
///
/// **Never change the result for any key.** Tickets of earlier releases are found by it; a changed rule would create a
/// second ticket for every alert that is open during the upgrade.
pub fn correlation(key: &str) -> String {
    if is_plain(key) { key.to_owned() } else { format!("{HASH_PREFIX}{}", hex::encode(Sha256::digest(key.as_bytes()))) }
}

fn is_plain(key: &str) -> bool {
    // The instance trims values and ignores case, so the check of a prefix ignores case too.
    let starts_with = |prefix: &str| key.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    !key.is_empty()
        && key.chars().count() <= CORRELATION_LENGTH
        && key.trim() == key
        && !key.chars().any(|c| c == '^' || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
        && !starts_with("javascript:")
        && !starts_with(HASH_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tickets contain these strings. If this test fails, fix the code, not the test.
    #[test]
    fn golden_values_never_change() {
        for (key, expected) in [
            ("alertmanager:alert:0123456789abcdef", "alertmanager:alert:0123456789abcdef"),
            ("disk full on db-1", "disk full on db-1"),
            ("Ключ 🔑", "Ключ 🔑"),
            ("a,b=c&d%", "a,b=c&d%"),
            ("", "nb:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("a^b", "nb:361740d1927f400fce4ae41fefdfd6e6deac3fbf98ab45e62a53c4348d41eba8"),
            (" key", "nb:0dae7394abc951f3253518ceeaf8d8507e66dc1700914aca3f1dd850b939ac0b"),
            ("key ", "nb:f7ba81db8e661ff75a9474333da73e6939becf36483cc3ffabdd7c57aa113a72"),
            ("a\nb", "nb:7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78"),
            ("javascript:gs.log()", "nb:4c9756bd2f5a58734ddd66017c390796a9a0acb44b4fda4d6546dcfb485861d3"),
            ("JavaScript:x", "nb:171a8e4acbe1bf6359ee7ea2c0b14746047ae39580cc93a3bf3ff7a52349b225"),
            ("nb:x", "nb:106ac4976870c285eb3175e1926052dcaead0d4e9bb9234e56f98e671760dea9"),
            (
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            ),
            (
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                "nb:c675a2e604b0cd1229c036e3ce0c87422980a245e295bbc605a507a2299752db",
            ),
            (
                "éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé",
                "éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé",
            ),
            ("a\u{2028}b", "nb:fe2d3b945530c806f1ff5298f4486e3f1d2656c1bb026709f785a5f84d23af64"),
        ] {
            assert_eq!(correlation(key), expected, "{key}");
            assert!(expected.chars().count() <= CORRELATION_LENGTH);
        }
    }
}
