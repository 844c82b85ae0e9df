//! A whole cluster on loopback: an etcd, an S3 server, and brokers, each of which reaches either and is reached by its clients
//! through proxies of its own.
//!
//! 1. A broker knows etcd, the store and its own advertised address only by its proxies, so each link can fail alone.
//! 2. What is killed is started again on the same port and the same data.
//! 3. All of it ends with the program.

use crate::cluster;
use crate::process::{Broker, RunDirectory, Setup, free_ports};
use crate::proxy::{Mode, Proxy};
use crate::route::Bootstrap;
use crate::trouble::Trouble;
use clap::Args;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for a process to be ready.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long etcd may take to answer how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of that answer that are looked at.
const HEALTH_BYTES: u64 = 4096;
/// The bucket.
const BUCKET: &str = "millrace-test";
/// What the S3 server asks for.
const ACCESS: (&str, &str) = ("test-access", "test-secret");

/// Which cluster a proof runs against.
#[derive(Args, Clone, Debug)]
pub(crate) struct Cluster {
    /// The broker's program.
    #[arg(long, default_value = "target/release/millrace")]
    binary: PathBuf,
    /// etcd's program.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// The S3 server's program (`ci/s3-server.sh program`).
    #[arg(long, default_value = "versitygw")]
    s3_server: PathBuf,
    /// Broker processes.
    #[arg(long, default_value_t = 3)]
    pub(crate) brokers: usize,
    /// Shards of each.
    #[arg(long, default_value_t = 1)]
    shards: u16,
    /// One more argument for each `millrace serve`; may be repeated.
    #[arg(long = "argument", allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

impl Cluster {
    /// One line that says what the proof ran against.
    pub(crate) fn describe(&self) -> String {
        let arguments = self.arguments.join(" ");
        format!("{} brokers with {} shard(s) on etcd and S3 {arguments}", self.brokers, self.shards)
            .trim_end()
            .to_owned()
    }
}

/// A program that is not a broker: etcd or the S3 server.
pub(crate) struct Service {
    setup: Setup,
    running: Option<Broker>,
    is_ready: fn(SocketAddr) -> bool,
}

impl Service {
    fn start(setup: Setup, is_ready: fn(SocketAddr) -> bool) -> Result<Self, Trouble> {
        let mut service = Service { setup, running: None, is_ready };
        service.run()?;
        Ok(service)
    }

