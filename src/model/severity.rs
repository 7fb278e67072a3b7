//! The six severities and their order.

/// All severities, most severe first. `unknown` ranks right after `medium`: an alert of unknown severity may not be
/// harmless.
pub const SEVERITIES: [&str; 6] = ["critical", "high", "medium", "unknown", "low", "info"];

/// Returns the rank of a severity; 0 is the most severe. Other words rank as `unknown`.
pub fn rank(severity: &str) -> usize {
    let index = |word: &str| SEVERITIES.iter().position(|known| *known == word);
    index(severity).or_else(|| index("unknown")).unwrap_or(SEVERITIES.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_severity_ranks_between_medium_and_low() {
        assert!(rank("medium") < rank("unknown"));
        assert!(rank("unknown") < rank("low"));
        assert_eq!(rank("a word of no system"), rank("unknown"));
    }
}
