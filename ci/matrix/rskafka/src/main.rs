//! The matrix's program of rskafka, a client without groups and with few calls: runs the cases that it is asked for and
//! prints a line of JSON for each. Arguments: bootstrap server, cases.

use chrono::{DateTime, TimeDelta, Utc};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};
use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

const CASE_LIMIT: Duration = Duration::from_secs(45);
const PATIENCE: Duration = Duration::from_secs(20);
const TIMEOUT_MS: i32 = 20_000;
const VERSION: &str = "0.6.0";

type Outcome = Result<(), Box<dyn Error>>;

struct Run {
    client: Client,
    names: u32,
}

/// What the client cannot do, with a reason; nothing where it has no such call.
fn lacks(case: &str) -> Option<&'static str> {
    match case {
        "auto-create-topic" => Some("the client asks for no creation"),
        "group-of-three" | "group-resume" | "group-static" | "group-consumer-protocol" => {
            Some("the client knows no groups")
        }
        "admin-create-partitions"
        | "admin-configs"
        | "admin-groups"
        | "admin-delete-group"
        | "admin-cluster"
        | "transactions" => Some("the client has no such call"),
        _ => None,
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(found: T, expected: T, what: &str) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} instead of {expected:?}").into()) }
}

fn record(value: Option<Vec<u8>>, timestamp: DateTime<Utc>) -> Record {
    Record { key: None, value, headers: BTreeMap::new(), timestamp }
}

fn values(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("{number:06}").repeat(100).into_bytes()).collect()
}

fn records(values: Vec<Vec<u8>>) -> Vec<Record> {
    values.into_iter().map(|value| record(Some(value), Utc::now())).collect()
}

