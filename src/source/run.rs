//! Runs one source route while this process owns it: polls, publishes, waits, and starts a new session after errors.
//!
//! A *session* is a publisher and its loaded change detector. An error of a transaction ends the session, and the
//! next session reads from the topics what was committed. An error of the instance does not end it: the request is
//! repeated after a delay. Only the cancellation token stops a route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

use super::change_detection::{Batch, ChangeDetector, DetectionError, ListRequest, PollPage, PollStage};
use super::publish::{LoadedState, OpenError, Publisher, SourceTopics};
use super::rate_limit::PermitProvider;
use super::settings::Settings;
use super::status::{State, StatusHandle};
use crate::kafka::{KafkaOptions, TransactionError};
use crate::model::{Failure, FailureClass, RowVersion};
use crate::runtime::clock;
use crate::runtime::error_chain;
use crate::servicenow::{self, Auth, Client, RowVersions};

/// Interval of the checks whether rejected credentials have changed.
const CREDENTIALS_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Intervals, delays and limits of a route.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Minimum time between the ends of two polls.
    pub interval: Duration,
    /// Requests per second that the instance grants the bridge; `None` if unknown.
    pub requests_per_second: Option<f64>,
    /// The share of these requests that polling may use, above 0 and at most 1.
    pub quota_share: f64,
    /// First and longest delay between attempts.
    pub retry: (Duration, Duration),
    /// First and longest delay between attempts with rejected credentials: five failures in a row lock an account.
    pub auth_retry: (Duration, Duration),
    /// Limits a transaction, and each step of loading.
    pub transaction_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            requests_per_second: None,
            quota_share: 0.1,
            retry: (Duration::from_secs(1), Duration::from_secs(60)),
            auth_retry: (Duration::from_secs(60), Duration::from_secs(960)),
            transaction_timeout: Duration::from_secs(30),
        }
    }
}

/// A source route with everything it needs to run.
#[derive(Clone)]
pub struct SourceRoute {
    pub settings: Arc<Settings>,
    pub topics: SourceTopics,
    /// `<prefix>.<route>`: fences earlier owners.
    pub transactional_id: String,
    /// Name of a consumer group that the Kafka user may use for reads; the reads do not join it.
    pub group: String,
    pub timing: Timing,
    pub client: Client,
    /// Returns new credentials if the secret has changed. Called while the instance rejects the current ones.
    pub new_credentials: Arc<dyn Fn() -> Option<Auth> + Send + Sync>,
    /// Passes on to the sinks of this process which versions the polls saw.
    pub row_versions: RowVersions,
    /// Grants the permits for requests to the instance.
    pub permits: Arc<dyn PermitProvider>,
    /// The route reports its status here.
    pub status: StatusHandle,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("can't load the route")]
    Open(#[from] OpenError),
    #[error("can't continue from the stored checkpoint")]
    ChangeDetector(#[from] DetectionError),
    #[error("can't publish")]
    Publish(#[from] TransactionError),
}

/// Runs the route until the token is canceled. Cancellation takes effect between two steps: a transaction that is in
/// progress is finished first, which `timing.transaction_timeout` limits. `owned` returns whether this process still
/// owns the route; it is called before each session and each transaction.
pub async fn run_owned(
    route: &SourceRoute,
    options: &KafkaOptions,
    owned: &(dyn Fn() -> bool + Send + Sync),
    stop: &CancellationToken,
) {
    let mut delays = Backoff::new(route.timing.retry);
    while !stop.is_cancelled() && owned() {
        let polls = route.status.get().stats.polls;
        match session(route, options, owned, stop).await {
            Ok(()) => break,
            Err(error) => {
                let reason = error_chain::chain(&error);
                tracing::warn!(route = %route.settings.route, reason, "source session failed, restarting");
                if route.status.get().stats.polls > polls {
                    delays.reset();
                }
                wait(route, reason, delays.next(), stop).await;
            }
        }
    }
    route.status.set_state(if stop.is_cancelled() { State::Stopped { reason: String::new() } } else { State::Standby });
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
    let (publisher, loaded) =
        Publisher::open(options, settings, topics, id, group, route.timing.transaction_timeout).await?;
    let LoadedState { published_state, checkpoint } = loaded;
    tracing::info!(
        route = %route.settings.route, rows = published_state.len(), seq = checkpoint.as_ref().map_or(0, |c| c.seq), "source state loaded"
    );
    let mut detector = ChangeDetector::new((*route.settings).clone(), published_state, checkpoint)?;
    loop {
        let before = route.status.get().stats.requests;
        detector.start_poll();
        while let Some(request) = detector.next_request() {
            let Some(batch) = fetch_page(route, &mut detector, &request, stop).await else { return Ok(()) };
            if !owned() {
                return Ok(());
            }
            publish(route, &publisher, &batch).await?;
            update_status(route, &detector, &batch);
        }
        let cost = route.status.get().stats.requests - before;
        let poll_delay = poll_delay(&route.timing, cost);
        route.status.update(|s| {
            s.state = State::Polling;
            s.stats.polls += 1;
            s.effective_interval = (poll_delay > route.timing.interval).then_some(poll_delay.as_secs());
        });
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(poll_delay) => {}
        }
    }
}

/// Sends the request until there is a usable response. `None` if the route must stop. If a stage is skipped, the
/// batch is empty.
async fn fetch_page(
    route: &SourceRoute,
    detector: &mut ChangeDetector,
    request: &ListRequest,
    stop: &CancellationToken,
) -> Option<Batch> {
    let mut delays = Backoff::new(route.timing.retry);
    let mut auth = Backoff::new(route.timing.auth_retry);
    loop {
        let response = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            response = send_request(route, request) => response,
        };
        let mut unauthorized = false;
        let (reason, delay) = match response {
            Ok(page) => match detector.process_page(&page) {
                Ok(batch) => {
                    route.row_versions.pass_on(versions_in(request, &page));
                    route.status.update(|s| s.instance_now = page.now.or(s.instance_now));
                    return Some(batch);
                }
                Err(error) => (format!("{}: {error}", request.table), delays.next()),
            },
            Err(failure) => {
                let reason = format!("{} of {}: {}", failure.code, request.table, failure.message);
                match failure.class {
                    FailureClass::Unauthorized => {
                        unauthorized = true;
                        (reason, auth.next())
                    }
                    FailureClass::Throttled { retry_after } => {
                        (reason, retry_after.map_or_else(|| delays.next(), Duration::from_millis))
                    }
                    FailureClass::Rejected | FailureClass::Gone | FailureClass::Conflict
                        if detector.skip_stage(reason.clone()) =>
                    {
                        route.status.update(|s| s.stats.failures += 1);
                        return Some(Batch::default());
                    }
                    _ => (reason, delays.next()),
                }
            }
        };
        route.status.update(|s| s.stats.failures += 1);
        if unauthorized {
            wait_for_credentials(route, reason, delay, stop).await;
        } else {
            wait(route, reason, delay, stop).await;
        }
    }
}

