//! A real etcd on loopback: the program that `MILLRACE_TEST_ETCD` names, else `etcd` on the path. Where neither is there,
//! tests are left out, and say so; `ci/test` names one, so there they are not.

use millrace_storage::meta::etcd::{EtcdAddress, EtcdMeta, EtcdSettings, OnOther};
use millrace_storage::object::OpenError;
use millrace_storage::side::SideRuntime;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use uuid::Uuid;

/// The id that a namespace gets which a test makes.
pub(crate) const ID: Uuid = Uuid::from_u128(77);

const NAMED: &str = "MILLRACE_TEST_ETCD";

fn binary() -> PathBuf {
    std::env::var_os(NAMED).map_or_else(|| "etcd".into(), PathBuf::from)
}

/// Whether there is no etcd to test with. A test that asks ends; that it did is written where it is always seen.
pub(crate) fn is_missing() -> bool {
    let probe = Command::new(binary()).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let missing =
        std::env::var_os(NAMED).is_none() && probe.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if missing {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let line = format!("left out: {test}: no etcd on the path; ci/install.sh installs one, or {NAMED} names it\n");
        std::io::stderr().write_all(line.as_bytes()).expect("stderr is open");
    }
    missing
}

/// A port that nobody uses.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback has a port").port()
}

/// One member and its data; it ends with this.
pub(crate) struct Etcd {
    child: Option<Child>,
    pub(crate) data: tempfile::TempDir,
    /// Ports for clients.
    pub(crate) ports: Vec<u16>,
    scheme: &'static str,
    arguments: Vec<String>,
}

impl Etcd {
    /// A member of its own, ready.
    pub(crate) fn start(more: &[&str]) -> Etcd {
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut etcd = Etcd::prepared("one", &peer, &format!("one={peer}"), "http", more);
        etcd.run();
        etcd
    }

    /// A member that speaks TLS to clients.
    pub(crate) fn start_tls(more: &[&str]) -> Etcd {
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut etcd = Etcd::prepared("one", &peer, &format!("one={peer}"), "https", more);
        etcd.spawn();
        etcd
    }

    /// Three members of one cluster, ready.
    pub(crate) fn three() -> [Etcd; 3] {
        let peers = ["a", "b", "c"].map(|name| (name, format!("http://127.0.0.1:{}", free_port())));
        let all = peers.iter().map(|(name, peer)| format!("{name}={peer}")).collect::<Vec<_>>().join(",");
        let mut members = peers.map(|(name, peer)| Etcd::prepared(name, &peer, &all, "http", &[]));
        members.iter_mut().for_each(Etcd::spawn);
        members.iter().for_each(Etcd::wait_until_ready);
        members
    }

    fn prepared(name: &str, peer: &str, all: &str, scheme: &'static str, more: &[&str]) -> Etcd {
        let arguments = [
            "--name",
            name,
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
            "--initial-cluster",
            all,
        ];
        let arguments = arguments.iter().chain(more).map(|text| (*text).to_owned()).collect();
        let data = tempfile::tempdir().expect("a directory");
        Etcd { child: None, data, ports: vec![free_port(), free_port()], scheme, arguments }
    }

    fn spawn(&mut self) {
        let ports = self.ports.clone();
        self.spawn_on(&ports);
    }

    fn spawn_on(&mut self, ports: &[u16]) {
        assert!(self.child.is_none());
        let urls: Vec<String> = ports.iter().map(|port| format!("{}://127.0.0.1:{port}", self.scheme)).collect();
        let log = std::fs::File::options().create(true).append(true).open(self.data.path().join("log")).unwrap();
        let child = Command::new(binary())
            .args(&self.arguments)
            .arg("--data-dir")
            .arg(self.data.path().join("data"))
            .args(["--listen-client-urls", &urls.join(","), "--advertise-client-urls", &urls.join(",")])
            .args(["--logger", "zap", "--log-level", "warn"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the etcd to test with starts"));
    }

    /// Starts it (again) on all of its ports.
    pub(crate) fn run(&mut self) {
        self.spawn();
        self.wait_until_ready();
    }

    /// Starts it again on one of its ports.
    pub(crate) fn run_on(&mut self, port: u16) {
        self.spawn_on(&[port]);
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let is_ready = || {
            self.ports
                .iter()
                .any(|port| http(*port, "GET", "/health", "").is_some_and(|text| text.contains("\"true\"")))
        };
        let mut left = 600;
        while !is_ready() {
            left -= 1;
            assert!(left > 0, "etcd is not ready; its log: {}", self.log());
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().is_ok_and(|status| status.success()));
    }

    /// A copy of its data; it must not run.
    pub(crate) fn backup(&self) -> tempfile::TempDir {
        assert!(self.child.is_none());
        let backup = tempfile::tempdir().expect("a directory");
        copy(&self.data.path().join("data"), &backup.path().join("data"));
        backup
    }

    /// Puts a copy in the place of its data; it must not run.
    pub(crate) fn restore(&mut self, backup: &tempfile::TempDir) {
        self.forget();
        copy(&backup.path().join("data"), &self.data.path().join("data"));
    }

    /// Removes its data; it must not run.
    pub(crate) fn forget(&mut self) {
        assert!(self.child.is_none());
        std::fs::remove_dir_all(self.data.path().join("data")).expect("it has data");
    }

    /// Other arguments from the next start on.
    pub(crate) fn more_arguments(&mut self, more: &[&str]) {
        self.arguments.extend(more.iter().map(|text| (*text).to_owned()));
    }

    pub(crate) fn address(&self, namespace: &str) -> String {
        let hosts: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let scheme = if self.scheme == "http" { "etcd" } else { "etcds" };
        format!("{scheme}://{}/{namespace}", hosts.join(","))
    }

    /// A handle on a namespace of it.
    pub(crate) fn open(&self, namespace: &str, side: &SideRuntime) -> EtcdMeta {
        open(&self.address(namespace), &EtcdSettings::default(), side).expect("it opens")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Opens `address`; that it is another etcd is a failed test.
pub(crate) fn open(address: &str, settings: &EtcdSettings, side: &SideRuntime) -> Result<EtcdMeta, OpenError> {
    let never: OnOther = Arc::new(|error| panic!("{error}"));
    EtcdMeta::open(&EtcdAddress::parse(address).unwrap(), settings, side, Some(ID), never)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// One request in the clear; its whole answer.
pub(crate) fn http(port: u16, method: &str, path: &str, body: &str) -> Option<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).ok()?;
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}
