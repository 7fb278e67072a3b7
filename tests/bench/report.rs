//! `report`: runs the fault benchmark and the throughput cases, and writes `docs/benchmark/`: the page, the charts, and
//! all figures. If names select only parts, they are written below the target directory instead, so that a trial
//! overwrites no published figure. The run fails if tickets of the bridge are wrong, after it has written the report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cases;
use crate::charts;
use crate::comparison;
use crate::markdown;
use crate::real_broker;
use crate::results::{Report, SystemVersion};
use crate::runtime;
use crate::scenarios::Scenario;
use crate::support::kafka::Broker;
use crate::systems::{self, System};

/// Runs the parts with these names, or all.
pub fn run(names: &[String]) {
    let started = Instant::now();
    let systems: Vec<System> =
        System::ALL.into_iter().filter(|system| names.iter().any(|n| n == system.name())).collect();
    let scenarios = Scenario::all();
    let parts = || names.iter().filter(|name| System::ALL.iter().all(|system| system.name() != *name));
    for name in parts() {
        let known = name == "cases" || scenarios.iter().any(|scenario| scenario.name == name);
        assert!(known, "no scenario or system has the name {name}");
    }
    let wanted = |part: &str| parts().next().is_none() || parts().any(|name| name == part);
    let broker = real_broker();
    let mut report = Report {
        day: jiff::Timestamp::now().to_string().chars().take(10).collect(),
        machine: machine(broker),
        ..Report::default()
    };
    let mut available = Vec::new();
    for system in System::ALL {
        let (title, versions) = (system.title().to_owned(), system.prepare());
        let selected = systems.is_empty() || systems.contains(&system);
        eprintln!("{title}: {}", versions.as_deref().unwrap_or_else(|reason| reason));
        if selected && versions.is_ok() {
            available.push(system);
        }
        let not_run = versions.as_ref().err().cloned().or_else(|| (!selected).then(|| "not selected".to_owned()));
        report.systems.push(SystemVersion { title, versions: versions.ok().filter(|_| selected), not_run });
    }
    let mut wrong = 0;
    for scenario in scenarios.iter().filter(|scenario| wanted(scenario.name)) {
        eprintln!("{}: {}", scenario.name, scenario.about);
        let result = runtime().block_on(comparison::run(scenario, &available, broker));
        let ours = result.results.iter().filter(|result| result.system == System::Nowbridge.name());
        wrong += ours.map(|result| result.errors.alerts).sum::<usize>();
        report.scenarios.push(result);
        write(&folder(names.is_empty()), &report);
    }
    if wanted("cases") {
        let (measurements, wrong_tickets) = cases(broker, &[]);
        report.measurements = measurements;
        wrong += wrong_tickets;
    }
    let folder = folder(names.is_empty());
    write(&folder, &report);
    eprintln!("{} after {} s", folder.join("README.md").display(), started.elapsed().as_secs());
    assert_eq!(wrong, 0, "tickets of the bridge are lost, duplicated or wrong");
}

/// Writes the page and the charts again from the stored figures: those of the published report, and those of the last
/// run of single parts, if there are any.
pub fn draw_again() {
    for folder in [folder(true), folder(false)] {
        let Ok(text) = std::fs::read_to_string(folder.join("figures.json")) else { continue };
        write(&folder, &serde_json::from_str(&text).expect("figures of this version of the benchmark"));
        eprintln!("{}", folder.join("README.md").display());
    }
}

fn folder(all: bool) -> PathBuf {
    if all { Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmark") } else { systems::target().join("benchmark") }
}

fn write(folder: &Path, report: &Report) {
    std::fs::create_dir_all(folder).expect("a folder for the report");
    let files = charts::draw(report);
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("the report can be written");
    write("README.md", &markdown::write(report, &files));
    let json = serde_json::to_string(report).expect("the report is JSON");
    // One line per scenario and system makes diffs readable.
    write("figures.json", &(json.replace("{\"system\"", "\n{\"system\"").replace("{\"name\"", "\n{\"name\"") + "\n"));
    for (name, text) in &files {
        write(name, text);
    }
}

/// A description of the machine.
fn machine(broker: &Broker) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown processor".into());
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let memory = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1_000_000;
    vec![
        format!("{cores} cores ({model}), shared by broker, instances, consumers and publisher; {memory} GB of memory"),
        format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        format!("{}, one broker", broker.kind),
    ]
}
