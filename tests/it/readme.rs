//! Runs README's section "Try it with Kafka" as a user would: its configuration and its commands, in order, in one
//! shell. Only addresses are replaced, so that the test needs no fixed ports.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::docs::{between, read};
use crate::support::kafka::{private, runs, skipped};
use crate::support::kafka_local::free_port;

const NAME: &str = "README, \"Try it with Kafka\"";
const SECTION: &str = "\n## Try it with Kafka\n";

#[test]
fn the_commands_of_the_readme_work_in_order() {
    if !runs("kcat", &["-V"]) {
        return skipped(NAME, "kcat");
    }
    let Some(broker) = private(NAME, &[]) else { return };
    let (instance, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let local = |text: &str| {
        text.replace("localhost:9092", &broker.bootstrap)
            .replace("127.0.0.1:8080", &instance)
            .replace("127.0.0.1:9464", &admin)
            .replace("nowbridge simulate", &format!("nowbridge simulate --listen {instance}"))
    };
    let readme = read("README.md");
    let section = between(&readme, SECTION, "\n## ");
    let config = between(section, "<!-- config -->\n```yaml\n", "```\n<!-- /config -->");
    for address in ["localhost:9092", "127.0.0.1:8080", "127.0.0.1:9464"] {
        assert!(config.contains(address), "the configuration does not contain {address}");
    }
    let blocks = section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let script: String = blocks.filter(|block| !block.contains("cargo install")).map(local).collect();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("nowbridge.yaml"), local(config)).expect("the configuration is written");
    fs::write(folder.path().join("script.sh"), &script).expect("the script is written");

    let (status, output) = run(folder.path());
    assert!(status.success(), "{status}\n{script}\n{output}");
    // The ticket as the API returns it, open and then resolved, and the change as the consumer reads it.
    let number = output.find("INC").map(|at| output[at..].chars().take_while(char::is_ascii_alphanumeric));
    let number: String = number.unwrap_or_else(|| panic!("no ticket number\n{output}")).collect();
    assert!(output.contains("\"state\":\"6\""), "ticket {number} was not resolved\n{output}");
    let records: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let change = records.iter().find(|record| record["correlation"] == "disk-web-1");
    let change = change.unwrap_or_else(|| panic!("no change of ticket {number}\n{output}"));
    assert_eq!(change["number"], number.as_str(), "{change}");
}

/// Runs `script.sh`, and returns its status and output. Kills what it has started if it does not end by itself.
fn run(folder: &Path) -> (ExitStatus, String) {
    let output = folder.join("output");
    let file = File::create(&output).expect("a file for the output");
    let programs = Path::new(env!("CARGO_BIN_EXE_nowbridge")).parent().expect("a folder").display().to_string();
    let mut bash = Command::new("bash");
    bash.args(["-e", "-u", "-o", "pipefail", "script.sh"]).current_dir(folder).process_group(0);
    bash.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NOWBRIDGE_")) {
        bash.env_remove(name);
    }
    bash.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
    let mut group = ProcessGroup(bash.spawn().expect("bash starts"));
    let deadline = Instant::now() + Duration::from_secs(180);
    let text = || fs::read_to_string(&output).expect("the output is text");
    loop {
        if let Some(status) = group.0.try_wait().expect("waited for") {
            return (status, text());
        }
        assert!(Instant::now() < deadline, "the commands did not end\n{}", text());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A shell in its own process group. Dropping it kills the group, with all background processes.
struct ProcessGroup(Child);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        runs("kill", &["-KILL", "--", &format!("-{}", self.0.id())]);
        let _ = self.0.wait();
    }
}
