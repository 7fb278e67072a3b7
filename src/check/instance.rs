//! Checks of an instance: reachable, login, clock, user; then the requirements of each of its routes.

use super::login::{self, Login};
use super::run::{CheckRun, Verdict, describe};
use super::{CheckContext, choices, events, journal, probe, staging, table};
use crate::config::{Instance, Sink, Source, Write};
use crate::model::{Failure, FailureClass};
use crate::runtime::clock;
use crate::servicenow::{Client, Connection, Events, ImportSet};

/// Clock skew in seconds above which the check warns.
const MAX_CLOCK_SKEW: i64 = 60;

/// Checks an instance and its routes. Sends no further requests once the instance has rejected the credentials.
pub async fn check(run: &mut CheckRun<'_>, context: &CheckContext<'_>, instance: &Instance) {
    let config = context.config;
    let sinks: Vec<&Sink> = config.sinks.iter().filter(|s| s.instance.name == instance.name).collect();
    let sources: Vec<&Source> = config.sources.iter().filter(|s| s.instance.name == instance.name).collect();
    let (table, state) = match (sinks.first(), sources.first()) {
        (Some(sink), _) => (sink.table.as_str(), sink.settings.states.column.as_str()),
        (None, Some(source)) => (source.table.as_str(), "state"),
        (None, None) => ("incident", "state"),
    };
    let id = |check: &str| format!("instance.{}.{check}", instance.name);
    run.start(&format!("instance {}", instance.name));
    let logged_in = match (context.client)(instance, table, state) {
        Ok(client) => check_login(run, instance, &client).await,
        Err(reason) => {
            run.record(id("client"), "the settings are valid", Verdict::fail(reason, "correct the instance's settings"))
        }
    };
    let mut credentials_rejected = !logged_in;
    for sink in sinks {
        let name = format!("sink.{}", sink.name);
        let state_column = &sink.settings.states.column;
        let client = client(run, context, &name, instance, &sink.table, state_column, credentials_rejected);
        let Some(client) = client else { continue };
        credentials_rejected = !check_sink(run, context, sink, client).await;
    }
    for source in sources {
        let name = format!("source.{}", source.name);
        let client = client(run, context, &name, instance, &source.table, "state", credentials_rejected);
        let Some(client) = client else { continue };
        credentials_rejected = !check_source(run, source, client).await;
    }
}

/// A client of a route's table; `None` if the settings are invalid or the instance has rejected the credentials.
fn client(
    run: &mut CheckRun<'_>,
    context: &CheckContext<'_>,
    name: &str,
    instance: &Instance,
    table: &str,
    state: &str,
    credentials_rejected: bool,
) -> Option<Client> {
    let title = format!("table {table} of instance {}", instance.name);
    if credentials_rejected {
        let reason = format!("instance {} is not usable; no further requests are sent to it", instance.name);
        run.record(format!("{name}.table"), title, Verdict::skipped(reason));
        return None;
    }
    match (context.client)(instance, table, state) {
        Ok(client) => Some(client),
        Err(reason) => {
            run.record(format!("{name}.table"), title, Verdict::fail(reason, "correct the route's settings"));
            None
        }
    }
}

