//! The broker as a process: started on a free range of ports, killed, measured.

use crate::trouble::Trouble;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Where the search for free ports begins; below the range that the kernel gives to clients.
const FIRST_PORT: u16 = 21_000;
/// Ports that are tried.
const PORTS: u16 = 10_000;
/// Lines of the broker's output that a failure shows.
const SHOWN_LINES: usize = 30;
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How often the resident size is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// Which broker a proof runs against.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// The broker's program.
    #[arg(long, default_value = "target/release/millrace")]
    pub(crate) binary: PathBuf,
    /// Shards of the broker.
    #[arg(long, default_value_t = 1)]
    pub(crate) shards: u16,
    /// Write-ahead logs of the broker.
    #[arg(long, default_value_t = 1)]
    pub(crate) lanes: u16,
    /// s3://BUCKET/PREFIX (each run takes a prefix of its own below it), or nothing for the local disk.
    #[arg(long)]
    pub(crate) object_store: Option<String>,
    /// One more argument for `millrace serve`; may be repeated.
    #[arg(long = "argument", allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
    /// A shell command that runs another Kafka broker instead, with {port} and {dir} filled in.
    #[arg(long)]
    pub(crate) command: Option<String>,
}

/// How to start the broker of one run, again and again on the same data.
pub(crate) struct Setup {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    output: PathBuf,
    /// Where the first shard listens.
    pub(crate) bootstrap: SocketAddr,
}

impl Target {
    /// Decides ports and directories of a run below `directory`.
    pub(crate) fn setup(&self, directory: &Path) -> Result<Setup, Trouble> {
        let port = free_ports(self.shards)?;
        let data = directory.join("data");
        fs::create_dir_all(&data)?;
        let bootstrap = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let output = directory.join("broker.log");
        if let Some(command) = &self.command {
            let filled = command.replace("{port}", &port.to_string()).replace("{dir}", &data.display().to_string());
            let arguments = vec!["-c".to_owned(), format!("exec {filled}")];
            return Ok(Setup { program: "sh".into(), arguments, environment: Vec::new(), output, bootstrap });
        }
        let mut arguments: Vec<String> = ["serve", "--data-dir"].map(str::to_owned).into();
        arguments.push(data.display().to_string());
        arguments.extend(["--listen".to_owned(), bootstrap.to_string()]);
        arguments.extend(["--shards".to_owned(), self.shards.to_string()]);
        arguments.extend(["--wal-lanes".to_owned(), self.lanes.to_string()]);
        if let Some(store) = &self.object_store {
            let run = directory.file_name().expect("a run has a directory of its own").to_string_lossy();
            let run = run.trim_start_matches('.');
            arguments.extend(["--object-store".to_owned(), format!("{}/{run}", store.trim_end_matches('/'))]);
        }
        arguments.extend(self.arguments.iter().cloned());
        Ok(Setup { program: self.binary.clone(), arguments, environment: Vec::new(), output, bootstrap })
    }

    /// One line that says what the proof ran against.
    pub(crate) fn describe(&self) -> String {
        match &self.command {
            Some(command) => command.clone(),
            None => format!(
                "{} with {} shard(s), {} lane(s), on {}",
                self.binary.display(),
                self.shards,
                self.lanes,
                self.object_store.as_deref().unwrap_or("the local disk")
            ),
        }
    }
}

impl Setup {
    /// Of a program whose output goes to a file of its own and that listens at `bootstrap`.
    pub(crate) fn new(program: &Path, arguments: Vec<String>, output: PathBuf, bootstrap: SocketAddr) -> Self {
        Setup { program: program.to_owned(), arguments, environment: Vec::new(), output, bootstrap }
    }

    /// Sets a variable of the broker's environment.
    pub(crate) fn with_variable(mut self, name: &str, value: String) -> Self {
        self.environment.push((name.to_owned(), value));
        self
    }

