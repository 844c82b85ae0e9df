//! The functions that every produced or fetched byte goes through, beside what the machine can do at all.
//!
//! `perf/table` runs this and prints one table. A batch is 63 records of 1 KiB (`64 KiB`) or one record of 100 bytes
//! (`100 B`); an object holds 64 batches of 64 KiB. Rows called `limit/…` are bare: a copy, a checksum, a socket.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use millrace_broker::shard::core::SEAL_BYTES;
use millrace_broker::shard::fetching::{Planned, Room, plan};
use millrace_broker::shard::partition_log::{Gather, LogBatch, PartitionLog};
use millrace_broker::shard::tail::TailBudget;
use millrace_broker::shard::topic_settings::TopicSettings;
use millrace_protocol::frame::{LENGTH_BYTES, PEEK_BYTES, peek, request_frame, response_frame};
use millrace_protocol::messages::fetch::{FetchableTopicResponse, PartitionData};
use millrace_protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, TopicProduceData, TopicProduceResponse,
};
use millrace_protocol::messages::produce_view::ProduceView;
use millrace_protocol::messages::{FetchResponse, ProduceRequest, ProduceResponse};
use millrace_protocol::records::{BatchBuilder, ProduceRules, RecordBatch, check_produced};
use millrace_protocol::{RecordSet, StrBytes};
use millrace_storage::env::WallMs;
use millrace_storage::format::object::{ObjectHeader, ObjectKind, encode_object};
use millrace_storage::format::{BatchEntry, Footer, HEADER_BYTES, PartitionEntry};
use millrace_storage::ids::{BootId, LeaderEpoch, Offset, Seq, TopicId, TopicPartition, Wid, WriterId};
use millrace_storage::lane::{BatchDescription, CommittedObject};
use millrace_storage::partition::CommittedPartition;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// As the broker has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW_MS: i64 = 1_767_225_600_000;
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
const BATCHES: usize = 64;
const PIECE: usize = 64 << 10;
/// Far more than any cache holds.
const MEMORY: usize = 256 << 20;
const EPOCH: LeaderEpoch = LeaderEpoch(1);

const LARGE: (&str, u32, usize) = ("64 KiB", 63, 1024);
const SMALL: (&str, u32, usize) = ("100 B", 1, 100);

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn batch(records: u32, record_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(NOW_MS);
    (0..records).for_each(|_| builder.push(None, Some(&vec![7; record_bytes])));
    builder.finish().into()
}

fn produce_frame(batch: &Bytes) -> Vec<u8> {
    let partition = PartitionProduceData { index: 0, records: Some(batch.clone()) };
    let topic =
        TopicProduceData { name: "orders".into(), partition_data: vec![partition], ..TopicProduceData::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() };
    let frame = request_frame(&request, PRODUCE, 1, Some("perf".into())).expect("has a form in this version").concat();
    frame[LENGTH_BYTES..].to_vec()
}

/// A log with [`BATCHES`] batches that no seal holds yet.
fn appended(batch: &Bytes, records: u32) -> PartitionLog {
    let partition = TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), index: 0 };
    let mut log = PartitionLog::acquired(partition, CommittedPartition::born(EPOCH), TopicSettings::default());
    for _ in 0..BATCHES {
        let base = log.appended.append(None, records, WallMs(NOW_MS));
        let length = u32::try_from(batch.len()).expect("a small batch");
        log.push(LogBatch {
            base,
            last: base.plus(i64::from(records) - 1),
            description: BatchDescription { length, count: records, max_timestamp: NOW_MS, producer: None },
            bytes: batch.clone(),
            pinned: batch.len(),
            permit: None,
        });
    }
    log
}

fn to_copy(batch: &Bytes) -> usize {
    if batch.len() < PIECE / 4 { BATCHES * batch.len() } else { 0 }
}

/// The footer of an object that holds [`BATCHES`] such batches.
fn footer(batch: &Bytes, records: u32) -> Footer {
    let length = u32::try_from(batch.len()).expect("a small batch");
    let count = u32::try_from(BATCHES).expect("64");
    let batches = (0..count)
        .map(|number| BatchEntry {
            offset_delta: number * records,
            position_delta: number * length,
            count: records,
            producer: None,
            flags: 0,
        })
        .collect();
    let entry = PartitionEntry {
        partition: TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), index: 0 },
        epoch: EPOCH,
        base: Offset(0),
        last: Offset(i64::from(count * records) - 1),
        position: u32::try_from(HEADER_BYTES).expect("64"),
        length: count * length,
        max_timestamp: NOW_MS,
        batches,
    };
    Footer { partitions: vec![entry], log_starts: Vec::new() }
}

/// A log whose batches are durable and in the tail.
fn committed(batch: &Bytes, records: u32) -> PartitionLog {
    let mut log = appended(batch, records);
    log.seal(usize::MAX, true, &mut Gather::new(to_copy(batch))).expect("batches wait");
    let footer = footer(batch, records);
    let entry = footer.partitions[0].clone();
    let object = CommittedObject { wid: Wid(1), seq: Seq(0), sealed_at: WallMs(NOW_MS), footer };
    log.commit(&object, &entry, &mut TailBudget::new(usize::MAX));
    log
}

