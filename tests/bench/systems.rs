//! The compared systems: this bridge, a typical Python script, and Bento with an expert's configuration, with and
//! without a cache of tickets. They are prepared from `baselines/` in the target directory. A system that this machine
//! cannot prepare is reported with the reason, never left out silently.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::testbed::Testbed;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    Nowbridge,
    Script,
    Bento,
    BentoCached,
}

impl System {
    pub const ALL: [Self; 4] = [Self::Nowbridge, Self::Script, Self::Bento, Self::BentoCached];

    /// The name on the command line and in the consumer group.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nowbridge => "nowbridge",
            Self::Script => "script",
            Self::Bento => "bento",
            Self::BentoCached => "bento-cached",
        }
    }

    /// The name in the report.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nowbridge => "nowbridge",
            Self::Script => "Python script",
            Self::Bento => "Bento",
            Self::BentoCached => "Bento, cached",
        }
    }

    /// Installs it, and returns its versions, or why it cannot run here.
    pub fn prepare(self) -> Result<String, String> {
        match self {
            Self::Nowbridge => Ok(format!("nowbridge {}", env!("CARGO_PKG_VERSION"))),
            Self::Script => prepare_script(),
            Self::Bento | Self::BentoCached => prepare_bento(),
        }
    }

    /// The command that runs it between the topic and the instance of this testbed, with this limit of requests.
    pub fn command(self, testbed: &Testbed, requests_per_minute: Option<u32>) -> Command {
        let mut command = match self {
            Self::Nowbridge => return testbed.command(),
            Self::Script => {
                let mut python = Command::new(prepared("venv").join("bin/python"));
                python.arg(baseline("script.py"));
                python
            }
            Self::Bento | Self::BentoCached => {
                let mut bento = Command::new(prepared("bento"));
                bento.arg("-c").arg(baseline(&format!("{}.yaml", self.name())));
                if let Some(requests) = requests_per_minute {
                    bento.env("REQUESTS_PER_SECOND", (requests / 60).to_string());
                }
                bento
            }
        };
        command.env("KAFKA", testbed.bootstrap()).env("TOPIC", testbed.topic()).env("SERVICENOW_URL", testbed.url());
        command.env("SERVICENOW_USER", "nowbridge").env("SERVICENOW_PASSWORD", "nowbridge");
        command
    }

    /// Waits until it is ready: the bridge by its health endpoint, the others when their consumer groups are stable.
    pub async fn await_ready(self, testbed: &Testbed) {
        if self == Self::Nowbridge {
            return testbed.await_ready().await;
        }
        let group = format!("{}.{}", testbed.topic(), self.name());
        let (bootstrap, name) = (testbed.bootstrap().to_owned(), self.title());
        let await_stable = move || {
            let client: BaseConsumer =
                ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client");
            let deadline = Instant::now() + Duration::from_secs(60);
            loop {
                let list = client.fetch_group_list(Some(&group), Duration::from_secs(5)).expect("groups");
                if list.groups().iter().any(|group| group.state() == "Stable" && !group.members().is_empty()) {
                    return;
                }
                assert!(Instant::now() < deadline, "{name} does not join its group");
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        tokio::task::spawn_blocking(await_stable).await.expect("it waits");
    }
}

fn prepare_script() -> Result<String, String> {
    let requirements = std::fs::read_to_string(baseline("requirements.txt")).map_err(|error| error.to_string())?;
    let installed = prepared("venv").join("requirements.txt");
    if std::fs::read_to_string(&installed).ok().as_ref() != Some(&requirements) {
        output_of(Command::new("python3").args(["-m", "venv"]).arg(prepared("venv")))?;
        let mut pip = Command::new(prepared("venv").join("bin/pip"));
        output_of(pip.args(["install", "--quiet", "--requirement"]).arg(baseline("requirements.txt")))?;
        std::fs::write(&installed, &requirements).map_err(|error| error.to_string())?;
    }
    let python = output_of(Command::new(prepared("venv").join("bin/python")).arg("--version"))?;
    Ok(format!("{}, {}", python.trim(), requirements.lines().collect::<Vec<_>>().join(", ").replace("==", " ")))
}

fn prepare_bento() -> Result<String, String> {
    let mut build = Command::new("go");
    build.args(["build", "-trimpath", "-buildvcs=false", "-o"]).arg(prepared("bento")).arg(".");
    output_of(build.current_dir(baseline("bento")))?;
    let version = output_of(Command::new(prepared("bento")).arg("--version"))?;
    let version = version.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or("of unknown version");
    Ok(format!("Bento {version}, built with {}", output_of(Command::new("go").args(["env", "GOVERSION"]))?.trim()))
}

/// The standard output of a command; or why it failed, with the last line of its standard error.
fn output_of(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{program} cannot be started: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let stderr = text(&output.stderr);
    Err(format!("{program} failed: {}", stderr.trim().lines().last().unwrap_or("no error message")))
}

/// A file or folder of `baselines/`.
fn baseline(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/baselines").join(name)
}

/// The path of an installed file or folder.
fn prepared(name: &str) -> PathBuf {
    let folder = target().join("baselines");
    std::fs::create_dir_all(&folder).expect("a folder for the baselines");
    folder.join(name)
}

/// The target directory.
pub fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp).to_path_buf()
}