async fn send_request(route: &SourceRoute, request: &ListRequest) -> Result<PollPage, Failure> {
    let permit = route.permits.acquire(&request.table).await;
    route.status.update(|s| s.stats.requests += 1);
    let mut query = vec![
        ("sysparm_fields", request.columns.clone()),
        ("sysparm_limit", request.limit.to_string()),
        ("sysparm_display_value", "false".to_string()),
        ("sysparm_exclude_reference_link", "true".to_string()),
    ];
    if request.stage != PollStage::Clock {
        query.push(("sysparm_query", request.query.clone()));
        query.push(("sysparm_offset", request.offset.to_string()));
    }
    let sent = clock::mono();
    let page = route.client.get(permit.slot(), &format!("/api/now/table/{}", request.table), &query).await;
    route.permits.record(&request.table, &route.client.take_feedback(permit.slot()));
    let page = page?;
    // The `Date` header is written after the query ran. The duration of the request, plus one second because the
    // header and the timestamps are cut to seconds, gives a time before the query.
    let elapsed_seconds = i64::try_from(clock::mono().saturating_sub(sent).div_ceil(1000)).unwrap_or(i64::MAX);
    Ok(to_poll_page(page, elapsed_seconds + 1))
}

/// The versions that a page shows. A deleted row has the highest one.
fn versions_in(request: &ListRequest, page: &PollPage) -> Vec<RowVersion> {
    let version = |row: &BTreeMap<String, String>| {
        let (sys_id, mod_count) = match request.stage {
            PollStage::Rows | PollStage::MissingRows => (row.get("sys_id")?, row.get("sys_mod_count")?.parse().ok()?),
            PollStage::Deletes => (row.get("documentkey")?, u64::MAX),
            PollStage::Clock | PollStage::Journal => return None,
        };
        Some(RowVersion { sys_id: sys_id.as_str().into(), mod_count })
    };
    page.rows.iter().filter_map(version).collect()
}

