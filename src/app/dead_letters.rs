//! `nowbridge dead-letters`: what was refused, shown, put back or given up.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{clients, ledger};
use crate::cli::{DeadLetters, LetterArgs, RouteArgs};
use crate::config::{self, Config};
use crate::kafka::topics::{Purpose, TopicSpec, Topics};
use crate::model::RedriveId;
use crate::redrive::{Choice, Filter, Letter, Place, Shelf, Step, choose, histogram};
use crate::{clock, redrive, taxonomy};

/// For each call to the cluster.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a value that `show` prints.
const SHOWN: usize = 64 << 10;

/// Lines of the histogram.
const REASONS: usize = 20;

/// Runs a command; false where letters are left that should not be.
///
/// # Errors
/// The configuration, a filter or the cluster is not as it must be.
pub async fn run(command: DeadLetters) -> Result<bool> {
    match command {
        DeadLetters::List { route, which, limit, json } => {
            let (_, shelf) = open(&route)?;
            let filter = filter(which)?;
            let mut letters = shelf.open_letters().await?;
            letters.retain(|letter| filter.fits(letter));
            if json {
                letters.iter().for_each(|l| println!("{}", as_json(l)));
            } else {
                list(&letters, limit);
            }
            Ok(true)
        }
        DeadLetters::Show { route, place } => {
            let (_, shelf) = open(&route)?;
            show(&shelf, place.parse().map_err(anyhow::Error::msg)?).await?;
            Ok(true)
        }
        DeadLetters::Redrive { route, which, dry_run, rate, max_redrives, rounds, patience } => {
            let (config, shelf) = open(&route)?;
            let choice = choose(&shelf.open_letters().await?, &filter(which)?, max_redrives);
            tell_exhausted(&choice, max_redrives);
            if choice.is_empty() || dry_run {
                println!(
                    "{}",
                    if choice.is_empty() { "nothing to put back".into() } else { would(&choice, "put back") }
                );
                return Ok(true);
            }
            make_marks(&config, &shelf).await?;
            let patience = Duration::from_secs(patience);
            Redrive { shelf: &shelf, rate, max_redrives, patience }.rounds(choice, rounds).await
        }
        DeadLetters::Drop { route, which, yes } => {
            let (config, shelf) = open(&route)?;
            let choice = choose(&shelf.open_letters().await?, &filter(which)?, u32::MAX);
            if choice.is_empty() || !yes {
                let would = if choice.is_empty() { "nothing to drop".into() } else { would(&choice, "drop") };
                println!("{would}{}", if choice.is_empty() { "" } else { "; say --yes to do it" });
                return Ok(true);
            }
            make_marks(&config, &shelf).await?;
            let dropped = shelf.drop_letters(&choice, new_id(), &mut |_| {}).await?;
            println!("dropped {dropped} letters; {} keys are released", choice.keys().count());
            Ok(true)
        }
    }
}

fn open(route: &RouteArgs) -> Result<(Config, Shelf)> {
    let config = config::load(&route.file.config)?;
    let sink = ledger::choose(&config, route.route.as_deref())?;
    let shelf = Shelf {
        options: clients::kafka(&config.kafka),
        route: sink.name.clone(),
        input: sink.reads().to_owned(),
        group: sink.group.clone(),
        dead_letters: sink.dead_letters.clone(),
        marks: config.topics.redrives(),
        transactional_id: format!("{}.redrive.{}", config.topics.prefix, sink.name),
        timeout: TIMEOUT,
    };
    Ok((config, shelf))
}

/// Bridges of before this version have not made it.
async fn make_marks(config: &Config, shelf: &Shelf) -> Result<()> {
    let spec = TopicSpec::new(shelf.marks.clone(), Purpose::Table).partitions(1).replication(config.topics.replication);
    let topics = Topics::new(&shelf.options, TIMEOUT);
    topics
        .create_missing(&[spec], super::topics::strictness(config, false))
        .await
        .context("can't make the topic of marks")?;
    Ok(())
}

fn filter(args: LetterArgs) -> Result<Filter> {
    let codes = args.code.into_iter().flat_map(|code| match taxonomy::find(&code) {
        // A number stands for all codes of its page; a code for itself.
        Some(page) if !page.codes.contains(&code.as_str()) => page.codes.iter().map(|&code| code.to_owned()).collect(),
        _ => vec![code],
    });
    let time = |text: Option<String>| text.map(|text| time(&text)).transpose();
    Ok(Filter {
        codes: codes.collect(),
        reason: args.reason,
        key: args.key,
        since: time(args.since)?,
        until: time(args.until)?,
    })
}

/// An instant, or how long ago.
pub(super) fn time(text: &str) -> Result<i64> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let age = text.parse::<jiff::SignedDuration>().ok().or_else(|| days(text));
    let age =
        age.with_context(|| format!("{text:?} is no time: write 2026-11-25T10:00:00Z, or an age such as 90m or 2h"))?;
    Ok(clock::unix() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

fn days(text: &str) -> Option<jiff::SignedDuration> {
    let days: i64 = text.strip_suffix('d')?.trim().parse().ok()?;
    Some(jiff::SignedDuration::from_hours(days.checked_mul(24)?))
}

fn new_id() -> RedriveId {
    RedriveId(fastrand::u64(..))
}

fn would(choice: &Choice, verb: &str) -> String {
    let keys = choice.keys().count();
    let keyless = choice.groups.len() - keys;
    format!("would {verb} {} letters: those of {keys} keys, and {keyless} without a key", choice.len())
}

fn tell_exhausted(choice: &Choice, most: u32) {
    for (key, times) in &choice.exhausted {
        eprintln!("left out {key}: put back {times} times already and refused each time (--max-redrives {most})");
    }
}

pub(super) fn when(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| format!("{at:.0}"))
}

