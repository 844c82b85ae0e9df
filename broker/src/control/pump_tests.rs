//! The pump in the simulator: real mailboxes, stores that lose requests and answers, a lane and shards played by the
//! test; from an empty store over a crash to a graceful stop.

use super::core::ControlConfig;
use super::messages::*;
use super::pump::{ControlEnds, ControlPump, ControlStores, Ended, LaneEnd, ShardEnd};
use super::start::{self, Process};
use super::ticks::Ticks;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Env;
use millrace_storage::ids::{BootId, LeaderEpoch, Wid};
use millrace_storage::lane::{LaneCommand, LaneReport, ToLead};
use millrace_storage::mailbox::{Receiver, Sender, mailbox};
use millrace_storage::sim::{self, Faults, Sim, SimBucket, SimMeta, Temper};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Small, so that queues fill up.
const MAILBOX: usize = 4;

/// Topics that the test creates.
const TOPICS: u64 = 30;

/// The other ends of the control task's mailboxes.
struct Outside {
    asks: Vec<Sender<ToControl>>,
    hears: Vec<Receiver<FromControl>>,
    stop: Sender<()>,
}

/// A lane that leads what it is told to and stops when told to.
async fn lane(mut commands: Receiver<LaneCommand>, reports: Sender<LaneReport>) {
    let _ = reports.send_waiting(LaneReport::Opened { wid: Wid(1) }).await;
    while let Some(command) = commands.recv().await {
        match command {
            LaneCommand::Lead { partitions } => {
                for ToLead { partition, shard, .. } in partitions {
                    let report = LaneReport::Leading { partition, shard, epoch: LeaderEpoch(1) };
                    let _ = reports.send_waiting(report).await;
                }
            }
            LaneCommand::Stop => {
                let _ = reports.send_waiting(LaneReport::Stopped { sealed: true }).await;
                return;
            }
            LaneCommand::Release { .. }
            | LaneCommand::Forget { .. }
            | LaneCommand::Probe
            | LaneCommand::ProducerIdHighWater(_) => {}
        }
    }
}

/// Starts a control task with two shards and one lane.
async fn begin(env: &Env, meta: SimMeta, bucket: SimBucket, boot: u64) -> (ControlPump, Outside) {
    let stores = ControlStores { meta: Rc::new(meta), objects: Rc::new(bucket) };
    let addresses = vec![("h".to_owned(), 9092), ("h".to_owned(), 9093)];
    let process = Process { name: "p".to_owned(), addresses, zone: None };
    let identity = start::identify(env, stores.meta.as_ref(), stores.objects.as_ref(), &process).await;
    let identity = identity.expect("the stores answer in the end");
    let (mut shards, mut asks, mut hears) = (Vec::new(), Vec::new(), Vec::new());
    for _ in &process.addresses {
        let ((ask, from), (to, hear)) = (mailbox(MAILBOX), mailbox(MAILBOX));
        shards.push(ShardEnd { from, to });
        asks.push(ask);
        hears.push(hear);
    }
    let ((commands, commanded), (report, reports)) = (mailbox(MAILBOX), mailbox(MAILBOX));
    env.spawn("lane", lane(commanded, report));
    let (stop, stopped) = mailbox(1);
    let config = ControlConfig {
        broker: process.name,
        boot: BootId(boot),
        cluster_id: identity.cluster_id,
        nodes: identity.nodes,
        lanes: 1,
        shared_port: false,
        default_partitions: 4,
        max_partitions: 100,
        cluster: None,
    };
    let ends =
        ControlEnds { shards, lanes: vec![LaneEnd { reports, commands }], stop: stopped, ticks: Ticks::default() };
    let pump = ControlPump::start(env.clone(), config, stores, ends).await.expect("the stores answer in the end");
    (pump, Outside { asks, hears, stop })
}

/// Hears until `wanted` is satisfied by a message.
async fn hear<T>(from: &mut Receiver<FromControl>, mut wanted: impl FnMut(FromControl) -> Option<T>) -> T {
    loop {
        let message = from.recv().await.expect("the control task goes on");
        if let Some(found) = wanted(message) {
            return found;
        }
    }
}