    /// Starts the process; it need not listen yet.
    pub(crate) fn start(&self) -> Result<Broker, Trouble> {
        let output = OpenOptions::new().create(true).append(true).open(&self.output)?;
        let errors = output.try_clone()?;
        let started = Instant::now();
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|e| Trouble::proof(format!("{}: {e}", self.program.display())))?;
        Ok(Broker { child, started })
    }

    /// Starts the process and waits until it listens.
    pub(crate) fn start_listening(&self, limit: Duration) -> Result<Broker, Trouble> {
        let mut broker = self.start()?;
        let deadline = Instant::now() + limit;
        while TcpStream::connect(self.bootstrap).is_err() {
            if let Some(status) = broker.child.try_wait()? {
                return Err(Trouble::proof(format!("the broker ended with {status}:\n{}", self.last_output())));
            }
            if Instant::now() > deadline {
                return Err(Trouble::proof(format!("not listening after {limit:?}:\n{}", self.last_output())));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(broker)
    }

    /// The last lines that the broker printed.
    pub(crate) fn last_output(&self) -> String {
        let text = fs::read(&self.output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

/// A running broker. Dropped, it is killed.
pub(crate) struct Broker {
    child: Child,
    /// When the process was started.
    pub(crate) started: Instant,
}

impl Broker {
    /// Kill -9, and wait until the process is gone.
    pub(crate) fn kill(&mut self) -> Result<(), Trouble> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Trouble> {
        let process = Pid::from_raw(self.child.id() as i32).expect("a process has a number");
        Ok(kill_process(process, signal).map_err(io::Error::from)?)
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn ended(&mut self, limit: Duration) -> Result<ExitStatus, Trouble> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Trouble::proof(format!("the process has not ended after {limit:?}")));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether the process has not ended by itself.
    pub(crate) fn is_alive(&mut self) -> Result<bool, Trouble> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Resident size, in KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64, Trouble> {
        resident_kib(self.child.id())
    }

    /// Watches the resident size until told to stop.
    pub(crate) fn watch_resident(&self) -> Result<ResidentWatch, Trouble> {
        let (process, stopped) = (self.child.id(), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&stopped);
        let thread = thread::Builder::new().name("resident".to_owned()).spawn(move || {
            let mut largest = 0;
            while !until.load(Ordering::Acquire) {
                largest = largest.max(resident_kib(process)?);
                thread::sleep(WATCH_EVERY);
            }
            Ok(largest)
        })?;
        Ok(ResidentWatch { stopped, thread })
    }
}

/// A watch on the resident size of a broker.
pub(crate) struct ResidentWatch {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, Trouble>>,
}

impl ResidentWatch {
    /// The largest size seen, in KiB.
    pub(crate) fn stop(self) -> Result<u64, Trouble> {
        self.stopped.store(true, Ordering::Release);
        self.thread.join().map_err(|_| Trouble::proof("the watch panicked"))?
    }
}

fn resident_kib(process: u32) -> Result<u64, Trouble> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.ok_or_else(|| Trouble::proof("the broker is gone: no VmRSS"))
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of `count` neighbouring free ports.
pub(crate) fn free_ports(count: u16) -> Result<u16, Trouble> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() as u16).wrapping_mul(97) % PORTS;
    for _ in 0..PORTS / count {
        let first = FIRST_PORT + (offset.wrapping_add(NEXT.fetch_add(count, Ordering::Relaxed))) % PORTS;
        let all: Result<Vec<_>, _> =
            (first..first + count).map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))).collect();
        if all.is_ok() {
            return Ok(first);
        }
    }
    Err(Trouble::proof(format!("no {count} neighbouring free ports")))
}

/// A directory of one run; kept when the proof fails, so that logs can be read.
pub(crate) struct RunDirectory(Option<tempfile::TempDir>);

impl RunDirectory {
    /// Makes it.
    pub(crate) fn new() -> Result<Self, Trouble> {
        Ok(RunDirectory(Some(tempfile::Builder::new().prefix("millrace-proof-").tempdir()?)))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().expect("taken only by keep").path()
    }

    /// Leaves it behind and says where.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.0.take().expect("kept once").keep()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_a_command_is_kept_and_its_death_is_seen() {
        let directory = RunDirectory::new().expect("a temporary directory");
        let target = Target {
            binary: PathBuf::new(),
            shards: 1,
            lanes: 1,
            object_store: None,
            arguments: Vec::new(),
            command: Some("echo port {port}".to_owned()),
        };
        let setup = target.setup(directory.path()).expect("ports are free");
        let trouble = setup.start_listening(Duration::from_secs(10)).err().expect("echo does not listen");
        assert!(trouble.to_string().contains(&format!("port {}", setup.bootstrap.port())), "{trouble}");
    }
}