fn as_json(letter: &Letter) -> serde_json::Value {
    json!({
        "place": letter.place.to_string(), "time": when(letter.time), "code": letter.code,
        "explain": taxonomy::name(&letter.code), "key": letter.key,
        "position": letter.position.to_string(), "origin": letter.origin, "redrives": letter.redrives, "reason": letter.reason,
    })
}

fn list(letters: &[Letter], limit: usize) {
    if letters.is_empty() {
        println!("no open dead letters");
        return;
    }
    let keys: std::collections::BTreeSet<_> = letters.iter().filter_map(|l| l.key.as_deref()).collect();
    println!("{} open letters, of {} keys\n", letters.len(), keys.len());
    let reasons = histogram(letters.iter());
    for (count, code, reason) in reasons.iter().take(REASONS) {
        println!("{count:>8}  {:<6} {code:<14} {}", taxonomy::name(code), short(reason, 100));
    }
    if reasons.len() > REASONS {
        println!("          and {} more reasons", reasons.len() - REASONS);
    }
    println!("          `nowbridge explain SN-…` says what each means and what to do");
    println!("\n{:<12} {:<20} {:<14} {:>8}  key, reason", "letter", "time", "code", "redriven");
    for letter in letters.iter().take(limit) {
        let key = letter.key.as_deref().unwrap_or("(no key)");
        println!(
            "{:<12} {:<20} {:<14} {:>8}  {key}: {}",
            letter.place.to_string(),
            when(letter.time),
            letter.code,
            letter.redrives,
            short(&letter.reason, 120)
        );
    }
    if letters.len() > limit {
        println!("and {} more; --limit shows them", letters.len() - limit);
    }
}

fn short(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
    if text.chars().count() > most { format!("{line}…") } else { line }
}

async fn show(shelf: &Shelf, place: Place) -> Result<()> {
    let record = shelf.fetch([place]).await?.remove(&place);
    let record = record.with_context(|| format!("there is no letter {place} in {}", shelf.dead_letters))?;
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
        println!("… {} bytes in all", value.len());
    }
    Ok(())
}

/// A redrive, round by round.
struct Redrive<'a> {
    shelf: &'a Shelf,
    rate: u32,
    max_redrives: u32,
    patience: Duration,
}

impl Redrive<'_> {
    async fn rounds(&self, mut choice: Choice, rounds: u32) -> Result<bool> {
        let mut well = true;
        for round in 1..=rounds {
            let keyless = choice.groups.len() - choice.keys().count();
            let outcome = self.round(&choice).await?;
            println!(
                "round {round}: put back {} letters; {} keys are released, {} refused again, {} have newer letters",
                outcome.letters,
                outcome.released.len(),
                outcome.refused.len(),
                outcome.behind.len()
            );
            for (key, reason) in outcome.refused.iter().take(REASONS) {
                println!("  refused again: {key}: {}", short(reason, 160));
            }
            if keyless > 0 {
                println!("  {keyless} letters without a key were put back; `list` shows those that came again");
            }
            well &= outcome.refused.is_empty();
            if outcome.behind.is_empty() {
                return Ok(well);
            }
            choice = choose(&outcome.newer, &Filter::default(), self.max_redrives);
        }
        bail!("after {rounds} rounds newer letters are still coming; run it again when fewer events come");
    }

    async fn round(&self, choice: &Choice) -> Result<redrive::Outcome> {
        let bar = bar(choice.len());
        let letters = self.shelf.put_back(choice, new_id(), self.rate, &mut |step| show_step(&bar, step)).await?;
        bar.finish_and_clear();
        let spinner = ProgressBar::new_spinner();
        spinner.enable_steady_tick(Duration::from_millis(200));
        let there = self.shelf.await_bridge(self.patience, &mut |step| show_step(&spinner, step)).await?;
        spinner.finish_and_clear();
        if !there {
            bail!(
                "put back {letters} letters, but the bridge has come no nearer to them for {} s: does it run, and is the \
                 instance up? They are in the input and will be applied; `list` then shows what was refused again",
                self.patience.as_secs()
            );
        }
        Ok(self.shelf.outcome(choice, letters).await?)
    }
}

fn bar(letters: usize) -> ProgressBar {
    let bar = ProgressBar::new(letters as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} letters put back, {eta} left");
    style.map(|style| bar.set_style(style)).unwrap_or_default();
    bar
}

fn show_step(bar: &ProgressBar, step: Step) {
    match step {
        Step::Done(letters) => bar.set_position(letters as u64),
        Step::Waits(records) => bar.set_message(format!("the bridge has {records} records before it")),
    }
}
