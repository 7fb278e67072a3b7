//! A real Apache Kafka from its Maven artifacts: one process with a folder below the target directory. It ends with the
//! test process, however that one ends.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nowbridge::kafka::KafkaOptions;

use super::kafka::{await_ready, runs};

/// SCRAM user of a secure broker.
pub const SCRAM_USER: (&str, &str) = ("alice", "alice-secret");
/// PLAIN user of a secure broker.
pub const PLAIN_USER: (&str, &str) = ("bob", "bob-secret");

/// A broker process. Dropping it ends the process and removes its folder.
pub struct LocalBroker {
    /// `host:port` of the plain text listener.
    pub bootstrap: String,
    /// `host:port` of SASL over TLS, on a secure broker.
    pub sasl: String,
    /// `host:port` of TLS with client certificates, on a secure broker.
    pub ssl: String,
    dir: PathBuf,
    process: Option<Child>,
}

impl LocalBroker {
    /// Whether this machine can run one: it has a JDK, and the jars or Maven to download them.
    pub fn available() -> bool {
        static JARS: OnceLock<bool> = OnceLock::new();
        *JARS.get_or_init(|| runs("java", &["-version"]) && (has_jars() || (runs("mvn", &["-v"]) && download_jars())))
    }

    /// Starts a broker with these settings in addition to the template.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::launch(settings, false)
    }

    /// Starts a broker with secure listeners; see [`SCRAM_USER`] and [`PLAIN_USER`].
    pub fn start_secure() -> Self {
        Self::launch(&[], true)
    }

    /// Options for its plain text clients.
    pub fn options(&self) -> KafkaOptions {
        KafkaOptions::new(&self.bootstrap)
    }

    /// Path of a certificate or key of the secure broker: `ca.crt`, `client.crt`, `client.key`, `stranger.crt`,
    /// `stranger.key`.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.dir.join("certs").join(name)
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.process = None;
    }

    /// Freezes it: connections stay open, and it does not respond.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Continues it after [`Self::freeze`].
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Starts it again after [`Self::kill`], with its data.
    pub fn restart(&mut self) {
        self.process = Some(run_broker(&self.dir));
        assert!(await_ready(&self.bootstrap, Duration::from_secs(60)), "{}", self.log());
    }

    fn signal(&self, signal: &str) {
        let pid = fs::read_to_string(self.dir.join("pid")).unwrap_or_default();
        assert!(runs("kill", &[&format!("-{signal}"), pid.trim()]), "can't send {signal} to the broker");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn launch(settings: &[(&str, &str)], secure: bool) -> Self {
        let dir = target().join("kafka-brokers").join(format!("{}-{:08x}", std::process::id(), fastrand::u32(..)));
        fs::create_dir_all(&dir).expect("a folder for the broker");
        remove_old_folders();
        // Another process may take a port before the broker does.
        for _ in 0..3 {
            let ports: [u16; 4] = std::array::from_fn(|_| free_port());
            write_properties(&dir, ports, settings, secure);
            if secure {
                make_certificates(&dir.join("certs"));
            }
            format_storage(&dir, secure);
            let at = |port: u16| format!("127.0.0.1:{port}");
            let (bootstrap, sasl, ssl) = (at(ports[0]), at(ports[2]), at(ports[3]));
            let process = Some(run_broker(&dir));
            let broker = Self { bootstrap, sasl, ssl, dir: dir.clone(), process };
            if await_ready(&broker.bootstrap, Duration::from_secs(60)) {
                return broker;
            }
            eprintln!("the broker did not start:\n{}", broker.log());
            std::mem::forget(broker);
        }
        panic!("no local broker after three attempts");
    }
}

