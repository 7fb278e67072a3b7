//! An instance: reachable, lets us in, its clock, our user there; then what each of its routes needs.

use super::greeting::{self, Greeting};
use super::rounds::{Rounds, Verdict, in_words};
use super::{Subject, choices, events, journal, probe, staging, table};
use crate::config::{Instance, Sink, Source, Write};
use crate::model::{Class, Failure};
use crate::runtime::clock;
use crate::servicenow::{Client, Connection, Events, ImportSet};

/// Seconds of skew that are told.
const SKEW: i64 = 60;

/// Checks an instance and its routes. After one refusal of the credentials it is asked no more.
pub async fn check(rounds: &mut Rounds<'_>, subject: &Subject<'_>, instance: &Instance) {
    let config = subject.config;
    let sinks: Vec<&Sink> = config.sinks.iter().filter(|s| s.instance.name == instance.name).collect();
    let sources: Vec<&Source> = config.sources.iter().filter(|s| s.instance.name == instance.name).collect();
    let (table, state) = match (sinks.first(), sources.first()) {
        (Some(sink), _) => (sink.table.as_str(), sink.settings.states.column.as_str()),
        (None, Some(source)) => (source.table.as_str(), "state"),
        (None, None) => ("incident", "state"),
    };
    let id = |check: &str| format!("instance.{}.{check}", instance.name);
    rounds.looking(&format!("instance {}", instance.name));
    let welcome = match (subject.client)(instance, table, state) {
        Ok(client) => greet(rounds, instance, &client).await,
        Err(why) => {
            rounds.note(id("client"), "the settings can be used", Verdict::fail(why, "correct the instance's settings"))
        }
    };
    let mut refused = !welcome;
    for sink in sinks {
        let name = format!("sink.{}", sink.name);
        let client = client(rounds, subject, &name, instance, &sink.table, &sink.settings.states.column, refused);
        let Some(client) = client else { continue };
        refused = !of_sink(rounds, subject, sink, client).await;
    }
    for source in sources {
        let name = format!("source.{}", source.name);
        let Some(client) = client(rounds, subject, &name, instance, &source.table, "state", refused) else { continue };
        refused = !of_source(rounds, source, client).await;
    }
}

/// A client of a route's table, unless the instance is asked no more.
fn client(
    rounds: &mut Rounds<'_>,
    subject: &Subject<'_>,
    name: &str,
    instance: &Instance,
    table: &str,
    state: &str,
    refused: bool,
) -> Option<Client> {
    let what = format!("table {table} of instance {}", instance.name);
    if refused {
        let why = format!("instance {} can't be used, and is asked no more", instance.name);
        rounds.note(format!("{name}.table"), what, Verdict::skipped(why));
        return None;
    }
    match (subject.client)(instance, table, state) {
        Ok(client) => Some(client),
        Err(why) => {
            rounds.note(format!("{name}.table"), what, Verdict::fail(why, "correct the route's settings"));
            None
        }
    }
}

/// False where the instance must be asked no more.
async fn of_sink(rounds: &mut Rounds<'_>, subject: &Subject<'_>, sink: &Sink, client: Client) -> bool {
    rounds.looking(&format!("sink {}: table {}", sink.name, sink.table));
    let client = match as_the_route_writes(sink, client) {
        Ok(client) => client,
        Err(why) => {
            let what = format!("table {} can be written", sink.table);
            rounds.note(format!("sink.{}.staging", sink.name), what, Verdict::fail(why, "correct `import_set`"));
            return true;
        }
    };
    if client.connection().events.is_some() {
        let visit = table::Visit { name: format!("sink.{}", sink.name), table: &sink.table, client: &client };
        return events::check(rounds, &visit, sink, subject.options.write_probe).await;
    }
    let mut wanted = vec![sink.settings.states.column.clone(), "correlation_display".into()];
    wanted.extend(sink.mapping.columns().iter().map(ToString::to_string));
    let visit = table::Visit { name: format!("sink.{}", sink.name), table: &sink.table, client: &client };
    let seen = match table::read(rounds, &visit, &wanted, true).await {
        Ok(seen) => seen,
        Err(failure) => return failure.class != Class::Unauthorised,
    };
    table::times(rounds, &visit, &seen).await;
    table::correlation(rounds, &visit, &seen).await;
    match &client.connection().import {
        None => table::write(rounds, &visit).await,
        Some(import) => staging::check(rounds, &visit, sink, import).await,
    }
    if matches!(sink.write, Write::Batch { .. }) {
        table::batch(rounds, &visit).await;
    }
    journal::check(rounds, &visit, journal::Reader::Sink).await;
    choices::check(rounds, &visit, sink).await;
    if subject.options.write_probe {
        rounds.looking(&format!("sink {}: a test ticket", sink.name));
        probe::check(rounds, &visit, sink).await;
    }
    true
}

/// The client that writes as the route will.
fn as_the_route_writes(sink: &Sink, client: Client) -> Result<Client, String> {
    if matches!(sink.write, Write::Table | Write::Batch { .. }) {
        return Ok(client);
    }
    let mut connection = client.connection().clone();
    write_by(&mut connection, &sink.write);
    Client::new(connection, clock::mono).map_err(|error| error.to_string())
}

/// Sets a connection to write as a route does; for the check and for the route itself, so that they can't differ.
pub fn write_by(connection: &mut Connection, write: &Write) {
    match write {
        Write::Table | Write::Batch { .. } => {}
        Write::ImportSet { staging, prefix, coalesce } => {
            connection.import =
                Some(ImportSet { staging: staging.clone(), prefix: prefix.clone(), coalesce: coalesce.clone() });
        }
        Write::Event { source, class, .. } => {
            connection.correlation_column = "message_key".into();
            connection.events = Some(Events { source: source.clone(), class: class.clone() });
        }
    }
}

