//! The six severities and their one order.

/// From the worst. An unknown one is treated like a medium one, so it comes right behind it: nobody has said that the alert
/// is harmless.
pub const SEVERITIES: [&str; 6] = ["critical", "high", "medium", "unknown", "low", "info"];

/// How bad a severity is; 0 is the worst. Other words are unknown ones.
pub fn rank(severity: &str) -> usize {
    let place = |word: &str| SEVERITIES.iter().position(|known| *known == word);
    place(severity).or_else(|| place("unknown")).unwrap_or(SEVERITIES.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_judged_is_worse_than_what_is_known_to_be_harmless() {
        assert!(rank("medium") < rank("unknown"));
        assert!(rank("unknown") < rank("low"));
        assert_eq!(rank("a word of no system"), rank("unknown"));
    }
}
