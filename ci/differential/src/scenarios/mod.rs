//! Hand-written cases: one file for each family of APIs. Every file makes the topics that it needs.

mod alterations;
mod cluster;
mod committed;
mod configs;
mod consumer_groups;
mod deletions;
pub(crate) mod fetch;
mod group_settings;
mod groups;
mod lengths;
mod mixed_groups;
mod offsets;
mod pages;
mod places;
mod produce;
mod producer_ids;
mod quotas;
mod repeats;
mod times;
mod topics;

use crate::pair::Pair;
use bytes::Bytes;
use millrace_protocol::messages::ListGroupsResponse;
use millrace_protocol::records::BatchBuilder;
use std::io;

/// Runs all of them.
pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    produce::run(pair)?;
    fetch::run(pair)?;
    offsets::run(pair)?;
    deletions::run(pair)?;
    times::run(pair)?;
    cluster::run(pair)?;
    topics::run(pair)?;
    alterations::run(pair)?;
    pages::run(pair)?;
    places::run(pair)?;
    configs::run(pair)?;
    quotas::run(pair)?;
    producer_ids::run(pair)?;
    groups::run(pair)?;
    pair.assign_at_once(true)?;
    consumer_groups::run(pair)?;
    mixed_groups::run(pair)?;
    group_settings::run(pair)?;
    committed::run(pair)?;
    repeats::run(pair)?;
    pair.assign_at_once(false)?;
    lengths::run(pair)
}

/// Leaves other groups than this one of the run out: Kafka's housekeeping takes those away that nobody uses, at any time.
pub(crate) fn alone(group: &str) -> impl Fn(&mut ListGroupsResponse) {
    let ending = format!("-{group}");
    move |answer| answer.groups.retain(|listed| listed.group_id.ends_with(&ending))
}

/// A batch of `count` small records at one time.
pub(crate) fn batch(timestamp_ms: i64, count: u32) -> Bytes {
    let mut builder = BatchBuilder::new(timestamp_ms);
    for at in 0..count {
        builder.push(Some(b"key"), Some(format!("value {at}").as_bytes()));
    }
    builder.finish().into()
}
