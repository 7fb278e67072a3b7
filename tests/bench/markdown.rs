//! The report as a page of Markdown, written from its figures alone. Every figure that has a physical limit is shown
//! with its multiple of the limit. The page names the systems that were not run, and lists every figure by which
//! another system is better than nowbridge, without a selection by hand.

use std::fmt::Write as _;

use crate::results::{Measurement, Report, ScenarioResult, SystemResult};
use crate::scenarios::{CONCURRENCY, Limits, Scenario};
use crate::svg::short;

/// Returns the page's text; `files` are the charts next to it.
pub fn write(report: &Report, files: &[(String, String)]) -> String {
    let mut page = String::new();
    write_introduction(&mut page, report);
    let exists = |name: &str| files.iter().any(|(file, _)| file == name);
    let write_chart = |page: &mut String, name: &str, description: &str| {
        if exists(name) {
            let _ = writeln!(page, "![{description}]({name})\n");
        }
    };
    write_chart(&mut page, "errors.svg", "Alerts with a wrong ticket at the end, by scenario and system");
    write_chart(&mut page, "critical.svg", "Time until the ticket of a critical alert exists, by scenario and system");
    for scenario in Scenario::all() {
        let Some(result) = report.scenarios.iter().find(|result| result.scenario == scenario.name) else { continue };
        let _ = writeln!(page, "## {}\n\n{}\n", capitalized(scenario.name), scenario.about);
        write_scenario(&mut page, result, &scenario);
        write_chart(&mut page, &format!("outdated-{}.svg", scenario.name), "Outdated tickets over time");
    }
    if !report.scenarios.is_empty() {
        let _ = writeln!(page, "## Cost\n");
        write_chart(&mut page, "requests.svg", "Requests to ServiceNow per event, by scenario and system");
        write_chart(&mut page, "cpu.svg", "Processor time per 1,000 events, by scenario and system");
        write_better_figures(&mut page, report);
    }
    if !report.measurements.is_empty() {
        write_measurements(&mut page, &report.measurements);
        write_chart(&mut page, "throughput.svg", "Throughput and drain time in relation to the limit");
    }
    write_instructions(&mut page);
    page
}

