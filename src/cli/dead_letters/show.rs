//! `nowbridge dead-letters show`: one dead letter with its headers and the original value.

use anyhow::{Context, Result};

use crate::dead_letters::{DeadLetterId, DeadLetterStore};

/// Maximum number of bytes of a value that are printed.
const MAX_PRINTED: usize = 64 << 10;

/// Prints a letter. Its id is `PARTITION/OFFSET`.
///
/// # Errors
/// The id is malformed, or there is no such letter.
pub async fn show(store: &DeadLetterStore, letter: &str) -> Result<()> {
    let id: DeadLetterId = letter.parse().map_err(anyhow::Error::msg)?;
    let record = store.fetch([id]).await?.remove(&id);
    let record = record.with_context(|| format!("there is no dead letter {id} in {}", store.dead_letters))?;
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
    let printed = value.get(..MAX_PRINTED).unwrap_or(&value);
    let pretty = serde_json::from_slice::<serde_json::Value>(&value).ok().filter(|_| value.len() <= MAX_PRINTED);
    let body = pretty.and_then(|v| serde_json::to_string_pretty(&v).ok());
    println!("\n{}", body.unwrap_or_else(|| String::from_utf8_lossy(printed).into_owned()));
    if value.len() > MAX_PRINTED {
        println!("… {} bytes in total", value.len());
    }
    Ok(())
}