/// Checks a sink; returns false if no further requests may be sent to the instance.
async fn check_sink(run: &mut CheckRun<'_>, context: &CheckContext<'_>, sink: &Sink, client: Client) -> bool {
    run.start(&format!("sink {}: table {}", sink.name, sink.table));
    let client = match route_client(sink, client) {
        Ok(client) => client,
        Err(reason) => {
            let title = format!("table {} can be written", sink.table);
            run.record(format!("sink.{}.staging", sink.name), title, Verdict::fail(reason, "correct `import_set`"));
            return true;
        }
    };
    if client.connection().events.is_some() {
        let name = format!("sink.{}", sink.name);
        let route_table = table::RouteTable { name, table: &sink.table, client: &client };
        return events::check(run, &route_table, sink, context.options.write_probe).await;
    }
    let mut additional = vec![sink.settings.states.column.clone(), "correlation_display".into()];
    additional.extend(sink.mapping.columns().iter().map(ToString::to_string));
    let route_table = table::RouteTable { name: format!("sink.{}", sink.name), table: &sink.table, client: &client };
    let sample = match table::read(run, &route_table, &additional, true).await {
        Ok(sample) => sample,
        Err(failure) => return failure.class != FailureClass::Unauthorized,
    };
    table::times(run, &route_table, &sample).await;
    table::correlation(run, &route_table, &sample).await;
    match &client.connection().import_set {
        None => table::write(run, &route_table).await,
        Some(import) => staging::check(run, &route_table, sink, import).await,
    }
    if matches!(sink.write, Write::Batch { .. }) {
        table::batch(run, &route_table).await;
    }
    journal::check(run, &route_table, journal::Reader::Sink).await;
    choices::check(run, &route_table, sink).await;
    if context.options.write_probe {
        run.start(&format!("sink {}: a test ticket", sink.name));
        probe::check(run, &route_table, sink).await;
    }
    true
}

/// A client that writes in the same way as the route.
fn route_client(sink: &Sink, client: Client) -> Result<Client, String> {
    if matches!(sink.write, Write::Table | Write::Batch { .. }) {
        return Ok(client);
    }
    let mut connection = client.connection().clone();
    apply_write_method(&mut connection, &sink.write);
    Client::new(connection, clock::mono).map_err(|error| error.to_string())
}

/// Configures a connection for a route's write method. The checks and the routes share it, so that they cannot differ.
pub fn apply_write_method(connection: &mut Connection, write: &Write) {
    match write {
        Write::Table | Write::Batch { .. } => {}
        Write::ImportSet { staging, prefix, coalesce } => {
            connection.import_set =
                Some(ImportSet { staging: staging.clone(), prefix: prefix.clone(), coalesce: coalesce.clone() });
        }
        Write::Event { source, class, .. } => {
            connection.correlation_column = "message_key".into();
            connection.events = Some(Events { source: source.clone(), class: class.clone() });
        }
    }
}

/// Checks a source; returns false if no further requests may be sent to the instance.
async fn check_source(run: &mut CheckRun<'_>, source: &Source, client: Client) -> bool {
    run.start(&format!("source {}: table {}", source.name, source.table));
    let name = format!("source.{}", source.name);
    let route_table = table::RouteTable { name, table: &source.table, client: &client };
    let sample = match table::read(run, &route_table, &source.fields, false).await {
        Ok(sample) => sample,
        Err(failure) => return failure.class != FailureClass::Unauthorized,
    };
    table::times(run, &route_table, &sample).await;
    if source.journal {
        journal::check(run, &route_table, journal::Reader::Source).await;
    }
    true
}

/// Checks the first request; returns false if the instance is not usable.
async fn check_login(run: &mut CheckRun<'_>, instance: &Instance, client: &Client) -> bool {
    let id = |check: &str| format!("instance.{}.{check}", instance.name);
    let (reach_title, login_title) = ("the instance is reachable", format!("user {} logs in", instance.auth.user()));
    let before = clock::unix();
    let login = match login::log_in(client).await {
        Ok(login) => login,
        Err(failure) if is_credential_rejection(&failure) => {
            run.record(id("reach"), reach_title, reach_verdict(instance));
            return run.record(id("login"), login_title, Verdict::failed(&failure));
        }
        // The credentials work but the user may not read sys_user: a finding about the user only.
        Err(failure) if failure.class == FailureClass::Rejected => {
            run.record(id("reach"), reach_title, reach_verdict(instance));
            run.record(id("login"), login_title, Verdict::pass("the credentials work"));
            let (detail, _) = describe(&failure);
            let remedy = "let the bridge's user read its own record in sys_user, so that its time zone can be checked";
            run.record(id("user"), "the user's own record", Verdict::warn(detail, remedy));
            return true;
        }
        Err(failure) => {
            run.record(id("reach"), reach_title, Verdict::failed(&failure));
            return run.record(id("login"), login_title, Verdict::skipped("the instance is not reachable"));
        }
    };
    let after = clock::unix();
    run.record(id("reach"), reach_title, reach_verdict(instance));
    run.record(id("login"), login_title, Verdict::pass("the credentials work (tried once)"));
    run.record(id("clock"), "the clocks of instance and host agree", clock_verdict(&login, before, after));
    run.record(id("user"), "the user's time zone", time_zone_verdict(instance, &login));
    true
}

