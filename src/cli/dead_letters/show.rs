//! `nowbridge dead-letters show`: one dead letter with its headers and the original value.

use anyhow::{Context, Result};

use crate::dead_letters::{LetterId, LetterStore};

/// Bytes of a value that are printed.
const SHOWN: usize = 64 << 10;

/// Prints a letter, named as `PARTITION/OFFSET`.
///
/// # Errors
/// The name is malformed, or there is no such letter.
pub async fn show(store: &LetterStore, letter: &str) -> Result<()> {
    let place: LetterId = letter.parse().map_err(anyhow::Error::msg)?;
    let record = store.fetch([place]).await?.remove(&place);
    let record = record.with_context(|| format!("there is no letter {place} in {}", store.dead_letters))?;
    let (ours, foreign): (Vec<_>, Vec<_>) = record.headers.iter().partition(|(name, _)| name.starts_with("nowbridge-"));
    let text =
        |value: &Option<Vec<u8>>| value.as_ref().map_or("null".into(), |v| String::from_utf8_lossy(v).into_owned());
    for (name, value) in ours {
        println!("{:<18} {}", name.trim_start_matches("nowbridge-"), text(value));
    }
    println!("{:<18} {}", "record key", text(&record.key));
    for (name, value) in foreign {
        println!("header {name:<11} {}", text(value));
    }
    let value = record.value.unwrap_or_default();
    let shown = value.get(..SHOWN).unwrap_or(&value);
    let pretty = serde_json::from_slice::<serde_json::Value>(&value).ok().filter(|_| value.len() <= SHOWN);
    let body = pretty.and_then(|v| serde_json::to_string_pretty(&v).ok());
    println!("\n{}", body.unwrap_or_else(|| String::from_utf8_lossy(shown).into_owned()));
    if value.len() > SHOWN {
        println!("… {} bytes in total", value.len());
    }
    Ok(())
}
