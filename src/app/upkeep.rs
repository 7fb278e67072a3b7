//! `nowbridge ledger list|forget|adopt|rebuild|rename`: commands around `upkeep`, which does it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use serde_json::json;

use super::dead_letters::{time, when};
use super::ledger::choose;
use super::run::identity;
use super::{clients, topics};
use crate::cli::{KeyState, Ledger, ListArgs, RouteArgs};
use crate::config::{self, Config, Sink};
use crate::kafka::Producer;
use crate::kafka::topics::{Purpose, TopicSpec, Topics};
use crate::ledger::{StartAt, SurveyError};
use crate::upkeep::{self, Begin, Filter, Line, Old, Site, Standing, Summary};

/// For each call to the cluster.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Runs a ledger command.
///
/// # Errors
/// The route is not there, bridges are running, or the cluster does not answer.
pub async fn run(command: Ledger) -> Result<()> {
    match command {
        Ledger::Get { file, route, key } => super::ledger::get(config::load(&file.config)?, route, key).await,
        Ledger::List { route, which } => list(&route, which).await,
        Ledger::Forget { route, key, yes } => forget(&route, &key, yes).await,
        Ledger::Adopt { route, proven, yes } => adopt(&route, proven, yes).await,
        Ledger::Rebuild { route, from, yes } => rebuild(&route, from.as_deref(), yes).await,
        Ledger::Rename { route, from, from_ledger, from_group, yes } => {
            let config = config::load(&route.file.config)?;
            let prefix = &config.topics.prefix;
            let old = Old {
                ledger: from_ledger.unwrap_or_else(|| format!("{prefix}.{from}.ledger")),
                group: from_group.unwrap_or_else(|| format!("{prefix}.{from}")),
            };
            rename(&config, &route, &from, &old, yes).await
        }
    }
}

/// The route's site. `make`: its ledger topic is made where it is not there.
pub(super) async fn site(config: &Config, sink: &Sink, make: bool) -> Result<Site> {
    let options = clients::kafka(&config.kafka);
    let look = Topics::new(&options, TIMEOUT);
    let input = look.partitions(sink.reads()).await?;
    let input = input.with_context(|| format!("route {}: there is no topic {}", sink.name, sink.reads()))?;
    if make {
        let spec = TopicSpec::new(&sink.ledger, Purpose::Ledger).partitions(input);
        let spec = spec.replication(config.topics.replication);
        look.create_missing(&[spec], topics::strictness(config, false)).await.context("can't make the ledger")?;
    }
    let partitions = look.partitions(&sink.ledger).await?;
    let partitions = partitions.with_context(|| {
        format!("the ledger {} does not exist: the bridge never ran, or it was deleted (`ledger rebuild`)", sink.ledger)
    })?;
    let (producer, _) = Producer::new(&options, TIMEOUT)?;
    Ok(Site {
        identity: identity(sink, look.cluster_id().await?, input),
        producer,
        ledger: sink.ledger.as_str().into(),
        partitions,
        input: sink.reads().to_owned(),
        group: sink.group.clone(),
        states: sink.settings.states.clone(),
        timeout: TIMEOUT,
        options,
    })
}

pub(super) fn groups(sink: &Sink) -> Vec<String> {
    sink.groups().into_iter().map(|(group, _)| group).collect()
}

