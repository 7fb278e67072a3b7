//! The report's drawings, each from the figures alone: what is wrong in the end, how tickets lag behind over time, what
//! critical alerts wait, what it costs in requests and processor time, and how near the throughput comes to its limit.

use crate::outcome::{Case, Figures, Outcome, Round};
use crate::plot::{Anchor, Axis, Canvas, WIDTH, short};
use crate::scenarios::{Limits, Scenario};
use crate::systems::System;
use crate::workload::Kind;

const LEFT: f64 = 70.0;

/// File names and their texts.
pub fn draw(figures: &Figures) -> Vec<(String, String)> {
    let scenarios = Scenario::all();
    let rounds: Vec<(&Round, &Scenario)> = figures
        .rounds
        .iter()
        .filter_map(|round| Some((round, scenarios.iter().find(|scenario| scenario.name == round.scenario)?)))
        .collect();
    let mut files = Vec::new();
    if !rounds.is_empty() {
        files.push(("wrong.svg".to_owned(), wrong(&rounds)));
        files.push(("critical.svg".to_owned(), critical(&rounds)));
        files.push(("requests.svg".to_owned(), requests(&rounds)));
        files.push(("cpu.svg".to_owned(), cpu(&rounds)));
    }
    // Where little happens nothing lags.
    for (round, scenario) in
        rounds.iter().filter(|(_, scenario)| scenario.measures.kind != Kind::Calm || !scenario.kills.is_empty())
    {
        files.push((format!("lag-{}.svg", round.scenario), lag(round, scenario)));
    }
    if figures.cases.iter().any(|case| case.ratio.is_some()) {
        files.push(("throughput.svg".to_owned(), throughput(&figures.cases)));
    }
    files
}

fn colour(outcome: &Outcome) -> usize {
    System::ALL.iter().position(|system| system.name() == outcome.system).unwrap_or(0)
}

fn legend(canvas: &mut Canvas, rounds: &[(&Round, &Scenario)]) {
    let present = |at: &usize| rounds.iter().any(|(round, _)| round.outcomes.iter().any(|o| colour(o) == *at));
    let names: Vec<(usize, &str)> = (0..4).filter(present).map(|at| (at, System::ALL[at].title())).collect();
    canvas.legend(70.0, &names);
}

/// Where the outcomes of each scenario stand: a column of the drawing for a scenario, a place in it for a system.
fn places<'a>(rounds: &'a [(&'a Round, &'a Scenario)]) -> impl Iterator<Item = (f64, f64, &'a Round, &'a Scenario)> {
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let width = (WIDTH - 20.0 - LEFT) / rounds.len() as f64;
    let mut left = LEFT - width;
    rounds.iter().map(move |(round, scenario)| {
        left += width;
        (left, width, *round, *scenario)
    })
}

/// Bars in groups, a value and its words for each.
struct Bars<'a> {
    title: &'a str,
    below: &'a str,
    axis: Axis,
    unit: &'a str,
    value: &'a dyn Fn(&Outcome) -> (f64, String),
    limit: Option<&'a dyn Fn(&Limits) -> f64>,
}

