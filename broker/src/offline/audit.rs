//! `millrace audit`: the walk of [`millrace_storage::audit`] over the stores that settings name.

use super::OfflineError;
use super::read_only::ReadOnly;
use super::topics::Topics;
use crate::control::topic_object;
use crate::journal::reader;
use crate::settings::Settings;
use millrace_storage::audit::{AuditStores, Clock, Finding, Report, Rules, Walk};
use millrace_storage::env::Env;
use millrace_storage::ids::TopicId;
use millrace_storage::meta::pages::Pages;
use millrace_storage::meta::records::{Record, TopicRecord, TopicState};
use millrace_storage::meta::{MetaStore, keys};
use millrace_storage::object::url::StoreUrl;
use millrace_storage::side::{SideRuntime, block_on_local};
use millrace_storage::store_error::StoreError;
use std::collections::BTreeMap;
use std::time::Duration;

/// Beside a live process: the pause before what looked wrong is looked at again. Longer than what a put in flight takes.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What an audit came to, and of what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Audited {
    /// The store.
    pub url: StoreUrl,
    /// What it was compared with, for people.
    pub metadata: String,
    /// The result.
    pub report: Report,
}

/// Audits the store that `settings` name. Nothing is written. `grace`: how long something may stay that nothing refers to.
pub fn audit(settings: &Settings, grace: Duration) -> Result<Audited, OfflineError> {
    let side = SideRuntime::start()?;
    let mut opened = ReadOnly::open(settings, &side)?;
    block_on_local(async |env| {
        let stores = opened.handles(&env).await?;
        let mut walk = Walk::default();
        let mut report = pass(&env, &mut walk, &stores, &opened, grace).await?;
        if !opened.stopped && !report.findings.is_empty() {
            env.sleep(LOOK_AGAIN).await;
            report = report.confirmed_by(pass(&env, &mut walk, &stores, &opened, grace).await?);
        }
        Ok(Audited { url: opened.url.clone(), metadata: opened.metadata.clone(), report })
    })?
}

async fn pass(
    env: &Env,
    walk: &mut Walk,
    stores: &AuditStores,
    opened: &ReadOnly,
    grace: Duration,
) -> Result<Report, OfflineError> {
    let topics = Topics::read(&*stores.objects).await?;
    let damaged =
        topics.damaged.iter().map(|(key, detail)| Finding::Damaged { key: key.clone(), detail: detail.clone() });
    let mut findings: Vec<Finding> = damaged.collect();
    let alive = match &stores.meta {
        None => topics.alive().map(|topic| (topic.id, topic.partitions)).collect(),
        Some(meta) => live_topics(&**meta, &topics, &mut findings).await?,
    };
    let rules = Rules {
        clock: if opened.stopped { Clock::Stopped } else { Clock::Running(env.wall()) },
        grace_ms: i64::try_from(grace.as_millis()).unwrap_or(i64::MAX),
        topics: Some(alive),
        deleted: topics.deleted_ms,
        whole_files: opened.whole_files(),
    };
    journal(stores, &mut findings).await?;
    let mut report = walk.pass(stores, rules).await?;
    report.findings.extend(findings);
    Ok(report)
}

/// What a recovery would take of the journal can be read, and is nothing that the metadata store never came to.
async fn journal(stores: &AuditStores, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let damaged = reader::newest(&*stores.objects).await?.damaged;
    findings.extend(damaged.into_iter().map(|(key, detail)| Finding::Damaged { key, detail }));
    let Some(meta) = &stores.meta else { return Ok(()) };
    // No process has the metadata now, so that nothing moves between the two looks.
    if let Some((number, key)) = reader::find(&*stores.objects).await?.objects.pop() {
        let (given_out, _) = reader::last_given_out(&**meta, 0).await?;
        if number > given_out {
            let detail = format!("the metadata store has given out numbers up to {given_out} only: it is older");
            findings.push(Finding::Contradiction { about: key, detail });
        }
    }
    Ok(())
}

/// Topics by their records. Each must be known to the store too, or a rebuild would not bring it back (I10).
async fn live_topics(
    meta: &dyn MetaStore,
    topics: &Topics,
    findings: &mut Vec<Finding>,
) -> Result<BTreeMap<TopicId, u32>, StoreError> {
    let mut alive = BTreeMap::new();
    let mut pages = Pages::of(meta, keys::TOPICS);
    while let Some(page) = pages.next_page().await? {
        for (key, found) in &page.entries {
            let record = match TopicRecord::decode(&found.value) {
                Ok(record) => record,
                Err(error) => {
                    findings.push(Finding::Damaged { key: format!("record {key}"), detail: error.to_string() });
                    continue;
                }
            };
            if record.state != TopicState::Live {
                continue;
            }
            alive.insert(record.id, record.partitions);
            let object = topic_object::key(record.id);
            match topics.by_id.get(&record.id) {
                None => findings.push(Finding::Missing { key: object, needed_by: format!("the live topic {key}") }),
                Some(topic) if topic.deleted => {
                    let detail = format!("it says that the live topic {key} is deleted");
                    findings.push(Finding::Contradiction { about: object, detail });
                }
                Some(_) => {}
            }
        }
    }
    Ok(alive)
}
