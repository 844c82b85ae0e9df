//! Starts the program, reads its banner, waits for conditions, ends it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a condition may take to hold, on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// What `/bin/kill` calls them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Term,
    Int,
    Kill,
}

#[expect(clippy::disallowed_methods, reason = "tests of the real process live in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Looks until `condition` gives something; `what` says what was awaited in vain.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        #[expect(clippy::disallowed_methods, reason = "the pause between two looks at another process")]
        std::thread::sleep(LOOK);
    }
}

/// The program with `arguments`, without the settings that the tests' own environment may hold.
pub(crate) fn millrace(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLRACE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the program to its end, which is expected soon.
pub(crate) fn run(arguments: &[&str]) -> Output {
    millrace(arguments).output().expect("the program starts")
}

/// Runs the program to its end, which must be a failure: status 1, nothing on standard output. Gives the last line on
/// standard error.
pub(crate) fn refusal(command: &mut Command) -> String {
    let mut child = Running::start(command);
    let status = child.end();
    let (out, err) = (child.out(), child.err());
    assert_eq!(status.code(), Some(1), "{out}{err}");
    assert_eq!(out, "", "{err}");
    let last = err.lines().last().expect("a failure says why");
    assert!(last.starts_with("millrace: "), "{err}");
    last.to_owned()
}

/// A process of the program, its output in files. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    output: TempDir,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        let output = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| File::create(output.path().join(name)).expect("it can be written");
        let child = command.stdout(file("out")).stderr(file("err")).spawn().expect("the program starts");
        Running { child, output }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.output.path().join(name)).expect("the program writes text")
    }

    /// Standard output so far.
    pub(crate) fn out(&self) -> String {
        self.read("out")
    }

    /// Standard error so far.
    pub(crate) fn err(&self) -> String {
        self.read("err")
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        until("the process ends", || self.ended())
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        let name = match signal {
            Signal::Term => "TERM",
            Signal::Int => "INT",
            Signal::Kill => return self.child.kill().expect("it is our child"),
        };
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("the system has kill").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Also one that has ended: then both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the program's output:\n{}{}", self.out(), self.err());
        }
    }
}

/// What `millrace serve` said when it was up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Banner {
    pub(crate) name: String,
    pub(crate) cluster: String,
    /// Address of each shard, or the one that they share.
    pub(crate) kafka: Vec<String>,
    pub(crate) admin: Option<String>,
    pub(crate) text: String,
}

impl Banner {
    /// Reads it; `None` while its last line has not come.
    fn parse(text: &str) -> Option<Banner> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix("  ")?.strip_prefix(name));
            line.filter(|rest| rest.starts_with(' ')).map(str::trim)
        };
        field("acks=0").filter(|_| text.ends_with('\n'))?;
        let first = text.lines().next()?.strip_prefix("millrace ")?;
        let (name, cluster) = first.split_once(" is up, cluster ")?;
        let admin = field("admin").map(|line| line.strip_prefix("http://").expect("a URL"));
        Some(Banner {
            name: name.to_owned(),
            cluster: cluster.to_owned(),
            kafka: field("kafka")?.split(", ").map(str::to_owned).collect(),
            admin: admin.map(|line| line.split('/').next().expect("one part at least").to_owned()),
            text: text.to_owned(),
        })
    }
}

/// A broker that serves.
pub(crate) struct Broker {
    pub(crate) process: Running,
    pub(crate) banner: Banner,
}

impl Broker {
    /// Starts one on free ports with a data directory and more settings, and waits until it is ready.
    pub(crate) fn start(data: &Path, settings: &[&str]) -> Broker {
        Broker::start_command(serve(data).args(settings))
    }

    pub(crate) fn start_command(command: &mut Command) -> Broker {
        let mut process = Running::start(command);
        let banner = until("the banner", || {
            if let Some(status) = process.ended() {
                panic!("ended with {status} instead: {}", process.err());
            }
            Banner::parse(&process.out())
        });
        let broker = Broker { process, banner };
        if broker.banner.admin.is_some() {
            until("ready", || (broker.get("/readyz").0 == 200).then_some(()));
        }
        broker
    }

    /// Status and body of a page of the admin endpoint.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        http(self.admin(), &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    pub(crate) fn admin(&self) -> &str {
        self.banner.admin.as_deref().expect("started with --admin")
    }

    /// A number of `/metrics`, summed over shards.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics");
        let values = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.split('{').next() == Some(name)).then(|| value.parse::<u64>().expect("a number"))
        });
        values.sum()
    }

    /// Where shard 0 listens.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.banner.kafka[0]
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.process.signal(Signal::Kill);
        self.process.end();
    }

    /// Ends it as a service manager does: success, and the log sealed.
    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::Term);
        let status = self.process.end();
        let log = self.process.err();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("\"sealed\":true"), "{log}");
    }

    /// Runs `millrace topic` against it; standard output, if it succeeds.
    pub(crate) fn topic(&self, arguments: &[&str]) -> Result<String, String> {
        let output = run(&[&["topic", "--bootstrap", self.bootstrap()], arguments].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        match output.status.code() {
            Some(0) => Ok(text(output.stdout)),
            Some(1) => Err(text(output.stderr)),
            other => panic!("status {other:?}: {}", text(output.stderr)),
        }
    }
}

/// `millrace serve` on free ports with the admin endpoint on, in the mode that the tests run in.
pub(crate) fn serve(data: &Path) -> Command {
    let mut command = serve_alone(data);
    if shares_port() {
        command.args(["--shared-port", "true"]);
    }
    command
}

/// The same, in the default mode unless more is said.
pub(crate) fn serve_alone(data: &Path) -> Command {
    let data = data.to_str().expect("a plain path");
    millrace(&["serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
}

/// Whether the tests run against processes whose shards share a port.
pub(crate) fn shares_port() -> bool {
    std::env::var_os("MILLRACE_TEST_SHARED_PORT").is_some()
}

/// Sends bytes to an HTTP server and reads the answer to its end. Status 0: it was closed without one.
pub(crate) fn http(address: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the endpoint listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a valid limit");
    let mut answer = Vec::new();
    let exchanged = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
    if let Err(error) = exchanged {
        // Closed on us with bytes unread: fine, if there was an answer before it.
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    let answer = String::from_utf8(answer).expect("text");
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (0, answer) };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_else(|| panic!("a status: {head}")), body.to_owned())
}

/// A directory of a test, and a data directory in it.
pub(crate) fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    (directory, data)
}
