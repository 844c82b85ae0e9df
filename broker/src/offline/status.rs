//! `millrace status`: who owns what, by the metadata that brokers share, and what each broker tells of itself.
//!
//! It is one look, prefix by prefix, while things move: what is shown may be of several moments within the second.

use super::OfflineError;
use super::shared::{Shared, read};
use crate::control::cluster::view::View;
use crate::control::messages::COORDINATOR_SLOTS;
use crate::process::open::{DirectoryLock, LOCK_FILE, MetadataPlace, Places};
use crate::settings::Settings;
use millrace_storage::env::WallMs;
use millrace_storage::ids::{TopicPartition, Wid};
use millrace_storage::meta::embedded::{EmbeddedMeta, FILE_NAME};
use millrace_storage::meta::etcd::LeaseAge;
use millrace_storage::meta::keys;
use millrace_storage::meta::records::{BrokerRecord, ShardRecord, TopicRecord, WalRecord, WalState};
use millrace_storage::object::OpenError;
use millrace_storage::side::{block_on_local, wall_now};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// How long a broker may take to tell of itself.
const PATIENCE: Duration = Duration::from_secs(3);
/// Brokers that are asked at once.
const ASKED_AT_ONCE: usize = 16;
/// Bytes of an answer at most.
const ANSWER_BYTES: u64 = 16 << 20;

/// What a cluster looks like.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Status {
    /// Where the metadata are, for people.
    pub metadata: String,
    /// The broker that places things, if one does.
    pub controller: Option<String>,
    /// Brokers that live, or are to be left.
    pub brokers: Vec<Broker>,
    /// Write-ahead logs that are not sealed, those of the dead too.
    pub logs: Vec<Log>,
    /// Topics.
    pub topics: usize,
    /// Their partitions.
    pub partitions: usize,
    /// Partitions that nobody leads by the records.
    pub leaderless: Vec<Partition>,
    /// Coordinator slots that nobody has.
    pub slots_without: usize,
    /// Partitions that are wished to be elsewhere.
    pub moves: Vec<Move>,
}

/// One broker.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Broker {
    /// Its name.
    pub name: String,
    /// `serving`, `leaving` (by itself), `drained` (an operator wants it left), `suspected` (others get no answer), or
    /// `gone` (drained, and does not live).
    pub state: &'static str,
    /// Where it stands.
    pub zone: Option<String>,
    /// Its shards.
    pub shards: Vec<Shard>,
    /// Partitions that it leads.
    pub led: usize,
    /// Coordinator slots that it has.
    pub slots: usize,
    /// Partitions that are wished to it and elsewhere still.
    pub coming: usize,
    /// Time of its lease, milliseconds.
    pub lease_ms: Option<u64>,
    /// How long ago it was renewed, to a second; none where that can't be known.
    pub renewed_ms: Option<u64>,
    /// Where it tells of itself.
    pub admin: Option<String>,
    /// Why it told nothing of itself.
    pub silent: Option<String>,
    /// Partitions that it would lead, and does not serve because data of theirs is missing or contradicts itself.
    pub damaged: Option<u64>,
}

/// One shard.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Shard {
    /// Kafka's node.
    pub node: i32,
    /// What clients are told.
    pub address: String,
    /// Partitions that it leads.
    pub led: usize,
}

/// One write-ahead log.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Log {
    /// Its id.
    pub wid: String,
    /// Whose.
    pub broker: String,
    /// Of which lane.
    pub lane: u16,
    /// `open`, `fencing`, or `of a dead process`.
    pub state: &'static str,
    /// Partitions whose records name it.
    pub partitions: usize,
    /// How long ago an object was last put, milliseconds, if its broker tells.
    pub put_ms: Option<u64>,
    /// Bytes of committed records that are in no segment, if its broker tells.
    pub uncompacted_bytes: Option<u64>,
}

/// A partition by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Partition {
    /// Its topic.
    pub topic: String,
    /// Its index.
    pub index: u32,
}

/// A partition on its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Move {
    /// Which.
    pub partition: Partition,
    /// Broker and shard that have it.
    pub from: Option<String>,
    /// Broker and shard that shall have it.
    pub to: String,
}

/// Looks at the metadata that the settings name.
pub fn status(settings: &Settings) -> Result<Status, OfflineError> {
    let (view, ages, metadata) = match Places::existing_metadata(settings)? {
        MetadataPlace::Etcd(address) => {
            let shared = Shared::open(settings)?;
            let (view, ages) = block_on_local(async |_| {
                let view = shared.view().await?;
                let mut ages = BTreeMap::new();
                for (name, _) in view.brokers() {
                    if let Some(age) = shared.lease_age(&keys::broker(name)).await? {
                        ages.insert(name.clone(), age);
                    }
                }
                Ok::<_, OfflineError>((view, ages))
            })??;
            (view, ages, format!("the etcd at {}", address.endpoints.join(",")))
        }
        MetadataPlace::Embedded(directory) => {
            let _lock = only_if_stopped(settings, &directory)?;
            let copy = EmbeddedMeta::open_copy(&directory)?;
            let view = block_on_local(async |_| read(&copy).await)??;
            (view, BTreeMap::new(), format!("{} (its process does not run)", directory.display()))
        }
        MetadataPlace::Memory => {
            let problem = "the metadata of a memory: store are in its process alone";
            return Err(OpenError::new(problem, "ask its --admin endpoint for /metrics").into());
        }
    };
    let told = ask_all(view.brokers().filter_map(|(name, record)| Some((name.clone(), record.admin.clone()?))));
    Ok(Look { view: &view, ages, told, now: wall_now() }.status(metadata))
}

