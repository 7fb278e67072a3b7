//! The report's charts, drawn from its figures alone: errors at the end, outdated tickets over time, latency of
//! critical alerts, cost in requests and processor time, and throughput in relation to its limit.

use crate::results::{Measurement, Report, ScenarioResult, SystemResult};
use crate::scenarios::{Limits, Scenario};
use crate::svg::{Anchor, Axis, Canvas, WIDTH, short};
use crate::systems::System;
use crate::workload::Pattern;

const LEFT: f64 = 70.0;

/// Returns the charts as file names and texts.
pub fn draw(report: &Report) -> Vec<(String, String)> {
    let scenarios = Scenario::all();
    let results: Vec<(&ScenarioResult, &Scenario)> = report
        .scenarios
        .iter()
        .filter_map(|result| Some((result, scenarios.iter().find(|scenario| scenario.name == result.scenario)?)))
        .collect();
    let mut files = Vec::new();
    if !results.is_empty() {
        files.push(("errors.svg".to_owned(), errors(&results)));
        files.push(("critical.svg".to_owned(), critical(&results)));
        files.push(("requests.svg".to_owned(), requests(&results)));
        files.push(("cpu.svg".to_owned(), cpu(&results)));
    }
    // In a calm scenario no ticket is outdated for long.
    for (result, scenario) in
        results.iter().filter(|(_, scenario)| scenario.profile.pattern != Pattern::Calm || !scenario.kills.is_empty())
    {
        files.push((format!("outdated-{}.svg", result.scenario), outdated(result, scenario)));
    }
    if report.measurements.iter().any(|measurement| measurement.ratio.is_some()) {
        files.push(("throughput.svg".to_owned(), throughput(&report.measurements)));
    }
    files
}

fn color(result: &SystemResult) -> usize {
    System::ALL.iter().position(|system| system.name() == result.system).unwrap_or(0)
}

fn legend(canvas: &mut Canvas, results: &[(&ScenarioResult, &Scenario)]) {
    let present = |at: &usize| results.iter().any(|(result, _)| result.results.iter().any(|r| color(r) == *at));
    let names: Vec<(usize, &str)> = (0..4).filter(present).map(|at| (at, System::ALL[at].title())).collect();
    canvas.legend(70.0, &names);
}

/// The column of each scenario in a chart.
struct Column<'a> {
    left: f64,
    width: f64,
    result: &'a ScenarioResult,
    scenario: &'a Scenario,
}

fn columns<'a>(results: &'a [(&'a ScenarioResult, &'a Scenario)]) -> impl Iterator<Item = Column<'a>> {
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let width = (WIDTH - 20.0 - LEFT) / results.len() as f64;
    let mut left = LEFT - width;
    results.iter().map(move |(result, scenario)| {
        left += width;
        Column { left, width, result, scenario }
    })
}

/// A bar chart: a group of bars for each scenario.
struct Bars<'a> {
    title: &'a str,
    subtitle: &'a str,
    axis: Axis,
    unit: &'a str,
    /// The value of a bar, and its label.
    value: &'a dyn Fn(&SystemResult) -> (f64, String),
    limit: Option<&'a dyn Fn(&Limits) -> f64>,
}

fn bars(results: &[(&ScenarioResult, &Scenario)], bars: &Bars<'_>) -> String {
    let mut canvas = Canvas::new(380.0, bars.title, bars.subtitle);
    legend(&mut canvas, results);
    bars.axis.draw(&mut canvas, LEFT, bars.unit);
    for Column { left, width, result, scenario } in columns(results) {
        let each = (width - 50.0) / 4.0;
        for (place, result) in (0_u32..).zip(&result.results) {
            let x = left + 10.0 + f64::from(place) * each;
            let (value, label) = (bars.value)(result);
            let y = bars.axis.at(value);
            canvas.bar(x + 3.0, y, each - 6.0, bars.axis.bottom - y, &format!("f{}", color(result)));
            canvas.text(x + each / 2.0, y - 5.0, Anchor::Middle, "small", &label);
        }
        if let Some(limit) = bars.limit {
            let limit = limit(&scenario.limits());
            let y = bars.axis.at(limit);
            canvas.line((left + 8.0, y), (left + width - 36.0, y), "limit");
            canvas.text(left + width - 33.0, y + 4.0, Anchor::Start, "small limit-text", &short(limit));
        }
        canvas.text(left + width / 2.0 - 15.0, bars.axis.bottom + 22.0, Anchor::Middle, "", scenario.name);
    }
    canvas.line((LEFT, bars.axis.bottom), (WIDTH - 20.0, bars.axis.bottom), "axis");
    canvas.finish()
}

