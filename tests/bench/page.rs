//! The report as a page of Markdown, from the figures alone. Every figure that has a physical limit is told with its
//! multiple of it; what could not be run is named; and where another system is better than ours, the page says so by
//! itself, because no one picks the lines.

use std::fmt::Write as _;

use crate::outcome::{Case, Figures, Outcome, Round};
use crate::plot::short;
use crate::scenarios::{AT_ONCE, Limits, Scenario};

/// The page's text; `files` are the drawings beside it.
pub fn write(figures: &Figures, files: &[(String, String)]) -> String {
    let mut page = String::new();
    head(&mut page, figures);
    let drawn = |name: &str| files.iter().any(|(file, _)| file == name);
    let picture = |page: &mut String, name: &str, about: &str| {
        if drawn(name) {
            let _ = writeln!(page, "![{about}]({name})\n");
        }
    };
    picture(&mut page, "wrong.svg", "Alerts whose ticket is wrong in the end, by scenario and system");
    picture(&mut page, "critical.svg", "How long critical alerts wait for their ticket, by scenario and system");
    for scenario in Scenario::all() {
        let Some(round) = figures.rounds.iter().find(|round| round.scenario == scenario.name) else { continue };
        let _ = writeln!(page, "## {}\n\n{}\n", capital(scenario.name), scenario.about);
        table(&mut page, round, &scenario);
        picture(
            &mut page,
            &format!("lag-{}.svg", scenario.name),
            "Tickets that lag behind their alerts, second by second",
        );
    }
    if !figures.rounds.is_empty() {
        let _ = writeln!(page, "## What it costs\n");
        picture(&mut page, "requests.svg", "Requests to ServiceNow for an event, by scenario and system");
        picture(&mut page, "cpu.svg", "Processor time for 1,000 events, by scenario and system");
        better(&mut page, figures);
    }
    if !figures.cases.is_empty() {
        cases(&mut page, &figures.cases);
        picture(&mut page, "throughput.svg", "Throughput and drain as shares of the physical limit");
    }
    tail(&mut page);
    page
}