fn bars(rounds: &[(&Round, &Scenario)], bars: &Bars<'_>) -> String {
    let mut canvas = Canvas::new(380.0, bars.title, bars.below);
    legend(&mut canvas, rounds);
    bars.axis.draw(&mut canvas, LEFT, bars.unit);
    for (left, width, round, scenario) in places(rounds) {
        let each = (width - 50.0) / 4.0;
        for (place, outcome) in (0_u32..).zip(&round.outcomes) {
            let x = left + 10.0 + f64::from(place) * each;
            let (value, words) = (bars.value)(outcome);
            let y = bars.axis.at(value);
            canvas.bar(x + 3.0, y, each - 6.0, bars.axis.bottom - y, &format!("f{}", colour(outcome)));
            canvas.text(x + each / 2.0, y - 5.0, Anchor::Middle, "small", &words);
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
fn wrong(rounds: &[(&Round, &Scenario)]) -> String {
    let value = |outcome: &Outcome| {
        let share = 100.0 * outcome.mistakes.alerts as f64 / outcome.tickets as f64;
        (share, if outcome.mistakes.alerts == 0 { "0".into() } else { format!("{} %", short(share.round())) })
    };
    bars(
        rounds,
        &Bars {
            title: "Alerts whose ticket is wrong in the end",
            below: "Doubled, missing, in a wrong state, or with notes doubled, missing or out of order, when the patience \
                    is over. Lower is better.",
            axis: Axis::linear(110.0, 330.0, 100.0),
            unit: " %",
            value: &value,
            limit: None,
        },
    )
}

fn requests(rounds: &[(&Round, &Scenario)]) -> String {
    let all = || rounds.iter().flat_map(|(round, _)| &round.outcomes).map(Outcome::requests_an_event);
    let least = all().fold(f64::INFINITY, f64::min);
    bars(
        rounds,
        &Bars {
            title: "Requests to ServiceNow for an event",
            below: "Reads and writes, refused ones too; logarithmic. Red: one write an event; in the storm, all that the \
                    quota gives.",
            axis: Axis::logarithmic(110.0, 330.0, least.min(0.05), all().fold(1.0, f64::max)),
            unit: "",
            value: &|outcome| (outcome.requests_an_event(), short(outcome.requests_an_event())),
            limit: Some(&|limits| limits.requests),
        },
    )
}

fn cpu(rounds: &[(&Round, &Scenario)]) -> String {
    let all = || rounds.iter().flat_map(|(round, _)| &round.outcomes).map(|outcome| outcome.cpu_ms);
    bars(
        rounds,
        &Bars {
            title: "Processor time for 1,000 events",
            below: "Milliseconds, on all cores, of the consumer alone; logarithmic. Lower is better.",
            axis: Axis::logarithmic(
                110.0,
                330.0,
                all().fold(f64::INFINITY, f64::min).max(1.0),
                all().fold(10.0, f64::max),
            ),
            unit: " ms",
            value: &|outcome| (outcome.cpu_ms, short(outcome.cpu_ms.round())),
            limit: None,
        },
    )
}

/// Median to worst of the critical alerts' tickets.
fn critical(rounds: &[(&Round, &Scenario)]) -> String {
    let mut canvas = Canvas::new(
        380.0,
        "A critical alert waits for its ticket",
        "Dot: median. Line: up to the worst. Triangle: so many never got one. Logarithmic; red: one request.",
    );
    legend(&mut canvas, rounds);
    let worst = rounds.iter().flat_map(|(round, _)| &round.outcomes).filter_map(|o| o.critical.last()).copied();
    let axis = Axis::logarithmic(125.0, 330.0, 0.02, worst.fold(10.0, f64::max));
    axis.draw(&mut canvas, LEFT, " s");
    for (left, width, round, scenario) in places(rounds) {
        let (each, limit) = ((width - 30.0) / 4.0, scenario.limits().ticket);
        canvas.line((left + 8.0, axis.at(limit)), (left + width - 8.0, axis.at(limit)), "limit");
        canvas.text(left + width - 8.0, axis.at(limit) + 13.0, Anchor::End, "small limit-text", &short(limit));
        for (place, outcome) in (0_u32..).zip(&round.outcomes) {
            let (x, at) = (left + 15.0 + (f64::from(place) + 0.5) * each, colour(outcome));
            let (class, line) = (format!("f{at}"), format!("l{at}"));
            if let (Some(median), Some(worst)) = (outcome.critical_at(0.5), outcome.critical.last()) {
                canvas.path(&[(x, axis.at(median)), (x, axis.at(*worst))], &line);
                canvas.path(&[(x - 6.0, axis.at(*worst)), (x + 6.0, axis.at(*worst))], &line);
                canvas.dot(x, axis.at(median), 5.0, &class);
                if outcome.never == 0 {
                    canvas.text(x, axis.at(*worst) - 6.0, Anchor::Middle, "small", &short(*worst));
                }
            } else if let Some(first) = outcome.critical.first() {
                canvas.path(&[(x, axis.at(*first)), (x, axis.top)], &line);
            }
            if outcome.never > 0 {
                canvas.text(x, axis.top - 4.0, Anchor::Middle, &class, "▲");
                canvas.text(x, axis.top - 19.0, Anchor::Middle, "small", &outcome.never.to_string());
            }
        }
        canvas.text(left + width / 2.0, axis.bottom + 22.0, Anchor::Middle, "", scenario.name);
    }
    canvas.line((LEFT, axis.bottom), (WIDTH - 20.0, axis.bottom), "axis");
    canvas.finish()
}

/// How many tickets are not as they must be, second by second.
#[expect(clippy::cast_precision_loss, reason = "counts of tickets")]
fn lag(round: &Round, scenario: &Scenario) -> String {
    let title = format!("Tickets that lag behind their alerts: {}", scenario.name);
    let below =
        "How many are not as the events published until then demand. Lower is better; a line ends where all are right.";
    let mut canvas = Canvas::new(380.0, &title, below);
    legend(&mut canvas, &[(round, scenario)]);
    let samples = || round.outcomes.iter().flat_map(|outcome| &outcome.samples);
    let most = samples().map(|(_, wrong)| *wrong).max().unwrap_or(1).max(4);
    let longest = samples().map(|(at, _)| *at).fold(10.0, f64::max);
    let axis = Axis::linear(100.0, 320.0, most as f64);
    axis.draw(&mut canvas, LEFT, "");
    let x = |at: f64| LEFT + (WIDTH - 60.0 - LEFT) * at / longest;
    let step = if longest > 100.0 { 20 } else { 10 };
    for second in (0_u32..=400).step_by(step).filter(|second| f64::from(*second) <= longest) {
        canvas.text(x(second.into()), 340.0, Anchor::Middle, "small soft", &format!("{second} s"));
    }
    let mut marks = vec![(round.ended, "last event")];
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    marks.extend(scenario.kills.iter().map(|second| (*second as f64, "SIGKILL")));
    for (at, what) in marks {
        canvas.line((x(at), axis.top), (x(at), axis.bottom), "limit");
        canvas.text(x(at) + 4.0, axis.top + 10.0, Anchor::Start, "small limit-text", what);
    }
    let mut left_wrong = Vec::new();
    // Ours last, so that it lies above the others.
    for outcome in round.outcomes.iter().rev() {
        let points: Vec<(f64, f64)> =
            outcome.samples.iter().map(|(at, wrong)| (x(*at), axis.at(*wrong as f64))).collect();
        canvas.path(&points, &format!("l{}", colour(outcome)));
        let Some(end) = points.last() else { continue };
        if outcome.right_after.is_some() {
            canvas.dot(end.0, end.1, 4.0, &format!("f{}", colour(outcome)));
        } else {
            left_wrong.push((end.1, end.0, outcome));
        }
    }
    // From above, each number clear of the one before it.
    left_wrong.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = 0.0;
    for (y, x, outcome) in left_wrong {
        let y = y.max(free);
        free = y + 13.0;
        let class = format!("small f{}", colour(outcome));
        canvas.text(x + 5.0, y + 4.0, Anchor::Start, &class, &outcome.mistakes.alerts.to_string());
    }
    canvas.line((LEFT, axis.bottom), (WIDTH - 20.0, axis.bottom), "axis");
    canvas.text(
        20.0,
        366.0,
        Anchor::Start,
        "small soft",
        "Dot: all right. Number: tickets still wrong when the patience was over.",
    );
    canvas.finish()
}

/// Shares of what is possible.
fn throughput(cases: &[Case]) -> String {
    let cases: Vec<(&Case, f64)> = cases.iter().filter_map(|case| Some((case, case.ratio?))).collect();
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let height = 90.0 + 34.0 * cases.len() as f64;
    let below = "nowbridge alone. The red line is the limit; where time is measured, the share is above it.";
    let mut canvas = Canvas::new(height, "Throughput and drain, as shares of the physical limit", below);
    let (left, full) = (250.0, 330.0);
    for (place, (case, ratio)) in (0_u32..).zip(&cases) {
        let y = 66.0 + 34.0 * f64::from(place);
        canvas.text(left - 10.0, y + 16.0, Anchor::End, "", &case.what);
        let width = full * ratio.min(1.3);
        canvas.bar(left, y, width, 22.0, "f0");
        let words = format!("{:.0} %  ({} of {})", 100.0 * ratio, case.reached, case.limit);
        canvas.text(left + width.max(full) + 8.0, y + 16.0, Anchor::Start, "small", &words);
    }
    canvas.line((left + full, 58.0), (left + full, height - 20.0), "limit");
    canvas.finish()
}