#[expect(clippy::cast_precision_loss, reason = "counts of tickets")]
fn errors(results: &[(&ScenarioResult, &Scenario)]) -> String {
    let value = |result: &SystemResult| {
        let percent = 100.0 * result.errors.alerts as f64 / result.tickets as f64;
        (percent, if result.errors.alerts == 0 { "0".into() } else { format!("{} %", short(percent.round())) })
    };
    bars(
        results,
        &Bars {
            title: "Alerts with a wrong ticket at the end",
            subtitle: "Duplicated, lost, in a wrong state, or with duplicate, lost or misordered notes. Lower is better.",
            axis: Axis::linear(110.0, 330.0, 100.0),
            unit: " %",
            value: &value,
            limit: None,
        },
    )
}

fn requests(results: &[(&ScenarioResult, &Scenario)]) -> String {
    let all = || results.iter().flat_map(|(result, _)| &result.results).map(SystemResult::requests_per_event);
    let least = all().fold(f64::INFINITY, f64::min);
    bars(
        results,
        &Bars {
            title: "Requests to ServiceNow per event",
            subtitle: "Reads and writes, including rejected ones; logarithmic. Red: one write per event; in the storm, \
                       the quota.",
            axis: Axis::logarithmic(110.0, 330.0, least.min(0.05), all().fold(1.0, f64::max)),
            unit: "",
            value: &|result| (result.requests_per_event(), short(result.requests_per_event())),
            limit: Some(&|limits| limits.requests_per_event),
        },
    )
}

fn cpu(results: &[(&ScenarioResult, &Scenario)]) -> String {
    let all = || results.iter().flat_map(|(result, _)| &result.results).map(|result| result.cpu_ms_per_1000_events);
    bars(
        results,
        &Bars {
            title: "Processor time per 1,000 events",
            subtitle: "Milliseconds of the consumer on all cores; logarithmic. Lower is better.",
            axis: Axis::logarithmic(
                110.0,
                330.0,
                all().fold(f64::INFINITY, f64::min).max(1.0),
                all().fold(10.0, f64::max),
            ),
            unit: " ms",
            value: &|result| (result.cpu_ms_per_1000_events, short(result.cpu_ms_per_1000_events.round())),
            limit: None,
        },
    )
}

/// Latency of the critical alerts' tickets, median to maximum.
fn critical(results: &[(&ScenarioResult, &Scenario)]) -> String {
    let mut canvas = Canvas::new(
        380.0,
        "Time until the ticket of a critical alert exists",
        "Dot: median. Line: to the maximum. Triangle: number of alerts without a ticket. Logarithmic; red: one request.",
    );
    legend(&mut canvas, results);
    let worst =
        results.iter().flat_map(|(result, _)| &result.results).filter_map(|r| r.critical_latencies.last()).copied();
    let axis = Axis::logarithmic(125.0, 330.0, 0.02, worst.fold(10.0, f64::max));
    axis.draw(&mut canvas, LEFT, " s");
    for Column { left, width, result, scenario } in columns(results) {
        let (each, limit) = ((width - 30.0) / 4.0, scenario.limits().critical_latency);
        canvas.line((left + 8.0, axis.at(limit)), (left + width - 8.0, axis.at(limit)), "limit");
        canvas.text(left + width - 8.0, axis.at(limit) + 13.0, Anchor::End, "small limit-text", &short(limit));
        for (place, result) in (0_u32..).zip(&result.results) {
            let (x, at) = (left + 15.0 + (f64::from(place) + 0.5) * each, color(result));
            let (class, line) = (format!("f{at}"), format!("l{at}"));
            if let (Some(median), Some(worst)) = (result.critical_latency(0.5), result.critical_latencies.last()) {
                canvas.path(&[(x, axis.at(median)), (x, axis.at(*worst))], &line);
                canvas.path(&[(x - 6.0, axis.at(*worst)), (x + 6.0, axis.at(*worst))], &line);
                canvas.dot(x, axis.at(median), 5.0, &class);
                if result.critical_without_ticket == 0 {
                    canvas.text(x, axis.at(*worst) - 6.0, Anchor::Middle, "small", &short(*worst));
                }
            } else if let Some(first) = result.critical_latencies.first() {
                canvas.path(&[(x, axis.at(*first)), (x, axis.top)], &line);
            }
            if result.critical_without_ticket > 0 {
                canvas.text(x, axis.top - 4.0, Anchor::Middle, &class, "▲");
                canvas.text(x, axis.top - 19.0, Anchor::Middle, "small", &result.critical_without_ticket.to_string());
            }
        }
        canvas.text(left + width / 2.0, axis.bottom + 22.0, Anchor::Middle, "", scenario.name);
    }
    canvas.line((LEFT, axis.bottom), (WIDTH - 20.0, axis.bottom), "axis");
    canvas.finish()
}