    /// Starts it (again) and waits until it is ready.
    pub(crate) fn run(&mut self) -> Result<(), Trouble> {
        let broker = self.setup.start_listening(START_LIMIT)?;
        self.running = Some(broker);
        let deadline = Instant::now() + START_LIMIT;
        while !(self.is_ready)(self.setup.bootstrap) {
            if Instant::now() > deadline {
                return Err(Trouble::proof(format!("not ready:\n{}", self.setup.last_output())));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Kill -9.
    pub(crate) fn kill(&mut self) -> Result<(), Trouble> {
        self.running.take().map_or(Ok(()), |mut running| running.kill())
    }
}

/// A broker with its links.
pub(crate) struct Node {
    setup: Setup,
    /// While it runs or is stopped by a signal.
    pub(crate) broker: Option<Broker>,
    /// Its link to etcd.
    pub(crate) etcd: Proxy,
    /// Its link to the store.
    pub(crate) store: Proxy,
    clients: Vec<Proxy>,
}

impl Node {
    /// Starts it and waits until it listens.
    pub(crate) fn run(&mut self) -> Result<(), Trouble> {
        self.broker = Some(self.setup.start_listening(START_LIMIT)?);
        Ok(())
    }

    /// Kill -9.
    pub(crate) fn kill(&mut self) -> Result<(), Trouble> {
        self.broker.take().map_or(Ok(()), |mut broker| broker.kill())
    }

    /// What becomes of bytes from and to its clients.
    pub(crate) fn set_clients(&self, mode: Mode) {
        self.clients.iter().for_each(|proxy| proxy.set(mode));
    }

    /// Whether this address is one of those that it advertises.
    pub(crate) fn is_at(&self, address: SocketAddr) -> bool {
        self.clients.iter().any(|proxy| proxy.address == address)
    }

    /// Where its first shard is reached by clients.
    pub(crate) fn address(&self) -> SocketAddr {
        self.clients[0].address
    }

    /// The last lines that it printed.
    pub(crate) fn last_output(&self) -> String {
        self.setup.last_output()
    }
}

/// A running cluster.
pub(crate) struct World {
    pub(crate) etcd: Service,
    pub(crate) store: Service,
    pub(crate) nodes: Vec<Node>,
    directory: RunDirectory,
}

impl World {
    /// Starts everything.
    pub(crate) fn start(options: &Cluster) -> Result<Self, Trouble> {
        let directory = RunDirectory::new()?;
        let etcd = start_etcd(options, directory.path())?;
        let store = start_store(options, directory.path())?;
        let mut nodes = Vec::new();
        for index in 0..options.brokers {
            nodes.push(prepare_node(options, directory.path(), index, etcd.setup.bootstrap, store.setup.bootstrap)?);
        }
        nodes.iter_mut().try_for_each(Node::run)?;
        Ok(World { etcd, store, nodes, directory })
    }

    /// Where all brokers are, for a client with this patience.
    pub(crate) fn bootstrap(&self, patience: Duration) -> Bootstrap {
        Bootstrap::new(self.nodes.iter().map(Node::address).collect(), patience)
    }

    /// Waits until every broker knows all of them.
    pub(crate) fn await_members(&self, limit: Duration) -> Result<(), Trouble> {
        let all = self.nodes.iter().map(|node| node.clients.len()).sum();
        let know = |node: &Node| cluster::members(node.address()).is_ok_and(|members| members == all);
        let deadline = Instant::now() + limit;
        while !self.nodes.iter().all(know) {
            if Instant::now() > deadline {
                return Err(Trouble::proof(format!("not every broker knows all others after {limit:?}")));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Where the run keeps its files.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// No broker that should run has ended by itself.
    pub(crate) fn all_live(&mut self) -> Result<(), Trouble> {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if let Some(broker) = &mut node.broker
                && !broker.is_alive()?
            {
                return Err(Trouble::proof(format!("broker {index} ended by itself:\n{}", node.last_output())));
            }
        }
        Ok(())
    }

    /// After a failure: prints the brokers' last output and keeps the files.
    pub(crate) fn keep(self) {
        for (index, node) in self.nodes.iter().enumerate() {
            println!("--- last output of broker {index}\n{}", node.last_output());
        }
        drop((self.nodes, self.etcd, self.store));
        println!("--- the files of the run stay in {}", self.directory.keep().display());
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn start_etcd(options: &Cluster, directory: &Path) -> Result<Service, Trouble> {
    let port = free_ports(2)?;
    let (client, peer) = (format!("http://{}", local(port)), format!("http://{}", local(port + 1)));
    let data = directory.join("etcd");
    let arguments = [
        ("--data-dir", data.display().to_string()),
        ("--name", "one".to_owned()),
        ("--initial-cluster", format!("one={peer}")),
        ("--listen-peer-urls", peer.clone()),
        ("--initial-advertise-peer-urls", peer),
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client),
        ("--logger", "zap".to_owned()),
        ("--log-level", "warn".to_owned()),
    ];
    let arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    Service::start(Setup::new(&options.etcd, arguments, directory.join("etcd.log"), local(port)), etcd_is_ready)
}

fn etcd_is_ready(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(HEALTH_BYTES).read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"true\""))
}

fn start_store(options: &Cluster, directory: &Path) -> Result<Service, Trouble> {
    let port = free_ports(1)?;
    let buckets = directory.join("buckets");
    fs::create_dir_all(buckets.join(BUCKET))?;
    let mut arguments =
        ["--access", ACCESS.0, "--secret", ACCESS.1, "--keep-alive", "--port"].map(str::to_owned).to_vec();
    arguments.extend([local(port).to_string(), "posix".to_owned(), buckets.display().to_string()]);
    // It answers as soon as it listens.
    Service::start(Setup::new(&options.s3_server, arguments, directory.join("store.log"), local(port)), |_| true)
}

fn prepare_node(
    options: &Cluster,
    directory: &Path,
    index: usize,
    etcd: SocketAddr,
    store: SocketAddr,
) -> Result<Node, Trouble> {
    let listen = free_ports(options.shards)?;
    let advertise = free_ports(options.shards)?;
    let clients = (0..options.shards).map(|shard| Proxy::start_at(advertise + shard, local(listen + shard)));
    let clients = clients.collect::<Result<Vec<_>, _>>()?;
    let (etcd, store) = (Proxy::start(etcd)?, Proxy::start(store)?);
    let data = directory.join(format!("broker-{index}"));
    fs::create_dir_all(&data)?;
    let arguments = [
        ("--data-dir", data.display().to_string()),
        ("--name", format!("broker-{index}")),
        ("--listen", local(listen).to_string()),
        ("--advertise", local(advertise).to_string()),
        ("--shards", options.shards.to_string()),
        ("--metadata", format!("etcd://{}/proof", etcd.address)),
        ("--object-store", format!("s3://{BUCKET}/proof")),
    ];
    let arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    let arguments =
        ["serve".to_owned()].into_iter().chain(arguments).chain(options.arguments.iter().cloned()).collect();
    let output = directory.join(format!("broker-{index}.log"));
    let setup = Setup::new(&options.binary, arguments, output, local(listen))
        .with_variable("AWS_ENDPOINT_URL", format!("http://{}", store.address))
        .with_variable("AWS_ACCESS_KEY_ID", ACCESS.0.to_owned())
        .with_variable("AWS_SECRET_ACCESS_KEY", ACCESS.1.to_owned())
        .with_variable("AWS_REGION", "us-east-1".to_owned());
    Ok(Node { setup, broker: None, etcd, store, clients })
}
