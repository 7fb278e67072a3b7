//! Who is compared: this bridge, a Python script of the kind that people write, and Bento with an expert's
//! configuration, with a cache of tickets and without. What `baselines/` has of them is made ready here, under the
//! target directory; what this machine cannot make ready is told with the reason, never left out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    Ours,
    Script,
    Bento,
    BentoCached,
}

impl System {
    pub const ALL: [Self; 4] = [Self::Ours, Self::Script, Self::Bento, Self::BentoCached];

    /// On the command line, and of its consumer group.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Script => "script",
            Self::Bento => "bento",
            Self::BentoCached => "bento-cached",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Ours => "nowbridge",
            Self::Script => "Python script",
            Self::Bento => "Bento",
            Self::BentoCached => "Bento, cached",
        }
    }

    /// Makes it ready; its versions, or why it can't run here.
    pub fn prepare(self) -> Result<String, String> {
        match self {
            Self::Ours => Ok(format!("nowbridge {}", env!("CARGO_PKG_VERSION"))),
            Self::Script => prepare_script(),
            Self::Bento | Self::BentoCached => prepare_bento(),
        }
    }

    /// What runs it between the topic and the instance of this world, at so many requests a minute.
    pub fn command(self, world: &World, quota: Option<u32>) -> Command {
        let mut command = match self {
            Self::Ours => return world.command(),
            Self::Script => {
                let mut python = Command::new(place("venv").join("bin/python"));
                python.arg(source("script.py"));
                python
            }
            Self::Bento | Self::BentoCached => {
                let mut bento = Command::new(place("bento"));
                bento.arg("-c").arg(source(&format!("{}.yaml", self.name())));
                if let Some(quota) = quota {
                    bento.env("QUOTA_A_SECOND", (quota / 60).to_string());
                }
                bento
            }
        };
        command.env("KAFKA", world.bootstrap()).env("TOPIC", world.topic()).env("SERVICENOW_URL", world.url());
        command.env("SERVICENOW_USER", "nowbridge").env("SERVICENOW_PASSWORD", "nowbridge");
        command
    }

    /// Waits until it is ready: the bridge says so, the others' consumer groups are stable.
    pub async fn await_ready(self, world: &World) {
        if self == Self::Ours {
            return world.await_ready().await;
        }
        let group = format!("{}.{}", world.topic(), self.name());
        let (bootstrap, name) = (world.bootstrap().to_owned(), self.title());
        let ready = move || {
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
        tokio::task::spawn_blocking(ready).await.expect("it waits");
    }
}

fn prepare_script() -> Result<String, String> {
    let wanted = std::fs::read_to_string(source("requirements.txt")).map_err(|error| error.to_string())?;
    let done = place("venv").join("requirements.txt");
    if std::fs::read_to_string(&done).ok().as_ref() != Some(&wanted) {
        told(Command::new("python3").args(["-m", "venv"]).arg(place("venv")))?;
        let mut pip = Command::new(place("venv").join("bin/pip"));
        told(pip.args(["install", "--quiet", "--requirement"]).arg(source("requirements.txt")))?;
        std::fs::write(&done, &wanted).map_err(|error| error.to_string())?;
    }
    let python = told(Command::new(place("venv").join("bin/python")).arg("--version"))?;
    Ok(format!("{}, {}", python.trim(), wanted.lines().collect::<Vec<_>>().join(", ").replace("==", " ")))
}

fn prepare_bento() -> Result<String, String> {
    let mut build = Command::new("go");
    build.args(["build", "-trimpath", "-buildvcs=false", "-o"]).arg(place("bento")).arg(".");
    told(build.current_dir(source("bento")))?;
    let version = told(Command::new(place("bento")).arg("--version"))?;
    let version = version.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or("of unknown version");
    Ok(format!("Bento {version}, built with {}", told(Command::new("go").args(["env", "GOVERSION"]))?.trim()))
}

/// What a command prints; else why it can't be had, in the last words that it said.
fn told(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{program} can't be started: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    Err(format!("{program} failed: {}", said.trim().lines().last().unwrap_or("it does not say why")))
}

/// A file or folder of `baselines/`.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/baselines").join(name)
}

/// Where what is made from it lies.
fn place(name: &str) -> PathBuf {
    let folder = target().join("baselines");
    std::fs::create_dir_all(&folder).expect("a folder for the baselines");
    folder.join(name)
}

/// The target directory.
pub fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp).to_path_buf()
}
