//! `millrace status`: tables for people, or one JSON document.

use super::{CommandError, say};
use crate::offline::status::{Broker, Log, Move, Status, status};
use crate::settings::{Effective, add_flags};
use clap::{Arg, ArgAction, ArgMatches, Command};

/// Lines about single partitions that a person is shown.
const LISTED: usize = 20;

pub(super) fn command() -> Command {
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON document");
    add_flags(Command::new("status").about("Show who owns what in a cluster, and what is on its way").arg(json))
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = Effective::load(matches)?.settings()?;
    let status = status(&settings)?;
    if matches.get_flag("json") {
        return Ok(say(&format!("{}\n", serde_json::to_string_pretty(&status)?))?);
    }
    Ok(say(&text(&status))?)
}

fn text(status: &Status) -> String {
    let mut text = format!(
        "metadata    {}\ncontroller  {}\ntopics      {}, {} partitions, {} of them without a leader\n",
        status.metadata,
        status.controller.as_deref().unwrap_or("-"),
        status.topics,
        status.partitions,
        status.leaderless.len(),
    );
    if status.slots_without > 0 {
        text.push_str(&format!("groups      {} coordinator slots are nobody's\n", status.slots_without));
    }
    let header = ["BROKER", "STATE", "ZONE", "NODES", "LED", "SLOTS", "COMING", "LEASE"];
    table(&mut text, header, status.brokers.iter().map(broker));
    for broker in &status.brokers {
        if let Some(why) = &broker.silent {
            text.push_str(&format!("{} told nothing of its logs: {why}\n", broker.name));
        }
        if let Some(damaged) = broker.damaged.filter(|damaged| *damaged > 0) {
            text.push_str(&format!(
                "{} does not serve {damaged} partitions, data of which is missing or contradicts itself: its log says which\n",
                broker.name
            ));
        }
    }
    table(
        &mut text,
        ["LOG", "BROKER", "LANE", "STATE", "PARTITIONS", "LAST PUT", "UNCOMPACTED"],
        status.logs.iter().map(log),
    );
    table(&mut text, ["MOVES", "FROM", "TO"], status.moves.iter().take(LISTED).map(movement));
    more(&mut text, status.moves.len());
    table(
        &mut text,
        ["WITHOUT A LEADER"],
        status.leaderless.iter().take(LISTED).map(|partition| [format!("{}-{}", partition.topic, partition.index)]),
    );
    more(&mut text, status.leaderless.len());
    text
}

fn more(text: &mut String, count: usize) {
    if count > LISTED {
        text.push_str(&format!("and {} more (--json lists all)\n", count - LISTED));
    }
}

fn broker(broker: &Broker) -> [String; 8] {
    let nodes = broker.shards.iter().map(|shard| format!("{}@{} leads {}", shard.node, shard.address, shard.led));
    let seconds = |ms: u64| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100);
    let lease = match (broker.lease_ms, broker.renewed_ms) {
        (Some(lease), Some(renewed)) => format!("{}, renewed {} ago", seconds(lease), seconds(renewed)),
        (Some(lease), None) => seconds(lease),
        (None, _) => "-".to_owned(),
    };
    [
        broker.name.clone(),
        broker.state.to_owned(),
        broker.zone.clone().unwrap_or_else(|| "-".to_owned()),
        nodes.collect::<Vec<_>>().join(", "),
        broker.led.to_string(),
        broker.slots.to_string(),
        broker.coming.to_string(),
        lease,
    ]
}

fn log(log: &Log) -> [String; 7] {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    [
        log.wid.clone(),
        log.broker.clone(),
        log.lane.to_string(),
        log.state.to_owned(),
        log.partitions.to_string(),
        or_dash(log.put_ms.map(|ms| format!("{} s ago", ms / 1_000))),
        or_dash(log.uncompacted_bytes.map(|bytes| format!("{bytes} bytes"))),
    ]
}

fn movement(movement: &Move) -> [String; 3] {
    let partition = format!("{}-{}", movement.partition.topic, movement.partition.index);
    [partition, movement.from.clone().unwrap_or_else(|| "-".to_owned()), movement.to.clone()]
}

/// Columns as wide as they need be; nothing, if there are no rows.
fn table<const N: usize>(text: &mut String, header: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    let rows: Vec<[String; N]> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let header = header.map(str::to_owned);
    let width = |column: usize| rows.iter().chain([&header]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    text.push('\n');
    for row in [&header].into_iter().chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offline::status::{Partition, Shard};

    #[test]
    fn people_are_shown_who_owns_what_and_what_is_on_its_way() {
        let shard = Shard { node: 4, address: "h:9092".to_owned(), led: 25 };
        let broker = Broker {
            name: "a".to_owned(),
            state: "serving",
            zone: None,
            shards: vec![shard],
            led: 25,
            slots: 32,
            coming: 1,
            lease_ms: Some(5_000),
            renewed_ms: Some(1_000),
            admin: None,
            silent: Some("it has no --admin endpoint".to_owned()),
            damaged: Some(2),
        };
        let log = Log {
            wid: "w".to_owned(),
            broker: "a".to_owned(),
            lane: 0,
            state: "open",
            partitions: 25,
            put_ms: Some(3_000),
            uncompacted_bytes: None,
        };
        let partition = |index| Partition { topic: "t".to_owned(), index };
        let moves = (0..25).map(|index| Move { partition: partition(index), from: None, to: "a/0".to_owned() });
        let status = Status {
            metadata: "the etcd at h:2379".to_owned(),
            controller: Some("a".to_owned()),
            brokers: vec![broker],
            logs: vec![log],
            topics: 1,
            partitions: 26,
            leaderless: vec![partition(25)],
            slots_without: 32,
            moves: moves.collect(),
        };
        let text = text(&status);
        for line in [
            "controller  a",
            "topics      1, 26 partitions, 1 of them without a leader",
            "groups      32 coordinator slots are nobody's",
            "a       serving  -     4@h:9092 leads 25  25   32     1       5.0 s, renewed 1.0 s ago",
            "a told nothing of its logs: it has no --admin endpoint",
            "a does not serve 2 partitions, data of which is missing or contradicts itself: its log says which",
            "w    a       0     open   25          3 s ago   -",
            "t-19   -     a/0",
            "and 5 more (--json lists all)",
            "t-25",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
        }
        assert!(!text.contains("t-20"), "{text}");
    }
}
