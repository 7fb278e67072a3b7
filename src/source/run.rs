//! Runs one source route while this process owns it: polls, publishes, waits, and starts over where it must.
//!
//! A *session* is a publisher with its loaded feed. Whatever goes wrong with a transaction ends the session, and the
//! next one loads from the topics what really happened. What goes wrong with the instance does not: the same request
//! is made again after a delay. Nothing here ends a route for good but its token.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

use super::feed::{Ask, Batch, Feed, FeedError, PollPage, Subject};
use super::publish::{Loaded, OpenError, Publisher, SourceTopics};
use super::rate_limit::Gate;
use super::settings::Settings;
use super::status::{State, StatusHandle};
use crate::kafka::{KafkaOptions, TransactionError};
use crate::model::{Class, Failure};
use crate::runtime::clock;
use crate::runtime::error_chain;
use crate::servicenow::{self, Auth, Client};

/// Between two looks whether refused credentials have changed.
const CREDENTIALS_EVERY: Duration = Duration::from_secs(5);

/// Times of a route.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Between the ends of two polls, at least.
    pub interval: Duration,
    /// Requests a second that the instance grants the bridge, where that is known.
    pub quota: Option<f64>,
    /// The part of the quota that polling may use, above 0 and at most 1.
    pub share: f64,
    /// First and longest delay between tries.
    pub retry: (Duration, Duration),
    /// First and longest delay between tries with credentials that failed: five in a row lock an account.
    pub auth_retry: (Duration, Duration),
    /// Bounds a transaction, and each step of loading.
    pub transaction: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            quota: None,
            share: 0.1,
            retry: (Duration::from_secs(1), Duration::from_secs(60)),
            auth_retry: (Duration::from_secs(60), Duration::from_secs(960)),
            transaction: Duration::from_secs(30),
        }
    }
}