fn head(page: &mut String, figures: &Figures) {
    let _ = writeln!(
        page,
        "# Fault benchmark\n\n\
         What becomes of tickets when alerts flap and storm, answers are lost and consumers are killed: nowbridge beside \
         what people otherwise write. This page is made by one command, which runs all of it and draws the pictures:\n\n\
         ```sh\ncargo bench --bench delivery -- report\n```\n\n\
         Made on {}. The same events went to all systems in the same minutes, each with a topic of its own (4 partitions, \
         keyed by alert) and a simulated ServiceNow of its own; so they shared the machine, and none had it for itself. \
         The consumers have the same session timeout (6 s).\n",
        figures.day
    );
    let _ = writeln!(
        page,
        "nowbridge and Bento may make {AT_ONCE} requests at once, the script makes one. The instance is a simulator: a real \
         one is slower and less even. A ticket counts from the moment that the instance has it, which is somewhere within \
         its request. In the faults, nowbridge is told that a request and a lost write take 5 s at most; of a real instance \
         it supposes 70 and 60 s, and a ticket in doubt waits accordingly longer. It is not \
         written until nothing can strike any more, and the wait begins anew where the consumer is killed meanwhile: the \
         price of doubling none. The oracle compares every row \
         and every note in it with a reference model of the events (`tests/it/crash/oracle.rs`), and knows nothing of who \
         wrote them.\n"
    );
    for line in &figures.machine {
        let _ = writeln!(page, "- {line}");
    }
    let _ = writeln!(page, "\n| system | versions |\n|---|---|");
    for system in &figures.systems {
        let versions = match (&system.versions, &system.not_run) {
            (Some(versions), _) => versions.clone(),
            (None, why) => format!("**not run**: {}", why.as_deref().unwrap_or("not asked for")),
        };
        let _ = writeln!(page, "| {} | {versions} |", system.title);
    }
    let _ = writeln!(
        page,
        "\nThe script ([`script.py`](../../tests/bench/baselines/script.py)) is of the kind that people write: one event \
         after the other, look up, make or change, commit, and again on 429 and 5xx. Bento's configuration \
         ([`bento.yaml`](../../tests/bench/baselines/bento.yaml), and with a cache of tickets in memory \
         [`bento-cached.yaml`](../../tests/bench/baselines/bento-cached.yaml)) is an expert's: the events of a key folded \
         within a batch, one batch of a partition at a time, look-up and write tried again together, `Retry-After` slept \
         out, the client's own rate limit at the quota. Numbers in parentheses are multiples of the physical limit.\n"
    );
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn multiple(value: Option<f64>, limit: f64, unit: &str, none: &str) -> String {
    value.map_or(none.to_owned(), |value| format!("{}{unit} ({} ×)", short(value), short(value / limit)))
}

fn table(page: &mut String, round: &Round, scenario: &Scenario) {
    let limits: Limits = scenario.limits();
    let row = |page: &mut String, what: &str, limit: &str, cell: &dyn Fn(&Outcome) -> String| {
        let cells: Vec<String> = round.outcomes.iter().map(cell).collect();
        let _ = writeln!(page, "| {what} | {limit} | {} |", cells.join(" | "));
    };
    row(page, "", "limit", &|outcome| outcome.title.clone());
    let _ = writeln!(page, "|---|---:|{}", "---:|".repeat(round.outcomes.len()));
    let Some(first) = round.outcomes.first() else { return };
    for (at, (what, _)) in first.faults().into_iter().enumerate() {
        row(page, what, "0", &|outcome| outcome.faults()[at].1.to_string());
    }
    let wrong = format!("alerts with anything wrong, of {}", first.tickets);
    row(page, &wrong, "0", &|outcome| outcome.mistakes.alerts.to_string());
    row(page, "writes that an older event overtook", "0", &|outcome| outcome.overtaken.to_string());
    let right = format!("{} s: {}", short(limits.right), limits.right_is);
    let patience = format!("not within {} s", round.patience);
    row(page, "all tickets right, after the last event", &right, &|outcome| {
        multiple(outcome.right_after, limits.right, " s", &patience)
    });
    let ticket = format!("{} s: within one request", short(limits.ticket));
    for (what, share) in [("median", 0.5), ("99 %", 0.99), ("worst", 1.0)] {
        let what = format!("ticket of a critical alert, {what}");
        row(page, &what, &ticket, &|outcome| multiple(outcome.critical_at(share), limits.ticket, " s", "never"));
    }
    let alerts = first.critical.len() + first.never;
    let never = format!("critical alerts that got none, of {alerts}");
    row(page, &never, "0", &|outcome| outcome.never.to_string());
    let most = format!("{}: {}", short(limits.requests), limits.requests_are);
    row(page, "requests an event", &most, &|outcome| {
        multiple(Some(outcome.requests_an_event()), limits.requests, "", "")
    });
    row(page, "requests refused with 429", "0", &|outcome| outcome.refused.to_string());
    if !scenario.kills.is_empty() {
        row(page, "faults that struck", "", &|outcome| outcome.struck.to_string());
    }
    if round.outcomes.iter().any(|outcome| outcome.ended > 0) {
        row(page, "ended by itself, and was started again", "0", &|outcome| outcome.ended.to_string());
    }
    row(page, "CPU ms for 1,000 events", "", &|outcome| short(outcome.cpu_ms.round()));
    row(page, "memory idle, at most (MB)", "", &|outcome| format!("{:.0}, {:.0}", outcome.idle_mb, outcome.peak_mb));
    let crowded = if round.busy > 0.9 {
        ", so that times and processor figures of all are worse than on a quiet one"
    } else {
        ""
    };
    let (events, busy) = (first.events, 100.0 * round.busy);
    let _ = writeln!(page, "\n{events} events; {busy:.0} % of the machine's processor time was busy{crowded}.\n");
}

/// A figure of which less is better; nothing is worse than any number.
type Less<'a> = (&'a str, &'a dyn Fn(&Outcome) -> Option<f64>);

/// Where another system is better than ours by more than a twentieth.
#[expect(clippy::cast_precision_loss, reason = "counts of minutes")]
fn better(page: &mut String, figures: &Figures) {
    let less: [Less<'_>; 8] = [
        ("alerts with anything wrong", &|outcome| Some(outcome.mistakes.alerts as f64)),
        ("seconds until all tickets are right", &|outcome| outcome.right_after),
        ("seconds to a critical ticket, median", &|outcome| outcome.critical_at(0.5)),
        ("seconds to a critical ticket, worst", &|outcome| outcome.critical_at(1.0)),
        ("requests an event", &|outcome| Some(outcome.requests_an_event())),
        ("requests refused with 429", &|outcome| Some(outcome.refused as f64)),
        ("CPU ms for 1,000 events", &|outcome| Some(outcome.cpu_ms)),
        ("memory at most, MB", &|outcome| Some(outcome.peak_mb)),
    ];
    let mut lines = Vec::new();
    for round in &figures.rounds {
        let Some(ours) = round.outcomes.iter().find(|outcome| outcome.system == "ours") else { continue };
        for other in round.outcomes.iter().filter(|outcome| outcome.system != "ours") {
            for (what, figure) in &less {
                let (mine, its) = (figure(ours), figure(other));
                let Some(value) = its.filter(|its| mine.is_none_or(|mine| *its < 0.95 * mine)) else { continue };
                let mine = mine.map_or("never".into(), short);
                // Few requests and little work are no merit of a system that did not do its work.
                let undone = if other.mistakes.alerts > ours.mistakes.alerts {
                    format!(" (with {} of {} alerts wrong)", other.mistakes.alerts, other.tickets)
                } else {
                    String::new()
                };
                lines.push(format!(
                    "- {}: {}: {what} {}, ours {mine}{undone}",
                    round.scenario,
                    other.title,
                    short(value)
                ));
            }
        }
    }
    let _ = writeln!(page, "### Where another system is better than nowbridge\n");
    let all = if lines.is_empty() { "By none of these figures, in this run.".to_owned() } else { lines.join("\n") };
    let _ = writeln!(page, "{all}\n");
}

fn cases(page: &mut String, cases: &[Case]) {
    let _ = writeln!(
        page,
        "## Throughput\n\nnowbridge alone. Ordered: changes of 1,000 alerts in one \
         partition, fed at three times what an instance of 150 ms a request allows to 4, 16 or 64 requests at once. \
         Creates: 60,000 new alerts, and an instance without latency. Steady: 200 events a second. Storm: as above, \
         without notes. Idle: a quarter of a minute after the start, which takes more.\n\n| | reached | limit, or wanted | share |\n|---|---:|---:|---:|"
    );
    for Case { what, reached, limit, share, .. } in cases {
        let _ = writeln!(page, "| {what} | {reached} | {limit} | {share} |");
    }
    let _ = writeln!(page);
}

fn tail(page: &mut String) {
    let _ = writeln!(
        page,
        "## Again, and in parts\n\n\
         `cargo bench --bench delivery -- report` needs a real Kafka (a JDK and Maven, Docker, or \
         `NOWBRIDGE_TEST_KAFKA=host:port`), Python 3 and Go for the others, and their registries the first time; what it \
         can't have it names. Names choose parts, whose page is then written below `target/benchmark` instead of here: \
         scenarios (`calm`, `flap`, `storm`, `faults`, and `cases` for the throughput), and systems (`ours`, `script`, \
         `bento`, `bento-cached`): `cargo bench --bench delivery -- report storm ours bento`. `-- draw` makes page and \
         pictures anew from [`figures.json`](figures.json), which holds all figures of this run, second by second."
    );
}