fn to_poll_page(page: servicenow::RowPage, elapsed_seconds: i64) -> PollPage {
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        // A reference, if the instance returns links in spite of the parameter.
        serde_json::Value::Object(map) => map.get("value").and_then(|v| v.as_str()).unwrap_or_default().to_string(),
        other => other.to_string(),
    };
    PollPage {
        rows: page.rows.into_iter().map(|row| row.into_iter().map(|(k, v)| (k, text(v))).collect()).collect(),
        total: page.total,
        now: page.date.map(|date| date.saturating_sub(elapsed_seconds)),
    }
}

async fn publish(route: &SourceRoute, publisher: &Publisher, batch: &Batch) -> Result<(), TransactionError> {
    if batch.checkpoint.is_none() {
        return Ok(());
    }
    let result = publisher.publish(batch).await;
    route.status.update(|s| match result {
        Ok(()) => s.stats.transactions += 1,
        Err(_) => s.stats.failed_transactions += 1,
    });
    result
}

fn update_status(route: &SourceRoute, detector: &ChangeDetector, batch: &Batch) {
    route.status.update(|s| {
        s.state = State::Polling;
        s.cursor = detector.cursor();
        s.rows = detector.known_rows();
        s.findings = detector.findings().values().cloned().collect();
        s.stats.read += batch.counts.read;
        s.stats.already_seen += batch.counts.already_seen;
        s.stats.own_changes_skipped += batch.counts.own_changes_skipped;
        s.stats.versions_skipped += batch.counts.versions_skipped;
        s.stats.orphaned_entries += batch.counts.orphaned_entries;
        s.stats.published += batch.changes.len() as u64;
    });
}

/// The delay after a poll of so many requests that keeps polling within its share of the quota.
fn poll_delay(timing: &Timing, requests: u64) -> Duration {
    let Some(requests_per_second) = timing.requests_per_second.filter(|q| *q > 0.0) else { return timing.interval };
    #[expect(clippy::cast_precision_loss, reason = "a poll has far fewer than 2^52 requests")]
    let min_delay = requests as f64 / (requests_per_second * timing.quota_share.clamp(0.001, 1.0));
    timing.interval.max(Duration::try_from_secs_f64(min_delay).unwrap_or(timing.interval))
}

async fn wait(route: &SourceRoute, reason: String, delay: Duration, stop: &CancellationToken) {
    let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    route.status.set_state(State::Waiting { reason, delay_ms: ms });
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(delay) => {}
    }
}

/// Waits for the delay, or until there are new credentials, from their file or from another route.
async fn wait_for_credentials(route: &SourceRoute, reason: String, delay: Duration, stop: &CancellationToken) {
    let known = route.client.credentials_generation();
    let changed = async {
        while route.client.credentials_generation() == known {
            tokio::time::sleep(CREDENTIALS_CHECK_INTERVAL).await;
            let Some(auth) = (route.new_credentials)() else { continue };
            if let Err(error) = route.client.replace_credentials(auth) {
                let error = error_chain::chain(&error);
                tracing::error!(route = %route.settings.route, error, "can't use the new credentials");
            }
        }
    };
    tokio::select! {
        () = wait(route, reason, delay, stop) => {}
        () = changed => tracing::info!(route = %route.settings.route, "credentials changed, retrying"),
    }
}

/// Increasing delays with jitter.
struct Backoff {
    builder: ExponentialBuilder,
    max_delay: Duration,
    remaining: backon::ExponentialBackoff,
}

impl Backoff {
    fn new((first, max_delay): (Duration, Duration)) -> Self {
        let builder = ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(max_delay)
            .without_max_times()
            .with_jitter();
        Self { remaining: builder.build(), builder, max_delay }
    }

    fn next(&mut self) -> Duration {
        self.remaining.next().unwrap_or(self.max_delay)
    }

    fn reset(&mut self) {
        self.remaining = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_stays_within_its_share_of_the_quota() {
        let timing = Timing { requests_per_second: Some(2.0), ..Timing::default() };
        assert_eq!(poll_delay(&timing, 1), Duration::from_secs(5), "one request in 5 s is a tenth of two a second");
        assert_eq!(poll_delay(&timing, 10), Duration::from_secs(50));
        assert_eq!(poll_delay(&Timing::default(), 10_000), Timing::default().interval);
    }

    #[test]
    fn values_become_text_and_the_clock_is_before_the_query() {
        let row = serde_json::json!({"state": "2", "caller_id": {"link": "x", "value": "abc"}, "n": null});
        let rows = vec![row.as_object().cloned().unwrap_or_default()];
        let page = to_poll_page(servicenow::RowPage { rows, total: None, date: Some(1_000) }, 3);
        assert_eq!(page.now, Some(997));
        assert_eq!(page.rows[0]["caller_id"], "abc");
        assert_eq!(page.rows[0]["n"], "");
    }
}