/// A source route with all it needs.
#[derive(Clone)]
pub struct SourceRoute {
    /// What to read and how to see it.
    pub settings: Arc<Settings>,
    /// Where it goes.
    pub topics: SourceTopics,
    /// `<prefix>.<route>`: fences.
    pub transactional_id: String,
    /// A consumer group's name that the user may use for plain reads.
    pub group: String,
    /// Times.
    pub timing: Timing,
    /// The instance.
    pub client: Client,
    /// Looks whether the secret has changed; asked while the instance refuses the present one.
    pub new_credentials: Arc<dyn Fn() -> Option<Auth> + Send + Sync>,
    /// The pace of the instance.
    pub gate: Arc<dyn Gate>,
    /// Where it tells what it does.
    pub status: StatusHandle,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("can't load the route")]
    Open(#[from] OpenError),
    #[error("can't go on from the stored checkpoint")]
    Feed(#[from] FeedError),
    #[error("can't publish")]
    Publish(#[from] TransactionError),
}

/// Runs the route until the token is cancelled. Cancelling is answered between two steps: a transaction under way is
/// finished first, which `timing.transaction` bounds. `owned` tells whether the route is still this process's; it is
/// asked before each session and each transaction.
pub async fn run_owned(
    route: &SourceRoute,
    options: &KafkaOptions,
    owned: &(dyn Fn() -> bool + Send + Sync),
    stop: &CancellationToken,
) {
    let mut delays = Delays::new(route.timing.retry);
    while !stop.is_cancelled() && owned() {
        let polls = route.status.snapshot().stats.polls;
        match session(route, options, owned, stop).await {
            Ok(()) => break,
            Err(error) => {
                let reason = error_chain::chain(&error);
                tracing::warn!(route = %route.settings.route, reason, "source session ended; it starts over");
                if route.status.snapshot().stats.polls > polls {
                    delays.reset();
                }
                wait(route, reason, delays.next(), stop).await;
            }
        }
    }
    route.status.state(if stop.is_cancelled() { State::Stopped { reason: String::new() } } else { State::Standby });
}

async fn session(
    route: &SourceRoute,
    options: &KafkaOptions,
    owned: &(dyn Fn() -> bool + Send + Sync),
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    route.status.update(|s| {
        s.state = State::Starting;
        s.stats.starts += 1;
    });
    let settings = Arc::clone(&route.settings);
    let (topics, id, group) = (&route.topics, &route.transactional_id, &route.group);
    let (publisher, loaded) = Publisher::open(options, settings, topics, id, group, route.timing.transaction).await?;
    let Loaded { memory, checkpoint } = loaded;
    tracing::info!(
        route = %route.settings.route, rows = memory.len(), seq = checkpoint.as_ref().map_or(0, |c| c.seq), "source loaded"
    );
    let mut feed = Feed::new((*route.settings).clone(), memory, checkpoint)?;
    loop {
        let before = route.status.snapshot().stats.requests;
        feed.begin();
        while let Some(ask) = feed.ask() {
            let Some(batch) = answered(route, &mut feed, &ask, stop).await else { return Ok(()) };
            if !owned() {
                return Ok(());
            }
            publish(route, &publisher, &batch).await?;
            show(route, &feed, &batch);
        }
        let cost = route.status.snapshot().stats.requests - before;
        let pause = pause(&route.timing, cost);
        route.status.update(|s| {
            s.state = State::Polling;
            s.stats.polls += 1;
            s.stretched = (pause > route.timing.interval).then_some(pause.as_secs());
        });
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Asks until there is a usable answer; `None` where the route is to stop. An answer that leaves a subject out is an
/// empty batch.
async fn answered(route: &SourceRoute, feed: &mut Feed, ask: &Ask, stop: &CancellationToken) -> Option<Batch> {
    let mut delays = Delays::new(route.timing.retry);
    let mut auth = Delays::new(route.timing.auth_retry);
    loop {
        let got = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            got = fetch(route, ask) => got,
        };
        let mut refused = false;
        let (reason, delay) = match got {
            Ok(page) => match feed.digest(&page) {
                Ok(batch) => {
                    route.status.update(|s| s.instance_now = page.now.or(s.instance_now));
                    return Some(batch);
                }
                Err(error) => (format!("{}: {error}", ask.table), delays.next()),
            },
            Err(failure) => {
                let reason = format!("{} of {}: {}", failure.code, ask.table, failure.message);
                match failure.class {
                    Class::Unauthorised => {
                        refused = true;
                        (reason, auth.next())
                    }
                    Class::Throttled { retry_after } => {
                        (reason, retry_after.map_or_else(|| delays.next(), Duration::from_millis))
                    }
                    Class::Rejected | Class::Gone | Class::Conflict if feed.leave_out(reason.clone()) => {
                        route.status.update(|s| s.stats.failures += 1);
                        return Some(Batch::default());
                    }
                    _ => (reason, delays.next()),
                }
            }
        };
        route.status.update(|s| s.stats.failures += 1);
        if refused {
            wait_for_credentials(route, reason, delay, stop).await;
        } else {
            wait(route, reason, delay, stop).await;
        }
    }
}

async fn fetch(route: &SourceRoute, ask: &Ask) -> Result<PollPage, Failure> {
    let permit = route.gate.permit(&ask.table).await;
    route.status.update(|s| s.stats.requests += 1);
    let mut query = vec![
        ("sysparm_fields", ask.columns.clone()),
        ("sysparm_limit", ask.limit.to_string()),
        ("sysparm_display_value", "false".to_string()),
        ("sysparm_exclude_reference_link", "true".to_string()),
    ];
    if ask.subject != Subject::Clock {
        query.push(("sysparm_query", ask.query.clone()));
        query.push(("sysparm_offset", ask.offset.to_string()));
    }
    let sent = clock::mono();
    let page = route.client.get(permit.slot(), &format!("/api/now/table/{}", ask.table), &query).await;
    route.gate.record(&ask.table, &route.client.take_feedback(permit.slot()));
    let page = page?;
    // The Date header was written after the query ran; what the request took, and the second that the header and the
    // stamps are cut to, bring it back to before.
    let took = i64::try_from(clock::mono().saturating_sub(sent).div_ceil(1000)).unwrap_or(i64::MAX);
    Ok(plain(page, took + 1))
}

fn plain(page: servicenow::RowPage, took: i64) -> PollPage {
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        // A reference, where the instance shows links all the same.
        serde_json::Value::Object(map) => map.get("value").and_then(|v| v.as_str()).unwrap_or_default().to_string(),
        other => other.to_string(),
    };
    PollPage {
        rows: page.rows.into_iter().map(|row| row.into_iter().map(|(k, v)| (k, text(v))).collect()).collect(),
        total: page.total,
        now: page.date.map(|date| date.saturating_sub(took)),
    }
}

async fn publish(route: &SourceRoute, publisher: &Publisher, batch: &Batch) -> Result<(), TransactionError> {
    if batch.checkpoint.is_none() {
        return Ok(());
    }
    let done = publisher.publish(batch).await;
    route.status.update(|s| match done {
        Ok(()) => s.stats.transactions += 1,
        Err(_) => s.stats.failed_transactions += 1,
    });
    done
}

fn show(route: &SourceRoute, feed: &Feed, batch: &Batch) {
    route.status.update(|s| {
        s.state = State::Polling;
        s.cursor = feed.cursor();
        s.rows = feed.remembered();
        s.findings = feed.findings().values().cloned().collect();
        s.stats.read += batch.counts.read;
        s.stats.seen += batch.counts.seen;
        s.stats.echoes += batch.counts.echoes;
        s.stats.skipped += batch.counts.skipped;
        s.stats.orphans += batch.counts.orphans;
        s.stats.published += batch.changes.len() as u64;
    });
}

/// How long to pause after a poll of so many requests, so that polling stays within its share of the quota.
fn pause(timing: &Timing, requests: u64) -> Duration {
    let Some(quota) = timing.quota.filter(|q| *q > 0.0) else { return timing.interval };
    #[expect(clippy::cast_precision_loss, reason = "a poll has far fewer than 2^52 requests")]
    let least = requests as f64 / (quota * timing.share.clamp(0.001, 1.0));
    timing.interval.max(Duration::try_from_secs_f64(least).unwrap_or(timing.interval))
}

async fn wait(route: &SourceRoute, reason: String, delay: Duration, stop: &CancellationToken) {
    let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    route.status.state(State::Waiting { reason, delay: ms });
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(delay) => {}
    }
}

/// Waits; not so long where there are other credentials, from their file or because another route has brought them.
async fn wait_for_credentials(route: &SourceRoute, reason: String, delay: Duration, stop: &CancellationToken) {
    let known = route.client.credentials_generation();
    let changed = async {
        while route.client.credentials_generation() == known {
            tokio::time::sleep(CREDENTIALS_EVERY).await;
            let Some(auth) = (route.new_credentials)() else { continue };
            if let Err(error) = route.client.replace_credentials(auth) {
                let error = error_chain::chain(&error);
                tracing::error!(route = %route.settings.route, error, "can't use the new credentials");
            }
        }
    };
    tokio::select! {
        () = wait(route, reason, delay, stop) => {}
        () = changed => tracing::info!(route = %route.settings.route, "the credentials have changed; tries them"),
    }
}

/// Growing delays with jitter.
struct Delays {
    builder: ExponentialBuilder,
    most: Duration,
    left: backon::ExponentialBackoff,
}

impl Delays {
    fn new((first, most): (Duration, Duration)) -> Self {
        let builder =
            ExponentialBuilder::default().with_min_delay(first).with_max_delay(most).without_max_times().with_jitter();
        Self { left: builder.build(), builder, most }
    }

    fn next(&mut self) -> Duration {
        self.left.next().unwrap_or(self.most)
    }

    fn reset(&mut self) {
        self.left = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_stays_within_its_share_of_the_quota() {
        let timing = Timing { quota: Some(2.0), ..Timing::default() };
        assert_eq!(pause(&timing, 1), Duration::from_secs(5), "one request in 5 s is a tenth of two a second");
        assert_eq!(pause(&timing, 10), Duration::from_secs(50));
        assert_eq!(pause(&Timing::default(), 10_000), Timing::default().interval);
    }

    #[test]
    fn values_come_out_plain_and_the_clock_before_the_query() {
        let row = serde_json::json!({"state": "2", "caller_id": {"link": "x", "value": "abc"}, "n": null});
        let rows = vec![row.as_object().cloned().unwrap_or_default()];
        let page = plain(servicenow::RowPage { rows, total: None, date: Some(1_000) }, 3);
        assert_eq!(page.now, Some(997));
        assert_eq!(page.rows[0]["caller_id"], "abc");
        assert_eq!(page.rows[0]["n"], "");
    }
}