/// Whether the instance or its token endpoint rejected the credentials.
fn is_credential_rejection(failure: &Failure) -> bool {
    failure.class == FailureClass::Unauthorized || failure.code == "token_rejected"
}

fn reach_verdict(instance: &Instance) -> Verdict {
    if instance.url.starts_with("https://") {
        Verdict::pass(format!("{} over TLS, certificate verified", instance.url))
    } else {
        let detail = format!("{} without TLS: the credentials are sent in clear text", instance.url);
        Verdict::warn(detail, "use https:// except for a simulator")
    }
}

/// Compares the clocks. The instance read its clock between `before` and `after` (milliseconds) and shows whole
/// seconds.
fn clock_verdict(login: &Login, before: i64, after: i64) -> Verdict {
    let Some(date) = login.date else {
        let remedy = "let the proxy forward the Date header: the source's cursor depends on it";
        return Verdict::warn("the instance's response has no Date header", remedy);
    };
    let ahead = date - after.div_euclid(1000);
    let behind = before.div_euclid(1000) - (date + 1);
    let skew = if ahead > 0 { ahead } else { -behind.max(0) };
    if skew.abs() <= MAX_CLOCK_SKEW {
        return Verdict::pass(format!("{} s apart", skew.abs()));
    }
    let which = if skew > 0 { "ahead of" } else { "behind" };
    let detail = format!(
        "the instance is {} s {which} this machine; delivery does not depend on it, but times in logs, alerts and \
         tickets disagree, and the reopen window is off by the same amount",
        skew.abs()
    );
    Verdict::warn(detail, "synchronize this machine's clock by NTP, or ask the instance's operators")
}

fn time_zone_verdict(instance: &Instance, login: &Login) -> Verdict {
    let Some(user) = &login.user else {
        let detail = format!("sys_user shows no record of {} to this user", instance.auth.user());
        let remedy = "check the user name (the `user` setting; the bridge recognizes its own changes by it), and let \
                      the user read its own record in sys_user";
        return Verdict::warn(detail, remedy);
    };
    match user.time_zone.as_str() {
        "GMT" | "UTC" | "Etc/UTC" | "Etc/GMT" | "Universal" | "Zulu" => Verdict::pass(user.time_zone.clone()),
        "" => Verdict::pass(
            "no time zone of its own, so the instance's default applies; the bridge sends and reads UTC, and only \
             `javascript:` dates in a source's filter depend on a time zone",
        ),
        zone => Verdict::warn(
            format!(
                "{zone}: the bridge sends and reads UTC, but `javascript:` dates in a source's filter use this zone"
            ),
            "set the integration user's time zone to GMT",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Outcome;

    #[test]
    fn clocks_agree_within_the_duration_of_the_request_and_a_second() {
        let at = |date| clock_verdict(&Login { date: Some(date), user: None }, 1_000_000, 1_002_500);
        for date in [1_000, 1_001, 1_002, 1_060, 940] {
            assert_eq!(at(date).outcome, Outcome::Pass, "{date}");
        }
        assert!(at(1_100).detail.contains("98 s ahead"), "{}", at(1_100).detail);
        assert!(at(900).detail.contains("99 s behind"), "{}", at(900).detail);
        assert_eq!(clock_verdict(&Login::default(), 0, 0).outcome, Outcome::Warn);
    }
}