async fn hear_ready(from: &mut Receiver<FromControl>, topics: u64) -> ClusterImage {
    hear(from, |message| match message {
        FromControl::Image(image) if image.ready && image.topics.len() as u64 >= topics => {
            Some(ClusterImage::clone(&image))
        }
        _ => None,
    })
    .await
}

async fn first_life(env: Env, meta: SimMeta, bucket: SimBucket) {
    let (pump, outside) = begin(&env, meta, bucket, 1).await;
    env.spawn("control", async move {
        pump.run().await;
    });
    let Outside { asks, mut hears, stop: _stop } = outside;
    let (mut other, mut first) = (hears.remove(1), hears.remove(0));
    let ask = asks[0].clone();
    env.spawn("asker", async move {
        for number in 0..TOPICS {
            let name = format!("t{number}");
            let topics = vec![NewTopic { name, partitions: Some(3), settings: BTreeMap::new() }];
            let question = ToControl::CreateTopics { token: Token(number), topics, validate_only: false, auto: true };
            let _ = ask.send_waiting(question).await;
        }
    });
    // The other shard hears everything too, or its mailbox would be full for ever.
    env.spawn("other shard", async move { while other.recv().await.is_some() {} });
    let (mut created, mut shown) = (0, 0);
    while created < TOPICS || shown < TOPICS {
        match first.recv().await.expect("the control task goes on") {
            FromControl::Topics { topics, .. } => {
                assert!(matches!(topics[0].error, ErrorCode::None | ErrorCode::RequestTimedOut), "{topics:?}");
                created += 1;
            }
            FromControl::Image(image) => shown = image.topics.len() as u64,
            _ => {}
        }
    }
    // The senders live until here: a control task whose shards are gone ends.
    drop(asks);
}

async fn second_life(env: Env, meta: SimMeta, bucket: SimBucket) {
    let (pump, mut outside) = begin(&env, meta, bucket, 2).await;
    let (tell, told) = futures::channel::oneshot::channel();
    env.spawn("control", async move {
        let _ = tell.send(pump.run().await);
    });
    let images = futures::future::join_all(outside.hears.iter_mut().map(|from| hear_ready(from, TOPICS))).await;
    let (first, second) = (&images[0], &images[1]);
    assert!(first.topics.values().all(|topic| topic.partitions.iter().all(|partition| partition.leader.is_some())));
    assert!(first.slots.iter().all(Option::is_some));
    assert_eq!(first.cluster_id, second.cluster_id);
    assert!(outside.stop.send(()).is_ok());
    for (ask, from) in outside.asks.iter().zip(&mut outside.hears) {
        hear(from, |message| matches!(message, FromControl::Stopping).then_some(())).await;
        let _ = ask.send_waiting(ToControl::Drained).await;
    }
    assert_eq!(told.await, Ok(Ended::Stopped { sealed: true }));
}

#[test]
fn topics_survive_a_crash_and_a_stop_is_orderly_with_stores_of_every_temper() {
    for seed in 0..30 {
        let temper = [Temper::Calm, Temper::Fair, Temper::Rough][seed as usize % 3];
        let sim = Sim::new(seed, false);
        let faults = sim.dice(|dice| Faults::drawn(temper, dice));
        let (meta, bucket) = (SimMeta::new(&sim, faults.clone()), SimBucket::new(&sim, faults));
        let world = sim.clone();
        let ended = sim.run(2_000_000, async move {
            let (process, env) = world.start_process();
            let (done, is_done) = futures::channel::oneshot::channel();
            let life = first_life(env.clone(), meta.clone(), bucket.clone());
            env.spawn("first life", async move {
                life.await;
                let _ = done.send(());
            });
            is_done.await.expect("the first life gets there");
            world.kill(process);
            let (_, env) = world.start_process();
            let (done, is_done) = futures::channel::oneshot::channel();
            let life = second_life(env.clone(), meta, bucket);
            env.spawn("second life", async move {
                life.await;
                let _ = done.send(());
            });
            is_done.await.expect("the second life gets there");
        });
        sim.shut_down();
        assert_eq!(ended, sim::Ended::Done, "seed {seed}");
    }
}
