//! `millrace serve`.

use super::CommandError;
use crate::process::open::StoreKind;
use crate::process::{self, Started};
use crate::settings::{Effective, HostPort, Settings};
use clap::ArgMatches;

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = Effective::load(matches)?.settings()?;
    crate::logging::start();
    process::serve(&settings, |started| {
        // The broker serves also when nobody reads this, as in `millrace serve | true`.
        if let Err(error) = super::say(&banner(&settings, started)) {
            tracing::warn!(%error, "the start-up text could not be written");
        }
    })?;
    Ok(())
}

/// What start-up tells a person: where it listens, where data lives, what each `acks` promises.
fn banner(settings: &Settings, started: &Started) -> String {
    let list = |addresses: &[HostPort]| addresses.iter().map(HostPort::to_string).collect::<Vec<_>>().join(", ");
    let mut text = format!("millrace {} is up, cluster {}\n", started.name, started.cluster_id);
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:10} {value}\n"));
    line("kafka", &list(&started.listening));
    if started.advertised != started.listening {
        line("advertised", &list(&started.advertised));
    }
    if let Some(admin) = &started.admin {
        line("admin", &format!("http://{admin}/metrics /healthz /readyz"));
    }
    line("data", &format!("{} (log: {})", settings.data_dir.display(), started.store));
    line("acks=all", promise(started.kind, settings.fsync));
    line("acks=1", "appended in memory: promises nothing about a crash");
    line("acks=0", "no answer at all");
    text
}

/// What an acknowledgement with acks=all survives.
fn promise(kind: StoreKind, fsync: bool) -> &'static str {
    match (kind, fsync) {
        (StoreKind::Remote, _) => "in the object store: survives this machine",
        (StoreKind::Memory, _) => "in memory: survives nothing; the oldest records go when the memory is full",
        (StoreKind::Local, true) => "on disk (fdatasync): survives kill -9 and power loss",
        (StoreKind::Local, false) => "in the kernel: survives kill -9, not a power loss",
    }
}