/// One process alone has an embedded store open.
fn only_if_stopped(settings: &Settings, directory: &Path) -> Result<Option<DirectoryLock>, OpenError> {
    if !directory.join(FILE_NAME).is_file() {
        let problem = format!("there is no metadata store at {}", directory.display());
        return Err(OpenError::new(problem, "name one with --metadata or --data-dir"));
    }
    let used = settings.data_dir.join(LOCK_FILE).exists();
    let taken = used.then(|| DirectoryLock::take(&settings.data_dir, "--data-dir")).transpose();
    taken.map_err(|_| {
        OpenError::new(
            format!("the metadata at {} are open in the process that runs, and in no other", directory.display()),
            "ask its --admin endpoint for /metrics, and it for its topics with `millrace topic`; an etcd can be looked at \
             at any time",
        )
    })
}

// ---- what brokers tell ----

/// What a broker tells of its lanes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Told {
    /// Unix seconds of the last put by lane; 0: none yet.
    put_at: BTreeMap<u16, u64>,
    uncompacted: BTreeMap<u16, u64>,
    damaged: u64,
}

type Answers = BTreeMap<String, Result<Told, String>>;

fn ask_all(brokers: impl Iterator<Item = (String, String)>) -> Answers {
    let brokers: Vec<(String, String)> = brokers.collect();
    let mut told = BTreeMap::new();
    for few in brokers.chunks(ASKED_AT_ONCE) {
        std::thread::scope(|scope| {
            let asked: Vec<_> = few.iter().map(|(name, admin)| (name, scope.spawn(move || ask(admin)))).collect();
            for (name, answer) in asked {
                let answer = answer.join().unwrap_or_else(|_| Err("asking it failed".to_owned()));
                told.insert(name.clone(), answer);
            }
        });
    }
    told
}

fn ask(admin: &str) -> Result<Told, String> {
    let exchange = || -> std::io::Result<String> {
        let address = admin.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.take(ANSWER_BYTES).read_to_string(&mut text)?;
        Ok(text)
    };
    exchange().map(|text| told_by(&text)).map_err(|error| error.to_string())
}

/// Reads what is needed of `/metrics`.
fn told_by(text: &str) -> Told {
    let mut told = Told::default();
    for line in text.lines() {
        let Some((series, value)) = line.trim_end().rsplit_once(' ') else { continue };
        let Some((name, labels)) = series.split_once('{') else { continue };
        let lane = labels.strip_prefix("lane=\"").and_then(|rest| rest.split('"').next()?.parse().ok());
        let (Some(lane), Ok(value)) = (lane, value.parse::<u64>()) else { continue };
        match name {
            "millrace_put_last_success_seconds" => _ = told.put_at.insert(lane, value),
            "millrace_uncovered_bytes" => _ = told.uncompacted.insert(lane, value),
            "millrace_damaged_partitions" => told.damaged += value,
            _ => {}
        }
    }
    told
}

// ---- the picture ----

struct Look<'a> {
    view: &'a View,
    ages: BTreeMap<String, LeaseAge>,
    told: Answers,
    now: WallMs,
}

