//! `report`: the fault benchmark and the throughput cases in one run, and what `docs/benchmark/` holds of it: the page,
//! the drawings, and all figures. Where names choose only parts of it, that goes below the target directory instead, so
//! that a trial overwrites no published figure. It fails where the bridge's own tickets are wrong, after writing.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cases;
use crate::charts;
use crate::contest;
use crate::outcome::{Figures, Present};
use crate::page;
use crate::real_broker;
use crate::runtime;
use crate::scenarios::Scenario;
use crate::support::kafka::Broker;
use crate::systems::{self, System};

/// Runs the parts of these names, or all.
pub fn run(names: &[String]) {
    let began = Instant::now();
    let systems: Vec<System> =
        System::ALL.into_iter().filter(|system| names.iter().any(|n| n == system.name())).collect();
    let scenarios = Scenario::all();
    let parts = || names.iter().filter(|name| System::ALL.iter().all(|system| system.name() != *name));
    for name in parts() {
        let known = name == "cases" || scenarios.iter().any(|scenario| scenario.name == name);
        assert!(known, "there is no scenario or system {name}");
    }
    let wanted = |part: &str| parts().next().is_none() || parts().any(|name| name == part);
    let broker = real_broker();
    let mut figures = Figures {
        day: jiff::Timestamp::now().to_string().chars().take(10).collect(),
        machine: machine(broker),
        ..Figures::default()
    };
    let mut present = Vec::new();
    for system in System::ALL {
        let (title, prepared) = (system.title().to_owned(), system.prepare());
        let asked = systems.is_empty() || systems.contains(&system);
        eprintln!("{title}: {}", prepared.as_deref().unwrap_or_else(|why| why));
        if asked && prepared.is_ok() {
            present.push(system);
        }
        let not_run = prepared.as_ref().err().cloned().or_else(|| (!asked).then(|| "not asked for".to_owned()));
        figures.systems.push(Present { title, versions: prepared.ok().filter(|_| asked), not_run });
    }
    let mut wrong = 0;
    for scenario in scenarios.iter().filter(|scenario| wanted(scenario.name)) {
        eprintln!("{}: {}", scenario.name, scenario.about);
        let round = runtime().block_on(contest::run(scenario, &present, broker));
        wrong +=
            round.outcomes.iter().filter(|o| o.system == System::Ours.name()).map(|o| o.mistakes.alerts).sum::<usize>();
        figures.rounds.push(round);
        write(&folder(names.is_empty()), &figures);
    }
    if wanted("cases") {
        let (lines, mistakes) = cases(broker, &[]);
        figures.cases = lines;
        wrong += mistakes;
    }
    let folder = folder(names.is_empty());
    write(&folder, &figures);
    eprintln!("{} after {} s", folder.join("README.md").display(), began.elapsed().as_secs());
    assert_eq!(wrong, 0, "tickets of the bridge are missing, doubled or not as they must be");
}

/// Draws page and pictures anew: of the last trial in parts if there is one, and of what is published.
pub fn draw_again() {
    for folder in [folder(true), folder(false)] {
        let Ok(text) = std::fs::read_to_string(folder.join("figures.json")) else { continue };
        write(&folder, &serde_json::from_str(&text).expect("figures of this version"));
        eprintln!("{}", folder.join("README.md").display());
    }
}

fn folder(all: bool) -> PathBuf {
    if all { Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmark") } else { systems::target().join("benchmark") }
}

fn write(folder: &Path, figures: &Figures) {
    std::fs::create_dir_all(folder).expect("a folder for the report");
    let files = charts::draw(figures);
    let put = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("the report can be written");
    put("README.md", &page::write(figures, &files));
    let json = serde_json::to_string(figures).expect("figures are JSON");
    // A line for each scenario and system: a change of one is then seen as such.
    put("figures.json", &(json.replace("{\"system\"", "\n{\"system\"").replace("{\"what\"", "\n{\"what\"") + "\n"));
    for (name, text) in &files {
        put(name, text);
    }
}

/// What it ran on.
fn machine(broker: &Broker) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "a processor without a name".into());
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let memory = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1_000_000;
    vec![
        format!("{cores} cores ({model}) for everything: broker, instances, consumers, feed; {memory} GB of memory"),
        format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        format!("{}, one broker", broker.kind),
    ]
}