/// False where the instance must be asked no more.
async fn of_source(rounds: &mut Rounds<'_>, source: &Source, client: Client) -> bool {
    rounds.looking(&format!("source {}: table {}", source.name, source.table));
    let visit = table::Visit { name: format!("source.{}", source.name), table: &source.table, client: &client };
    let seen = match table::read(rounds, &visit, &source.fields, false).await {
        Ok(seen) => seen,
        Err(failure) => return failure.class != Class::Unauthorised,
    };
    table::times(rounds, &visit, &seen).await;
    if source.journal {
        journal::check(rounds, &visit, journal::Reader::Source).await;
    }
    true
}

/// The first word; false where the instance can't be used.
async fn greet(rounds: &mut Rounds<'_>, instance: &Instance, client: &Client) -> bool {
    let id = |check: &str| format!("instance.{}.{check}", instance.name);
    let (reach_what, login_what) = ("the instance answers", format!("user {} logs in", instance.auth.user()));
    let before = clock::unix();
    let greeting = match greeting::greet(client).await {
        Ok(greeting) => greeting,
        Err(failure) if is_refusal(&failure) => {
            rounds.note(id("reach"), reach_what, reached(instance));
            return rounds.note(id("login"), login_what, Verdict::failed(&failure));
        }
        // It knows us and doesn't show us users: that is a finding about the user only.
        Err(failure) if failure.class == Class::Rejected => {
            rounds.note(id("reach"), reach_what, reached(instance));
            rounds.note(id("login"), login_what, Verdict::pass("the credentials work"));
            let (detail, _) = in_words(&failure);
            let remedy = "let the bridge's user read its own row in sys_user, so that its time zone can be looked at";
            rounds.note(id("user"), "the user's own row", Verdict::warn(detail, remedy));
            return true;
        }
        Err(failure) => {
            rounds.note(id("reach"), reach_what, Verdict::failed(&failure));
            return rounds.note(id("login"), login_what, Verdict::skipped("the instance does not answer"));
        }
    };
    let after = clock::unix();
    rounds.note(id("reach"), reach_what, reached(instance));
    rounds.note(id("login"), login_what, Verdict::pass("the credentials work (tried once)"));
    rounds.note(id("clock"), "its clock and ours agree", clocks(&greeting, before, after));
    rounds.note(id("user"), "the user's time zone", zone(instance, &greeting));
    true
}

/// True where the credentials were refused, whoever refused them.
fn is_refusal(failure: &Failure) -> bool {
    failure.class == Class::Unauthorised || failure.code == "token_refused"
}

fn reached(instance: &Instance) -> Verdict {
    if instance.url.starts_with("https://") {
        Verdict::pass(format!("{} over TLS, certificate verified", instance.url))
    } else {
        let detail = format!("{} without TLS: the credentials cross the network in the clear", instance.url);
        Verdict::warn(detail, "use https:// for anything but a simulator")
    }
}

/// The instance's clock was read somewhere between `before` and `after` (milliseconds), and shows whole seconds.
fn clocks(greeting: &Greeting, before: i64, after: i64) -> Verdict {
    let Some(date) = greeting.date else {
        let remedy = "let the proxy in between pass the Date header on: the source's cursor follows it";
        return Verdict::warn("the instance's answer carries no Date", remedy);
    };
    let ahead = date - after.div_euclid(1000);
    let behind = before.div_euclid(1000) - (date + 1);
    let skew = if ahead > 0 { ahead } else { -behind.max(0) };
    if skew.abs() <= SKEW {
        return Verdict::pass(format!("{} s apart", skew.abs()));
    }
    let which = if skew > 0 { "ahead of" } else { "behind" };
    let detail = format!(
        "the instance is {} s {which} this machine; delivery does not rest on it, but times in logs, alerts and \
         tickets will disagree, and the reopen window is off by as much",
        skew.abs()
    );
    Verdict::warn(detail, "set this machine's clock by NTP, or ask the instance's operators")
}

fn zone(instance: &Instance, greeting: &Greeting) -> Verdict {
    let Some(user) = &greeting.user else {
        let detail = format!("sys_user shows no row of {} to it", instance.auth.user());
        let remedy = "check the user's name (the `user` setting; our own changes are told from others' by it), and \
                      let it read its own row in sys_user";
        return Verdict::warn(detail, remedy);
    };
    match user.time_zone.as_str() {
        "GMT" | "UTC" | "Etc/UTC" | "Etc/GMT" | "Universal" | "Zulu" => Verdict::pass(user.time_zone.clone()),
        "" => Verdict::pass(
            "none of its own, so the instance's applies; the bridge sends and reads UTC, and only `javascript:` dates \
             in a source's filter follow a zone",
        ),
        zone => Verdict::warn(
            format!("{zone}: the bridge sends and reads UTC, but `javascript:` dates in a source's filter follow it"),
            "set the integration user's time zone to GMT",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Outcome;

    #[test]
    fn clocks_that_agree_within_the_request_and_the_second_pass() {
        let at = |date| clocks(&Greeting { date: Some(date), user: None }, 1_000_000, 1_002_500);
        for date in [1_000, 1_001, 1_002, 1_060, 940] {
            assert_eq!(at(date).outcome, Outcome::Pass, "{date}");
        }
        assert!(at(1_100).detail.contains("98 s ahead"), "{}", at(1_100).detail);
        assert!(at(900).detail.contains("99 s behind"), "{}", at(900).detail);
        assert_eq!(clocks(&Greeting::default(), 0, 0).outcome, Outcome::Warn);
    }
}