impl Look<'_> {
    fn status(&self, metadata: String) -> Status {
        let all = self.partitions();
        let mut led: BTreeMap<i32, usize> = BTreeMap::new();
        let (mut leaderless, mut moves, mut coming) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (partition, named) in &all {
            let owner = self.view.owner(*partition);
            match owner.as_ref().and_then(|owner| owner.leader) {
                Some(node) => *led.entry(node).or_default() += 1,
                None => leaderless.push(named.clone()),
            }
            let at = owner.as_ref().and_then(|owner| Some((owner.broker.clone()?, owner.shard)));
            if let Some((wish, _)) = self.view.wish(*partition)
                && at.as_ref() != Some(&(wish.broker.clone(), wish.shard))
            {
                *coming.entry(wish.broker.clone()).or_default() += 1;
                let from = at.map(|(broker, shard)| format!("{broker}/{shard}"));
                moves.push(Move { partition: named.clone(), from, to: format!("{}/{}", wish.broker, wish.shard) });
            }
        }
        Status {
            metadata,
            controller: self.view.controller().map(|(record, _)| record.broker.clone()),
            brokers: self.brokers(&led, &coming),
            logs: self.view.logs().filter_map(|(wid, record)| self.log(wid, record)).collect(),
            topics: self.view.live_topics().count(),
            partitions: all.len(),
            leaderless,
            slots_without: (0..COORDINATOR_SLOTS).filter(|slot| self.view.coordinator(*slot).is_none()).count(),
            moves,
        }
    }

    fn partitions(&self) -> Vec<(TopicPartition, Partition)> {
        let of_topic = |(name, record): (&String, &TopicRecord)| {
            let (name, topic) = (name.clone(), record.id);
            (0..record.partitions)
                .map(move |index| (TopicPartition { topic, index }, Partition { topic: name.clone(), index }))
        };
        self.view.live_topics().flat_map(of_topic).collect()
    }

    fn brokers(&self, led: &BTreeMap<i32, usize>, coming: &BTreeMap<String, usize>) -> Vec<Broker> {
        let names: BTreeSet<&String> = self.view.brokers().map(|(name, _)| name).chain(self.view.drained()).collect();
        let mut brokers = Vec::new();
        for name in names {
            let record = self.view.broker(name);
            let leaving = self.view.is_leaving(name);
            let state = match record {
                None => "gone",
                Some(_) if self.view.is_suspected(name) => "suspected",
                Some(_) if leaving && self.view.leaves_by_itself(name) => "leaving",
                Some(_) if leaving => "drained",
                Some(_) => "serving",
            };
            let shards = record.map_or_else(Vec::new, |record| shards(record, led));
            let age = self.ages.get(name);
            let admin = record.and_then(|record| record.admin.clone());
            let silent = match self.told.get(name) {
                Some(Err(why)) => Some(why.clone()),
                None if record.is_some() => Some("it has no --admin endpoint".to_owned()),
                Some(Ok(_)) | None => None,
            };
            let told = self.told.get(name).and_then(|told| told.as_ref().ok());
            brokers.push(Broker {
                name: name.clone(),
                state,
                zone: record.and_then(|record| record.zone.clone()),
                led: shards.iter().map(|shard| shard.led).sum(),
                shards,
                slots: self.view.slots_of(name, record.map(|record| record.boot)).count(),
                coming: coming.get(name).copied().unwrap_or(0),
                lease_ms: record.map(|record| record.lease_ms),
                renewed_ms: age.map(|age| millis(age.granted.saturating_sub(age.left))),
                admin,
                silent,
                damaged: told.map(|told| told.damaged),
            });
        }
        brokers
    }

    /// None: it is sealed, and of the past.
    fn log(&self, wid: Wid, record: &WalRecord) -> Option<Log> {
        let lives = self.view.broker(&record.broker).is_some_and(|broker| broker.boot == record.boot);
        let state = match record.state {
            WalState::Sealed { .. } => return None,
            _ if !lives && self.view.brokers().next().is_some() => "of a dead process",
            WalState::Open => "open",
            WalState::Fencing => "fencing",
        };
        let told = self.told.get(&record.broker).filter(|_| lives).and_then(|told| told.as_ref().ok());
        let put_at = told.and_then(|told| told.put_at.get(&record.lane)).filter(|at| **at > 0);
        Some(Log {
            wid: wid.to_string(),
            broker: record.broker.clone(),
            lane: record.lane,
            state,
            partitions: self.view.partitions_of(wid),
            put_ms: put_at.map(|at| self.now.seconds().saturating_sub(*at) * 1_000),
            uncompacted_bytes: told.and_then(|told| told.uncompacted.get(&record.lane)).copied(),
        })
    }
}

fn shards(record: &BrokerRecord, led: &BTreeMap<i32, usize>) -> Vec<Shard> {
    let told = if record.shared_port { 1 } else { record.shards.len() };
    let shard = |shard: &ShardRecord| Shard {
        node: shard.node,
        address: format!("{}:{}", shard.host, shard.port),
        led: led.get(&shard.node).copied().unwrap_or(0),
    };
    record.shards.iter().take(told).map(shard).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_tells_of_its_lanes_is_read_from_its_metrics() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE millrace_uncovered_bytes gauge\nmillrace_uncovered_bytes{lane=\"0\"} 7\r\n\
                    millrace_uncovered_bytes{lane=\"1\"} 9\nmillrace_put_last_success_seconds{lane=\"1\"} 1700000000\n\
                    millrace_requests_total{shard=\"0\"} 3\nmillrace_started 5\n\
                    millrace_damaged_partitions{lane=\"0\"} 2\nmillrace_damaged_partitions{lane=\"1\"} 1\n# EOF\n";
        let told = told_by(text);
        assert_eq!(told.uncompacted, BTreeMap::from([(0, 7), (1, 9)]));
        assert_eq!(told.put_at, BTreeMap::from([(1, 1_700_000_000)]));
        assert_eq!(told.damaged, 3);
        assert_eq!(told_by("nonsense"), Told::default());
    }
}