fn arriving(group: &mut Group<'_>, (size, records, record_bytes): (&str, u32, usize)) {
    let batch = batch(records, record_bytes);
    let frame = produce_frame(&batch);
    group.throughput(Throughput::Bytes(batch.len() as u64));
    group.bench_function(format!("frame head/{size}"), |b| {
        b.iter(|| peek(black_box(&frame).first_chunk::<PEEK_BYTES>().expect("long enough")));
    });
    group.bench_function(format!("produce view/{size}"), |b| b.iter(|| ProduceView::decode(black_box(&frame))));
    group.bench_function(format!("batch CRC/{size}"), |b| {
        let (view, _) = RecordBatch::split(&batch).expect("whole").expect("one");
        b.iter(|| black_box(&view).computed_crc());
    });
    group.bench_function(format!("batch check and patch/{size}"), |b| {
        let (mut bytes, rules) = (batch.to_vec(), ProduceRules::default());
        b.iter(|| {
            let checked = check_produced(black_box(&bytes), &rules, NOW_MS).expect("a good batch");
            checked.patch(&mut bytes, 77, 1, None);
            // As it arrives.
            bytes[..8].fill(0);
        });
    });
}

fn leaving(group: &mut Group<'_>, (size, records, record_bytes): (&str, u32, usize)) {
    let batch = batch(records, record_bytes);
    group.throughput(Throughput::Bytes((BATCHES * batch.len()) as u64));
    group.bench_function(format!("seal of 64 batches/{size}"), |b| {
        b.iter_batched(
            || appended(&batch, records),
            |mut log| {
                let mut gather = Gather::new(to_copy(&batch));
                let entry = log.seal(SEAL_BYTES, true, &mut gather);
                (log, entry)
            },
            BatchSize::SmallInput,
        );
    });
    let header = ObjectHeader {
        kind: ObjectKind::Data,
        wid: Wid(1),
        writer: WriterId { boot: BootId(1), lane: 0 },
        seq: Seq(0),
        sealed_at: WallMs(NOW_MS),
    };
    let footer = footer(&batch, records);
    group.bench_function(format!("object of 64 batches/{size}"), |b| {
        b.iter_batched(
            || vec![batch.clone(); BATCHES],
            |body| encode_object(&header, body, &footer, 0),
            BatchSize::SmallInput,
        );
    });
    let log = committed(&batch, records);
    let gather = || {
        let mut room = Room { bytes: usize::MAX, empty: true, reads: 0 };
        plan(black_box(&log), Offset(0), usize::MAX, &mut room).expect("in range")
    };
    group.bench_function(format!("fetch gather of 64 batches/{size}"), |b| b.iter(gather));
    let Planned::Tail { records, .. } = gather() else { panic!("the tail holds all of it") };
    group.bench_function(format!("fetch response of 64 batches/{size}"), |b| {
        b.iter_batched(
            || fetched(records.clone()),
            |response| response_frame(&response, FETCH, 1),
            BatchSize::SmallInput,
        );
    });
}

fn fetched(records: RecordSet) -> FetchResponse {
    let partition = PartitionData { records: Some(records), ..PartitionData::default() };
    let topic = FetchableTopicResponse {
        topic: StrBytes::from_static("orders"),
        partitions: vec![partition],
        ..FetchableTopicResponse::default()
    };
    FetchResponse { responses: vec![topic], ..FetchResponse::default() }
}

fn hot_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot");
    for load in [LARGE, SMALL] {
        arriving(&mut group, load);
        leaving(&mut group, load);
    }
    let answer = PartitionProduceResponse { base_offset: 77, ..PartitionProduceResponse::default() };
    let topic = TopicProduceResponse {
        name: StrBytes::from_static("orders"),
        partition_responses: vec![answer],
        ..TopicProduceResponse::default()
    };
    let response = ProduceResponse { responses: vec![topic], ..ProduceResponse::default() };
    group.throughput(Throughput::Elements(1));
    group.bench_function("produce response", |b| b.iter(|| response_frame(black_box(&response), PRODUCE, 1)));
}

fn limits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit");
    group.throughput(Throughput::Bytes(PIECE as u64));
    let (memory, mut piece) = (vec![7u8; MEMORY], vec![0u8; PIECE]);
    group.bench_function("copy of 64 KiB in cache", |b| b.iter(|| piece.copy_from_slice(black_box(&memory[..PIECE]))));
    group.bench_function("copy of 64 KiB from memory", |b| {
        let mut from = memory.chunks_exact(PIECE).cycle();
        b.iter(|| piece.copy_from_slice(black_box(from.next().expect("it starts again"))));
    });
    group.bench_function("CRC-32C of 64 KiB in cache", |b| b.iter(|| crc_fast::crc32_iscsi(black_box(&piece))));
    let (mut here, mut there) = loopback();
    std::thread::scope(|scope| {
        scope.spawn(move || while there.write_all(&[7; PIECE]).is_ok() {});
        group.bench_function("TCP receive of 64 KiB", |b| b.iter(|| here.read_exact(&mut piece).expect("it sends")));
        drop(here);
    });
    let (mut here, mut there) = loopback();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sink = vec![0; PIECE];
            while matches!(there.read(&mut sink), Ok(1..)) {}
        });
        group.bench_function("TCP send of 64 KiB", |b| b.iter(|| here.write_all(&piece).expect("it takes all")));
        drop(here);
    });
}

fn loopback() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let here = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    (here, listener.accept().expect("it was connected to").0)
}

criterion_group!(benches, hot_path, limits);
criterion_main!(benches);
