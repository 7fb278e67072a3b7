//! Field hashes: the ledger contains them instead of the values.

use std::hash::Hasher;

use twox_hash::XxHash64;

/// The hash of a value. Ledgers contain it: never change it, or every ticket is written once more.
pub fn field_hash(value: &str) -> u64 {
    let mut h = XxHash64::with_seed(0);
    h.write(value.as_bytes());
    h.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_match_existing_ledgers() {
        assert_eq!(field_hash(""), 0xef46_db37_51d8_e999);
        assert_eq!(field_hash("abc"), 0x44bc_2cf5_ad77_0999);
    }
}