/// The number of outdated tickets over time.
#[expect(clippy::cast_precision_loss, reason = "counts of tickets")]
fn outdated(result: &ScenarioResult, scenario: &Scenario) -> String {
    let title = format!("Outdated tickets over time: {}", scenario.name);
    let subtitle =
        "Tickets that differ from the events published so far. Lower is better; a line ends when all are correct.";
    let mut canvas = Canvas::new(380.0, &title, subtitle);
    legend(&mut canvas, &[(result, scenario)]);
    let samples = || result.results.iter().flat_map(|result| &result.samples);
    let most = samples().map(|(_, wrong)| *wrong).max().unwrap_or(1).max(4);
    let longest = samples().map(|(at, _)| *at).fold(10.0, f64::max);
    let axis = Axis::linear(100.0, 320.0, most as f64);
    axis.draw(&mut canvas, LEFT, "");
    let x = |at: f64| LEFT + (WIDTH - 60.0 - LEFT) * at / longest;
    let step = if longest > 100.0 { 20 } else { 10 };
    for second in (0_u32..=400).step_by(step).filter(|second| f64::from(*second) <= longest) {
        canvas.text(x(second.into()), 340.0, Anchor::Middle, "small soft", &format!("{second} s"));
    }
    let mut marks = vec![(result.published_for, "last event")];
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    marks.extend(scenario.kills.iter().map(|second| (*second as f64, "SIGKILL")));
    for (at, label) in marks {
        canvas.line((x(at), axis.top), (x(at), axis.bottom), "limit");
        canvas.text(x(at) + 4.0, axis.top + 10.0, Anchor::Start, "small limit-text", label);
    }
    let mut wrong_at_end = Vec::new();
    // nowbridge is drawn last, over the others.
    for result in result.results.iter().rev() {
        let points: Vec<(f64, f64)> =
            result.samples.iter().map(|(at, wrong)| (x(*at), axis.at(*wrong as f64))).collect();
        canvas.path(&points, &format!("l{}", color(result)));
        let Some(end) = points.last() else { continue };
        if result.correct_after.is_some() {
            canvas.dot(end.0, end.1, 4.0, &format!("f{}", color(result)));
        } else {
            wrong_at_end.push((end.1, end.0, result));
        }
    }
    // From top to bottom, without overlaps.
    wrong_at_end.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = 0.0;
    for (y, x, result) in wrong_at_end {
        let y = y.max(free);
        free = y + 13.0;
        let class = format!("small f{}", color(result));
        canvas.text(x + 5.0, y + 4.0, Anchor::Start, &class, &result.errors.alerts.to_string());
    }
    canvas.line((LEFT, axis.bottom), (WIDTH - 20.0, axis.bottom), "axis");
    canvas.text(20.0, 366.0, Anchor::Start, "small soft", "Dot: all correct. Number: tickets still wrong at the end.");
    canvas.finish()
}

/// Throughput as a share of the limit.
fn throughput(measurements: &[Measurement]) -> String {
    let measurements: Vec<(&Measurement, f64)> =
        measurements.iter().filter_map(|measurement| Some((measurement, measurement.ratio?))).collect();
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let height = 90.0 + 34.0 * measurements.len() as f64;
    let subtitle = "nowbridge alone. Red: the limit; times are above it.";
    let mut canvas = Canvas::new(height, "Throughput and drain time in relation to the limit", subtitle);
    let (left, full) = (250.0, 330.0);
    for (place, (measurement, ratio)) in (0_u32..).zip(&measurements) {
        let y = 66.0 + 34.0 * f64::from(place);
        canvas.text(left - 10.0, y + 16.0, Anchor::End, "", &measurement.name);
        let width = full * ratio.min(1.3);
        canvas.bar(left, y, width, 22.0, "f0");
        let label = format!("{:.0} %  ({} of {})", 100.0 * ratio, measurement.value, measurement.limit);
        canvas.text(left + width.max(full) + 8.0, y + 16.0, Anchor::Start, "small", &label);
    }
    canvas.line((left + full, 58.0), (left + full, height - 20.0), "limit");
    canvas.finish()
}
