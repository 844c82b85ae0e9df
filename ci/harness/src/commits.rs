//! Offsets committed by many groups at once: how many a second, in how many transactions; and, when the process is killed
//! amid them, that none was acknowledged that is not there afterwards.

use crate::cluster;
use crate::connection::{Connection, read_frame};
use crate::process::{RunDirectory, Setup, Target};
use crate::trouble::Trouble;
use clap::Args;
use millrace_protocol::frame::decode_response;
use millrace_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use millrace_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use millrace_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TOPIC: &str = "commits";
/// Longest wait for anything that should take a second.
const LIMIT: Duration = Duration::from_secs(60);
const COMMIT_VERSION: i16 = 8;
const FETCH_VERSION: i16 = 8;
/// Where the counts of transactions stand.
const COUNTED: [&str; 2] = ["millrace_metadata_transactions_total", "millrace_metadata_commits_total"];

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Groups that commit; each an offset of one partition.
    #[arg(long, default_value_t = 1000)]
    groups: usize,
    /// Connections that the groups share.
    #[arg(long, default_value_t = 20)]
    connections: usize,
    /// Commits under way on a connection.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Length of a round.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rounds, each ended by kill -9.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Fail below this rate in a round.
    #[arg(long)]
    at_least: Option<u64>,
}

/// What one group sent and was told: offsets from 1 on, one after the other, and how many of them were acknowledged.
#[derive(Default)]
struct Progress {
    sent: AtomicI64,
    acknowledged: AtomicI64,
    count: AtomicU64,
}

/// Runs the rounds.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    if !options.groups.is_multiple_of(options.connections) {
        return Err(Trouble::proof("the connections must share the groups evenly"));
    }
    println!("commits: {}", options.target.describe());
    let directory = RunDirectory::new()?;
    let outcome = rounds(options, &directory);
    if outcome.is_err() {
        println!("commits: left in {}", directory.keep().display());
    }
    outcome
}

fn rounds(options: &Options, directory: &RunDirectory) -> Result<(), Trouble> {
    let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut target = options.target.clone();
    target.arguments.extend(["--admin".to_owned(), admin.to_string()]);
    let setup = target.setup(directory.path())?;
    let groups: Arc<Vec<Progress>> = Arc::new((0..options.groups).map(|_| Progress::default()).collect());
    for round in 1..=options.rounds {
        let mut broker = setup.start_listening(LIMIT)?;
        if round == 1 {
            cluster::create_topic(setup.bootstrap, TOPIC, 1, LIMIT)?;
        }
        check(&setup, &groups)?;
        let before = counted(admin)?;
        let (acknowledged, began) = (total(&groups), Instant::now());
        let threads: Vec<_> = (0..options.connections)
            .map(|number| {
                let (groups, bootstrap, in_flight) = (groups.clone(), setup.bootstrap, options.in_flight);
                let share = options.groups / options.connections;
                let range = number * share..(number + 1) * share;
                thread::spawn(move || commit(bootstrap, &groups, range, in_flight))
            })
            .collect();
        thread::sleep(Duration::from_secs(options.seconds));
        let (commits, time, after) = (total(&groups) - acknowledged, began.elapsed(), counted(admin)?);
        broker.kill()?;
        for thread in threads {
            thread.join().map_err(|_| Trouble::proof("a committer panicked"))??;
        }
        let rate = commits as f64 / time.as_secs_f64();
        println!(
            "commits: round {round}: {} groups, {commits} commits in {:.1} s, {rate:.0} a second, in {} transactions and {} \
             syncs of the disk",
            options.groups,
            time.as_secs_f64(),
            after[0] - before[0],
            after[1] - before[1],
        );
        if options.at_least.is_some_and(|least| rate < least as f64) {
            return Err(Trouble::proof("too few commits a second"));
        }
    }
    let _broker = setup.start_listening(LIMIT)?;
    check(&setup, &groups)?;
    println!("commits: after {} kills every acknowledged offset is there", options.rounds);
    Ok(())
}

fn total(groups: &[Progress]) -> u64 {
    groups.iter().map(|group| group.count.load(Ordering::Acquire)).sum()
}

fn name(group: usize) -> String {
    format!("committer-{group}")
}

/// Commits for the groups in turn until the connection breaks; an answer with an error ends it too.
fn commit(
    bootstrap: SocketAddr,
    groups: &[Progress],
    mine: std::ops::Range<usize>,
    in_flight: usize,
) -> Result<(), Trouble> {
    let mut connection = cluster::greet(bootstrap)?;
    let mut reader = connection.reader()?;
    let mut waiting: VecDeque<(usize, i64)> = VecDeque::new();
    for group in mine.cycle() {
        if waiting.len() == in_flight {
            let (group, offset) = waiting.pop_front().expect("it is full");
            let Ok(frame) = read_frame(&mut reader) else { return Ok(()) };
            let (_, answer) = decode_response::<OffsetCommitResponse>(&frame, COMMIT_VERSION)?;
            let code = answer.topics[0].partitions[0].error_code;
            if !code.is_none() {
                return Err(Trouble::Code(code));
            }
            groups[group].acknowledged.store(offset, Ordering::Release);
            groups[group].count.fetch_add(1, Ordering::AcqRel);
        }
        let offset = groups[group].sent.fetch_add(1, Ordering::AcqRel) + 1;
        let partition = OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
        let topic = OffsetCommitRequestTopic { name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: name(group).into(),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        if connection.send(&request, COMMIT_VERSION).is_err() {
            return Ok(());
        }
        waiting.push_back((group, offset));
    }
    Ok(())
}

/// What each group reads is not less than it was told, nor more than it sent. The next round goes on from there.
fn check(setup: &Setup, groups: &[Progress]) -> Result<(), Trouble> {
    let mut connection = cluster::retry(LIMIT, || cluster::greet(setup.bootstrap))?;
    for (number, group) in groups.iter().enumerate() {
        let found = cluster::retry(LIMIT, || fetch(&mut connection, &name(number)))?.max(0);
        let (sent, told) = (group.sent.load(Ordering::Acquire), group.acknowledged.load(Ordering::Acquire));
        if !(told..=sent).contains(&found) {
            let name = name(number);
            return Err(Trouble::proof(format!("{name} was told {told} of {sent} and finds {found}")));
        }
    }
    Ok(())
}

fn fetch(connection: &mut Connection, group: &str) -> Result<i64, Trouble> {
    let topic = OffsetFetchRequestTopics { name: TOPIC.into(), partition_indexes: vec![0], ..Default::default() };
    let group = OffsetFetchRequestGroup { group_id: group.into(), topics: Some(vec![topic]), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let answer: OffsetFetchResponse = connection.call(&request, FETCH_VERSION)?;
    let group = &answer.groups[0];
    if !group.error_code.is_none() {
        return Err(Trouble::Code(group.error_code));
    }
    Ok(group.topics[0].partitions[0].committed_offset)
}

/// Transactions and syncs of the metadata store so far.
fn counted(admin: SocketAddr) -> Result<[u64; 2], Trouble> {
    let mut stream = TcpStream::connect_timeout(&admin, LIMIT)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| Trouble::proof(format!("no {name} in:\n{text}")))
    };
    Ok([value(COUNTED[0])?, value(COUNTED[1])?])
}