impl Drop for LocalBroker {
    fn drop(&mut self) {
        // When its standard input is closed, the shell kills the broker and ends.
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes the folders of processes that have ended: the shared broker is never dropped, so its folder remains. A
/// folder's name starts with the id of the process that created it.
fn remove_old_folders() {
    for folder in fs::read_dir(target().join("kafka-brokers")).into_iter().flatten().flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let creator = name.split('-').next().unwrap_or_default();
        if Path::new("/proc").exists() && !Path::new("/proc").join(creator).exists() {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

/// Starts a shell that runs a command when this process ends, even by SIGKILL: the shell waits for the end of its
/// standard input, a pipe that only this process holds open.
#[cfg(feature = "docker")]
pub fn run_at_exit(command: &str) -> Child {
    let script = format!("cat >/dev/null; {command} >/dev/null 2>&1");
    let mut sh = Command::new("sh");
    sh.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    sh.spawn().expect("a shell")
}

fn run_broker(dir: &Path) -> Child {
    // The broker runs in the background of a shell, which kills it when the shell's standard input ends.
    let script = r#""$@" >>log 2>&1 & echo $! >pid; cat >/dev/null; kill -KILL $!"#;
    let mut sh = Command::new("sh");
    sh.args(["-c", script, "broker", "java", "-Xms64m", "-Xmx512m"]).args(java_arguments());
    sh.args(["kafka.Kafka", "broker.properties"]).current_dir(dir);
    sh.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = fs::remove_file(dir.join("pid"));
    let child = sh.spawn().expect("a shell");
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(dir.join("pid")).map_or(true, |pid| pid.trim().is_empty()) && Instant::now() < deadline {
        std::thread::yield_now();
    }
    child
}

fn java_arguments() -> Vec<String> {
    let log4j = manifest().join("tests/kafka/log4j2.properties");
    let classes = jars().join("*");
    // One compiler thread and one collector thread: a test broker does not run long enough to need more.
    let fixed = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Djava.awt.headless=true"];
    let mut arguments: Vec<String> = fixed.map(str::to_owned).to_vec();
    arguments.push(format!("-Dlog4j2.configurationFile={}", log4j.display()));
    arguments.extend(["-cp".to_owned(), classes.display().to_string()]);
    arguments
}

fn write_properties(dir: &Path, ports: [u16; 4], settings: &[(&str, &str)], secure: bool) {
    let template = |name: &str| fs::read_to_string(manifest().join("tests/kafka").join(name)).expect("a template");
    let mut text = template("broker.properties");
    if secure {
        text.push_str(&template("secure.properties"));
    }
    for (name, value) in settings {
        text.push_str(&format!("{name}={value}\n"));
    }
    for (placeholder, port) in ["@PORT@", "@CONTROLLER@", "@SASL@", "@SSL@"].into_iter().zip(ports) {
        text = text.replace(placeholder, &port.to_string());
    }
    fs::write(dir.join("broker.properties"), text).expect("the broker's settings");
}

fn format_storage(dir: &Path, secure: bool) {
    let mut format = Command::new("java");
    format.args(java_arguments()).args(["kafka.tools.StorageTool", "format", "--ignore-formatted"]);
    format.args(["-t", "bm93YnJpZGdlLXRlc3RzMQ", "-c", "broker.properties"]).current_dir(dir);
    if secure {
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let (name, password) = SCRAM_USER;
            format.args(["--add-scram", &format!("{mechanism}=[name={name},password={password}]")]);
        }
    }
    let output = format.output().expect("java runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn make_certificates(dir: &Path) {
    fs::create_dir_all(dir).expect("a folder for certificates");
    let script = r#"set -e
authority() {
  openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=$1" -keyout "$1.key" -out "$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}
signed() { # name authority extensions
  openssl req -newkey rsa:2048 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
  printf '%s\n' "$3" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 30 -out "$1.crt" -extfile "$1.ext"
}
authority ca
authority other
signed broker ca 'subjectAltName=DNS:localhost,IP:127.0.0.1'
signed client ca 'extendedKeyUsage=clientAuth'
signed stranger other 'extendedKeyUsage=clientAuth'
cat broker.key broker.crt ca.crt >broker.pem"#;
    let output = Command::new("sh").args(["-c", script]).current_dir(dir).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn has_jars() -> bool {
    jars().join("complete").exists()
}

/// Downloads the jars to a temporary folder and renames it, so that a failed download or two concurrent runs leave no
/// incomplete folder.
fn download_jars() -> bool {
    eprintln!("downloading Apache Kafka with Maven (44 MB, once)");
    let temporary = target().join(format!("kafka-jars-{}", std::process::id()));
    let pom = manifest().join("tests/kafka/pom.xml");
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "-f"]).arg(pom).arg("dependency:copy-dependencies");
    maven.arg(format!("-DoutputDirectory={}", temporary.display())).stdin(Stdio::null());
    let output = maven.output().expect("mvn runs");
    if !output.status.success() {
        eprintln!("Maven could not download Kafka: {}", String::from_utf8_lossy(&output.stdout));
        return false;
    }
    let done = fs::write(temporary.join("complete"), "").and_then(|()| fs::rename(&temporary, jars()));
    done.is_ok() || has_jars()
}

/// Returns a free port below the range that the system uses for outgoing connections.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn jars() -> PathBuf {
    target().join("kafka-jars")
}

fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp).to_path_buf()
}

fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