async fn list(route: &RouteArgs, which: ListArgs) -> Result<()> {
    let config = config::load(&route.file.config)?;
    let sink = choose(&config, route.route.as_deref())?;
    let site = site(&config, sink, false).await?;
    let filter = Filter {
        key: which.key,
        standing: which.state.map(|state| match state {
            KeyState::Open => Standing::Open,
            KeyState::Resolved => Standing::Resolved,
            KeyState::Closed => Standing::Closed,
            KeyState::Parked => Standing::Parked,
            KeyState::InDoubt => Standing::InDoubt,
        }),
        before: which.before.map(|text| time(&text)).transpose()?,
    };
    let mut summary = Summary::default();
    let mut shown = 0;
    let mut chosen = 0;
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(200));
    for partition in 0..site.partitions {
        let (bar, partitions) = (spinner.clone(), site.partitions);
        let progress = move |read| {
            bar.set_message(format!("reads the ledger: partition {} of {partitions}, {read} records", partition + 1));
        };
        let survey = site.survey(partition, progress).await?;
        for line in upkeep::lines(partition, &survey, &site.states, &filter, &mut summary) {
            chosen += 1;
            if which.json {
                println!("{}", as_json(&line));
            } else if shown < which.limit {
                if shown == 0 {
                    println!("{:<9} {:<12} {:<20} {:>9}  key", "state", "ticket", "written", "partition");
                }
                shown += 1;
                spinner.suspend(|| println!("{}", as_text(&line)));
            }
        }
    }
    spinner.finish_and_clear();
    if !which.json {
        if chosen > shown {
            println!("and {} more; --limit shows them", chosen - shown);
        }
        tell(&site, &summary);
    }
    Ok(())
}

fn as_json(line: &Line) -> serde_json::Value {
    json!({
        "key": &*line.key, "partition": line.partition, "state": line.standing.name(), "number": line.number,
        "sys_id": line.sys_id, "generation": line.generation, "ticket_state": line.state,
        "written": (line.written_at > 0).then(|| when(line.written_at)), "why": line.why,
    })
}

fn as_text(line: &Line) -> String {
    let written = if line.written_at > 0 { when(line.written_at) } else { String::new() };
    let why = line.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{:<9} {:<12} {written:<20} {:>9}  {}{why}", line.standing.name(), line.number, line.partition, line.key)
}

fn tell(site: &Site, summary: &Summary) {
    let count = |standing| summary.keys.get(&standing).copied().unwrap_or(0);
    let all: usize = summary.keys.values().sum();
    let parts: Vec<String> =
        Standing::ALL.into_iter().map(|standing| format!("{} {}", count(standing), standing.name())).collect();
    println!("\n{} keys in {} of {} partitions: {}", all, site.ledger, site.partitions, parts.join(", "));
    if summary.unclaimed > 0 {
        println!("{} partitions have no header: never taken over, or lost", summary.unclaimed);
    }
    if summary.unproven > 0 {
        println!("{} partitions do not know every key: unknown ones are looked up in the instance", summary.unproven);
    }
}

async fn forget(route: &RouteArgs, key: &str, yes: bool) -> Result<()> {
    let config = config::load(&route.file.config)?;
    let sink = choose(&config, route.route.as_deref())?;
    let site = site(&config, sink, false).await?;
    let traces = upkeep::traces(&site, key).await?;
    if traces.records.is_empty() {
        bail!("the ledger {} knows nothing of key {key:?}", site.ledger);
    }
    let watching = config.sources.iter().filter(|s| s.instance.name == sink.instance.name && s.table == sink.table);
    let rows: Vec<String> = watching.map(|source| source.rows.clone()).collect();
    println!("{} records of the ledger {}", traces.records.len(), site.ledger);
    for topic in &rows {
        println!("what {topic} remembers of {} tickets", traces.tickets.len());
    }
    println!("\nIt also stands, and stays, in");
    println!("  {}: its events, until the topic's retention ends", sink.topic);
    let published = sink.results.iter().chain([&sink.dead_letters]).map(String::as_str);
    for topic in published.chain(config.sources.iter().map(|source| source.topic.as_str())) {
        println!("  {topic}: if anything of it was published, until the topic's retention ends");
    }
    for ticket in &traces.tickets {
        println!("  {}: the {} {ticket}", sink.instance.url, sink.table);
    }
    if traces.state.as_ref().is_some_and(|state| site.states.phase(state).is_open()) {
        let number = traces.number.as_deref().unwrap_or("its ticket");
        println!(
            "\n{number} is open, as far as was seen last: the next event that opens {key:?} makes another ticket."
        );
    }
    if !yes {
        println!("\nNothing was changed; say --yes to forget it.");
        return Ok(());
    }
    let mut all = groups(sink);
    all.extend((!rows.is_empty()).then(|| format!("{}.sources", config.topics.prefix)));
    site.refuse_members(&all).await?;
    let removed = upkeep::forget(&site, &traces, &rows).await?;
    println!("\nforgotten: {removed} records of the ledger were removed");
    Ok(())
}

