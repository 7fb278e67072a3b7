//! `nowbridge dead-letters list`: the open dead letters, counted by reason.

use anyhow::Result;
use serde_json::json;

use super::super::args::DeadLetterArgs;
use super::super::time_arguments;
use super::{parse_filter, shorten};
use crate::dead_letters::{DeadLetter, DeadLetterStore, histogram};
use crate::error_catalog;

/// Maximum number of reasons that are printed.
const MAX_REASONS: usize = 20;

/// Prints the letters that match, as a table or as one JSON object per line.
///
/// # Errors
/// A filter is malformed, or the topic can't be read.
pub async fn list(store: &DeadLetterStore, args: DeadLetterArgs, limit: usize, json: bool) -> Result<()> {
    let filter = parse_filter(args)?;
    let mut letters = store.open_letters().await?;
    letters.retain(|letter| filter.matches(letter));
    if json {
        letters.iter().for_each(|letter| println!("{}", as_json(letter)));
    } else {
        print_table(&letters, limit);
    }
    Ok(())
}

fn as_json(letter: &DeadLetter) -> serde_json::Value {
    json!({
        "letter": letter.id.to_string(), "time": time_arguments::show(letter.time), "code": letter.code,
        "explain": error_catalog::error_number(&letter.code), "key": letter.key, "position": letter.position.to_string(),
        "origin": letter.origin, "redrives": letter.redrives, "reason": letter.reason,
    })
}

fn print_table(letters: &[DeadLetter], limit: usize) {
    if letters.is_empty() {
        println!("no open dead letters");
        return;
    }
    let keys: std::collections::BTreeSet<_> = letters.iter().filter_map(|letter| letter.key.as_deref()).collect();
    println!("{} open letters of {} keys\n", letters.len(), keys.len());
    let reasons = histogram(letters.iter());
    for (count, code, reason) in reasons.iter().take(MAX_REASONS) {
        println!("{count:>8}  {:<6} {code:<14} {}", error_catalog::error_number(code), shorten(reason, 100));
    }
    if reasons.len() > MAX_REASONS {
        println!("          and {} more reasons", reasons.len() - MAX_REASONS);
    }
    println!("          `nowbridge explain SN-…` prints the cause and the resolution of each");
    println!("\n{:<12} {:<20} {:<14} {:>8}  key, reason", "letter", "time", "code", "redriven");
    for letter in letters.iter().take(limit) {
        let key = letter.key.as_deref().unwrap_or("(no key)");
        println!(
            "{:<12} {:<20} {:<14} {:>8}  {key}: {}",
            letter.id.to_string(),
            time_arguments::show(letter.time),
            letter.code,
            letter.redrives,
            shorten(&letter.reason, 120)
        );
    }
    if letters.len() > limit {
        println!("and {} more; raise --limit to list them", letters.len() - limit);
    }
}