impl Run {
    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("rskafka-{what}-{}-{}", std::process::id(), self.names)
    }

    /// A new topic, and clients of its partitions.
    async fn topic(&mut self, what: &str, partitions: i32) -> Result<(String, Vec<PartitionClient>), Box<dyn Error>> {
        let name = self.name(what);
        self.client.controller_client()?.create_topic(&name, partitions, 1, TIMEOUT_MS).await?;
        let mut clients = Vec::new();
        for index in 0..partitions {
            clients.push(self.client.partition_client(&name, index, UnknownTopicHandling::Retry).await?);
        }
        Ok((name, clients))
    }

    async fn partition(&mut self, what: &str) -> Result<PartitionClient, Box<dyn Error>> {
        Ok(self.topic(what, 1).await?.1.remove(0))
    }

    async fn written(&mut self, what: &str) -> Result<PartitionClient, Box<dyn Error>> {
        let partition = self.partition(what).await?;
        partition.produce(records(values(50)), Compression::NoCompression).await?;
        Ok(partition)
    }

    async fn round_trip(&mut self, sent: Vec<Record>, compression: Compression) -> Outcome {
        let partition = self.partition("produce").await?;
        partition.produce(sent.clone(), compression).await?;
        let found: Vec<Record> = read(&partition, 0, sent.len()).await?.into_iter().map(|one| one.record).collect();
        let whole: Vec<_> = found.into_iter().map(|one| (one.key, one.value, one.headers)).collect();
        let expected: Vec<_> = sent.into_iter().map(|one| (one.key, one.value, one.headers)).collect();
        if whole == expected { Ok(()) } else { Err("what came back is not what was sent".into()) }
    }

    async fn three_partitions(&mut self) -> Outcome {
        let (_, partitions) = self.topic("produce", 3).await?;
        for (partition, some) in partitions.iter().zip(values(99).chunks(33)) {
            partition.produce(records(some.to_vec()), Compression::default()).await?;
            expect(read(partition, 0, 33).await?.len(), 33, "records read")?;
        }
        Ok(())
    }

    async fn headers(&mut self) -> Outcome {
        let mut one = record(Some(b"v".to_vec()), Utc::now());
        one.headers = BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), Vec::new())]);
        self.round_trip(vec![one], Compression::NoCompression).await
    }

    async fn nulls(&mut self) -> Outcome {
        let mut keyed = record(None, Utc::now());
        keyed.key = Some(b"k".to_vec());
        let sent = vec![record(Some(b"v".to_vec()), Utc::now()), keyed, record(None, Utc::now())];
        self.round_trip(sent, Compression::NoCompression).await
    }

    async fn too_large(&mut self) -> Outcome {
        let partition = self.partition("large").await?;
        match partition.produce(records(vec![vec![0; 1_200_000]]), Compression::NoCompression).await {
            Ok(_) => Err("a record above max.message.bytes was taken".into()),
            Err(error) if error.to_string().contains("MessageTooLarge") => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn timestamp(&mut self) -> Outcome {
        let partition = self.partition("timestamp").await?;
        let base = Utc::now() - TimeDelta::seconds(100);
        let sent = (0..50).map(|number| record(Some(vec![1]), base + TimeDelta::seconds(number))).collect();
        partition.produce(sent, Compression::NoCompression).await?;
        let start = partition.get_offset(OffsetAt::Timestamp(base + TimeDelta::milliseconds(20_500))).await?;
        expect(start, 21, "offset at the time")?;
        expect(read(&partition, start, 29).await?[0].offset, 21, "first offset")
    }

    async fn list_offsets(&mut self) -> Outcome {
        let partition = self.written("offsets").await?;
        let found = (partition.get_offset(OffsetAt::Earliest).await?, partition.get_offset(OffsetAt::Latest).await?);
        expect(found, (0, 50), "earliest and latest")
    }

    async fn delete_records(&mut self) -> Outcome {
        let partition = self.written("records").await?;
        partition.delete_records(30, TIMEOUT_MS).await?;
        expect(partition.get_offset(OffsetAt::Earliest).await?, 30, "earliest")?;
        expect(read(&partition, 30, 20).await?.len(), 20, "records left")
    }

    async fn create_topic(&mut self) -> Outcome {
        let (name, _) = self.topic("create", 5).await?;
        let found = self.client.list_topics().await?.into_iter().find(|topic| topic.name == name);
        expect(found.map(|topic| topic.partitions.len()), Some(5), "partitions")
    }

    async fn delete_topic(&mut self) -> Outcome {
        let (name, _) = self.topic("delete-topic", 1).await?;
        self.client.controller_client()?.delete_topic(&name, TIMEOUT_MS).await?;
        let limit = Instant::now() + PATIENCE;
        while self.client.list_topics().await?.iter().any(|topic| topic.name == name) {
            if Instant::now() > limit {
                return Err("the topic is still there".into());
            }
        }
        Ok(())
    }

    async fn case(&mut self, name: &str) -> Outcome {
        match name {
            // Its one way to write: acks=all, without idempotence.
            "produce-default" | "produce-acks-all" => self.three_partitions().await,
            "codec-gzip" => self.round_trip(records(values(50)), Compression::Gzip).await,
            "codec-snappy" => self.round_trip(records(values(50)), Compression::Snappy).await,
            "codec-lz4" => self.round_trip(records(values(50)), Compression::Lz4).await,
            "codec-zstd" => self.round_trip(records(values(50)), Compression::Zstd).await,
            "headers" => self.headers().await,
            "null-key-value" => self.nulls().await,
            "large-record" => self.round_trip(records(vec![vec![7; 1_000_000]]), Compression::NoCompression).await,
            "too-large-refused" => self.too_large().await,
            "read-beginning" => {
                expect(read(&self.written("beginning").await?, 0, 50).await?[0].offset, 0, "first offset")
            }
            "read-offset" => expect(read(&self.written("offset").await?, 37, 13).await?[0].offset, 37, "first offset"),
            "read-timestamp" => self.timestamp().await,
            "admin-create-topic" => self.create_topic().await,
            "admin-delete-topic" => self.delete_topic().await,
            "admin-list-offsets" => self.list_offsets().await,
            "admin-delete-records" => self.delete_records().await,
            _ => Err("the program does not know the case".into()),
        }
    }
}

/// So many records, from an offset on.
async fn read(
    partition: &PartitionClient,
    mut offset: i64,
    count: usize,
) -> Result<Vec<RecordAndOffset>, Box<dyn Error>> {
    let (mut found, limit) = (Vec::new(), Instant::now() + PATIENCE);
    while found.len() < count {
        if Instant::now() > limit {
            return Err(format!("{} of {count} records read", found.len()).into());
        }
        let (some, _) = partition.fetch_records(offset, 1..2_000_000, 500).await?;
        offset = some.last().map_or(offset, |last| last.offset + 1);
        found.extend(some);
    }
    expect(found.len(), count, "records read")?;
    Ok(found)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().ok_or("the address of a broker")?;
    let mut run = Run { client: ClientBuilder::new(vec![bootstrap]).build().await?, names: 0 };
    for case in arguments {
        let started = Instant::now();
        let (result, detail) = match lacks(&case) {
            Some(reason) => ("unsupported", reason.to_owned()),
            None => match tokio::time::timeout(CASE_LIMIT, run.case(&case)).await {
                Ok(Ok(())) => ("pass", String::new()),
                Ok(Err(error)) => ("fail", error.to_string().chars().take(300).collect()),
                Err(_) => ("fail", format!("not over after {CASE_LIMIT:?}")),
            },
        };
        let line = serde_json::json!({
            "client": "rskafka", "version": VERSION, "case": case, "result": result, "detail": detail,
            "seconds": started.elapsed().as_secs_f64(),
        });
        println!("{line}");
    }
    Ok(())
}