fn write_introduction(page: &mut String, report: &Report) {
    let _ = writeln!(
        page,
        "# Fault benchmark\n\n\
         This benchmark compares the tickets that nowbridge, a Python script and Bento write when alerts flap, alerts \
         storm, responses are lost and consumers are killed. One command runs it and writes this page with its charts:\n\n\
         ```sh\ncargo bench --bench delivery -- report\n```\n\n\
         Run on {}. All systems got the same events at the same time, each from its own topic (4 partitions, keyed by \
         alert) and for its own simulated ServiceNow instance, so they shared the machine. All consumers have the same \
         session timeout (6 s).\n",
        report.day
    );
    let _ = writeln!(
        page,
        "- nowbridge and Bento may send {CONCURRENCY} concurrent requests; the script sends one at a time.\n\
         - The instance is a simulator. A real instance is slower, and its response times vary more.\n\
         - A ticket counts from the time at which the instance has committed it, which is within its request.\n\
         - In the scenario with faults, nowbridge is configured with `request_deadline: 5s` and `max_transaction_time: \
         5s` (defaults: 70 s and 60 s). It does not write to a ticket whose last write is ambiguous until that write can \
         no longer be committed, and waits again if it is killed meanwhile. This is the price for creating no \
         duplicates; with the defaults, such a ticket waits longer.\n\
         - The oracle (`tests/it/crash/oracle.rs`) compares every row and every note in it with a reference model of the \
         events. It does not know which system wrote them.\n"
    );
    for line in &report.machine {
        let _ = writeln!(page, "- {line}");
    }
    let _ = writeln!(page, "\n| system | versions |\n|---|---|");
    for system in &report.systems {
        let versions = match (&system.versions, &system.not_run) {
            (Some(versions), _) => versions.clone(),
            (None, reason) => format!("**not run**: {}", reason.as_deref().unwrap_or("not selected")),
        };
        let _ = writeln!(page, "| {} | {versions} |", system.title);
    }
    let _ = writeln!(
        page,
        "\n[`script.py`](../../tests/bench/baselines/script.py) is a typical script: it processes one event after the \
         other, looks the ticket up, creates or updates it, commits, and retries on 429 and 5xx. The Bento configuration \
         ([`bento.yaml`](../../tests/bench/baselines/bento.yaml), and with a cache of tickets in memory \
         [`bento-cached.yaml`](../../tests/bench/baselines/bento-cached.yaml)) is an expert's: it folds the events of a \
         key within a batch, processes one batch per partition at a time, retries look-up and write together, waits for \
         `Retry-After`, and limits its own rate to the quota.\n\n\
         Numbers in parentheses are multiples of the physical limit.\n"
    );
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A value with its multiple of the limit, or `none`.
fn multiple(value: Option<f64>, limit: f64, unit: &str, none: &str) -> String {
    value.map_or(none.to_owned(), |value| format!("{}{unit} ({} ×)", short(value), short(value / limit)))
}

fn write_scenario(page: &mut String, scenario_result: &ScenarioResult, scenario: &Scenario) {
    let limits: Limits = scenario.limits();
    let results = &scenario_result.results;
    let row = |page: &mut String, name: &str, limit: &str, cell: &dyn Fn(&SystemResult) -> String| {
        let cells: Vec<String> = results.iter().map(cell).collect();
        let _ = writeln!(page, "| {name} | {limit} | {} |", cells.join(" | "));
    };
    row(page, "", "limit", &|result| result.title.clone());
    let _ = writeln!(page, "|---|---:|{}", "---:|".repeat(results.len()));
    let Some(first) = results.first() else { return };
    for (at, (name, _)) in first.errors_by_kind().into_iter().enumerate() {
        row(page, name, "0", &|result| result.errors_by_kind()[at].1.to_string());
    }
    let wrong = format!("alerts with any of these errors, of {}", first.tickets);
    row(page, &wrong, "0", &|result| result.errors.alerts.to_string());
    row(page, "writes out of order", "0", &|result| result.writes_out_of_order.to_string());
    let correct = format!("{} s: {}", short(limits.correct_after), limits.correct_reason);
    let timeout = format!("not within {} s", scenario_result.timeout);
    row(page, "time from the last event until all tickets are correct", &correct, &|result| {
        multiple(result.correct_after, limits.correct_after, " s", &timeout)
    });
    let latency = format!("{} s: within one request", short(limits.critical_latency));
    for (name, quantile) in [("median", 0.5), ("99 %", 0.99), ("maximum", 1.0)] {
        let name = format!("time until the ticket of a critical alert exists, {name}");
        row(page, &name, &latency, &|result| {
            multiple(result.critical_latency(quantile), limits.critical_latency, " s", "never")
        });
    }
    let alerts = first.critical_latencies.len() + first.critical_without_ticket;
    let without = format!("critical alerts without a ticket, of {alerts}");
    row(page, &without, "0", &|result| result.critical_without_ticket.to_string());
    let requests = format!("{}: {}", short(limits.requests_per_event), limits.requests_reason);
    row(page, "requests per event", &requests, &|result| {
        multiple(Some(result.requests_per_event()), limits.requests_per_event, "", "")
    });
    row(page, "requests rejected with 429", "0", &|result| result.throttled_requests.to_string());
    if !scenario.kills.is_empty() {
        row(page, "injected faults", "", &|result| result.faults.to_string());
    }
    if results.iter().any(|result| result.exits > 0) {
        row(page, "exits and restarts", "0", &|result| result.exits.to_string());
    }
    row(page, "CPU ms per 1,000 events", "", &|result| short(result.cpu_ms_per_1000_events.round()));
    row(page, "memory idle, peak (MB)", "", &|result| format!("{:.0}, {:.0}", result.idle_mb, result.peak_mb));
    let saturated = if scenario_result.busy_ratio > 0.9 {
        ", so times and processor time of all systems are worse than on an idle machine"
    } else {
        ""
    };
    let (events, busy) = (first.events, 100.0 * scenario_result.busy_ratio);
    let _ = writeln!(page, "\n{events} events. {busy:.0} % of the machine's processor time was busy{saturated}.\n");
}

/// A figure of which less is better; `None` is worse than any number.
type LessIsBetter<'a> = (&'a str, &'a dyn Fn(&SystemResult) -> Option<f64>);

/// Lists the figures by which another system is better than nowbridge by more than 5 %.
#[expect(clippy::cast_precision_loss, reason = "counts of minutes")]
fn write_better_figures(page: &mut String, report: &Report) {
    let figures: [LessIsBetter<'_>; 8] = [
        ("alerts with errors", &|result| Some(result.errors.alerts as f64)),
        ("seconds until all tickets are correct", &|result| result.correct_after),
        ("seconds until the ticket of a critical alert exists, median", &|result| result.critical_latency(0.5)),
        ("seconds until the ticket of a critical alert exists, maximum", &|result| result.critical_latency(1.0)),
        ("requests per event", &|result| Some(result.requests_per_event())),
        ("requests rejected with 429", &|result| Some(result.throttled_requests as f64)),
        ("CPU ms per 1,000 events", &|result| Some(result.cpu_ms_per_1000_events)),
        ("peak memory, MB", &|result| Some(result.peak_mb)),
    ];
    let mut lines = Vec::new();
    for scenario in &report.scenarios {
        let Some(ours) = scenario.results.iter().find(|result| result.system == "nowbridge") else { continue };
        for other in scenario.results.iter().filter(|result| result.system != "nowbridge") {
            for (name, figure) in &figures {
                let (our_value, other_value) = (figure(ours), figure(other));
                let Some(value) = other_value.filter(|value| our_value.is_none_or(|ours| *value < 0.95 * ours)) else {
                    continue;
                };
                let our_value = our_value.map_or("never".into(), short);
                // Low cost is no advantage of a system that did not do its work.
                let errors = if other.errors.alerts > ours.errors.alerts {
                    format!(" (with {} of {} alerts wrong)", other.errors.alerts, other.tickets)
                } else {
                    String::new()
                };
                lines.push(format!(
                    "- {}: {}: {name} {}, nowbridge {our_value}{errors}",
                    scenario.scenario,
                    other.title,
                    short(value)
                ));
            }
        }
    }
    let _ = writeln!(page, "### Figures by which another system is better than nowbridge\n");
    let list = if lines.is_empty() { "None in this run.".to_owned() } else { lines.join("\n") };
    let _ = writeln!(page, "{list}\n");
}

fn write_measurements(page: &mut String, measurements: &[Measurement]) {
    let _ = writeln!(
        page,
        "## Throughput\n\nnowbridge alone.\n\n\
         - Ordered: changes of 1,000 alerts in one partition, published at three times the rate that an instance with 150 \
         ms per request allows with 4, 16 or 64 concurrent requests.\n\
         - Creates: 60,000 new alerts, on an instance without latency.\n\
         - Steady: 200 events per second.\n\
         - Storm: as above, without notes.\n\
         - Million: a ledger with 1,000,000 keys.\n\
         - Idle memory is measured 15 s after the start, which needs more.\n\n\
         | | value | limit or target | of limit |\n|---|---:|---:|---:|"
    );
    for Measurement { name, value, limit, percent, .. } in measurements {
        let _ = writeln!(page, "| {name} | {value} | {limit} | {percent} |");
    }
    let _ = writeln!(page);
}

fn write_instructions(page: &mut String) {
    let _ = writeln!(
        page,
        "## Running the benchmark\n\n\
         `cargo bench --bench delivery -- report` needs a real Kafka (a JDK and Maven, Docker with `--features docker`, or \
         `NOWBRIDGE_TEST_KAFKA=host:port`). Python 3 and Go run the other systems; the first run downloads their \
         packages. The page names the systems that could not be run.\n\n\
         Names select parts: scenarios (`calm`, `flap`, `storm`, `faults`, and `cases` for the throughput) and systems \
         (`nowbridge`, `script`, `bento`, `bento-cached`), for example `cargo bench --bench delivery -- report storm \
         nowbridge bento`. The page of selected parts is written below `target/benchmark`.\n\n\
         `cargo bench --bench delivery -- draw` writes page and charts again from [`figures.json`](figures.json), which \
         contains all figures of this run, second by second."
    );
}