async fn adopt(route: &RouteArgs, proven: bool, yes: bool) -> Result<()> {
    let config = config::load(&route.file.config)?;
    let sink = choose(&config, route.route.as_deref())?;
    let site = site(&config, sink, false).await?;
    let differences = upkeep::differences(&site).await?;
    for (partition, all) in &differences {
        for one in all {
            println!("partition {partition}: the {} was `{}`, and is `{}`", one.what, one.ledger, one.route);
        }
    }
    if proven {
        println!("Keys that the ledger does not know will not be looked up any more: their alerts get new tickets.");
    }
    if differences.iter().all(|(_, all)| all.is_empty()) && !proven {
        println!("the ledger {} belongs to this route as it is", site.ledger);
        return Ok(());
    }
    println!("Adopt it only if the tickets are the same: their sys_ids must be what they were.");
    if !yes {
        println!("\nNothing was changed; say --yes to adopt it.");
        return Ok(());
    }
    site.refuse_members(&groups(sink)).await?;
    println!("\nadopted: {} headers were written", upkeep::adopt(&site, proven).await?);
    Ok(())
}

async fn rebuild(route: &RouteArgs, from: Option<&str>, yes: bool) -> Result<()> {
    let config = config::load(&route.file.config)?;
    let sink = choose(&config, route.route.as_deref())?;
    let begin = from.map(place).transpose()?.map_or(Begin::Committed, Begin::At);
    let site = site(&config, sink, yes).await?;
    if !yes {
        let mut keys = 0;
        for partition in 0..site.partitions {
            // What can't be read is removed with the rest.
            keys += match site.survey(partition, |_| ()).await {
                Ok(survey) => survey.loaded.entries.len(),
                Err(upkeep::Error::Survey(SurveyError::Unreadable { .. })) => 0,
                Err(error) => return Err(error.into()),
            };
        }
        println!("{keys} keys of the ledger {} would be forgotten, and each looked up in the instance", site.ledger);
        println!("at its next event: one request a key. Values that people put into tickets may be overwritten.");
        println!("\nNothing was changed; say --yes to begin it anew.");
        return Ok(());
    }
    site.refuse_members(&groups(sink)).await?;
    let span = sink.instance.request_deadline + sink.instance.settle_time;
    println!("waits until no write of before can strike any more: {} s after the last", span.as_secs());
    let tell = &mut |partition, start, removed| {
        println!("partition {partition}: {removed} records removed; reading goes on at {start}");
    };
    upkeep::rebuild(&site, begin, span, tell).await?;
    println!("\nbegun anew");
    Ok(())
}

/// A place in the input, as people write it.
pub(super) fn place(text: &str) -> Result<StartAt> {
    Ok(match text {
        "earliest" => StartAt::Earliest,
        "latest" => StartAt::Latest,
        text => StartAt::Time(time(text)?),
    })
}

async fn rename(config: &Config, route: &RouteArgs, from: &str, old: &Old, yes: bool) -> Result<()> {
    let sink = choose(config, route.route.as_deref())?;
    println!("from the ledger {} and the group {}", old.ledger, old.group);
    println!("to   the ledger {} and the group {}", sink.ledger, sink.group);
    println!(
        "\nThe old topics stay as they are. Open dead letters of {from} are not taken along: put them back first."
    );
    if !yes {
        println!("\nNothing was changed; say --yes to take it along.");
        return Ok(());
    }
    let site = site(config, sink, true).await?;
    let mut all = groups(sink);
    all.push(old.group.clone());
    site.refuse_members(&all).await?;
    let copied = Arc::new(Mutex::new(0));
    let total = Arc::clone(&copied);
    let tell = &mut move |partition, keys: usize| {
        *total.lock().unwrap_or_else(PoisonError::into_inner) += keys;
        println!("partition {partition}: {keys} keys");
    };
    upkeep::rename(&site, old, tell).await?;
    println!("\ntaken along: {} keys", *copied.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}
