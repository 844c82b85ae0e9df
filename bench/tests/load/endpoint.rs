//! Millrace's own `/metrics`, so that names and meaning of what it exports and of what is read here stay the same.

use crate::broker::spawn;
use bytes::Bytes;
use millrace_broker::admin::{Cells, Exposition, PoolLevels, adopt, serve};
use millrace_broker::control::ticks::Ticks;
use millrace_broker::shard::counters::Counters;
use millrace_storage::env::{Env, WallMs};
use millrace_storage::meter::StoreMeter;
use millrace_storage::object::SharedObjects;
use millrace_storage::object::memory::MemoryStore;
use millrace_storage::side::block_on_local;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// What is produced for each object that is put.
pub(crate) const PRODUCED_PER_PUT: u64 = 1 << 20;
/// The broker's own share of each acknowledgement: the bound of a bucket.
const ACK_SHARE: Duration = Duration::from_micros(50);
/// How often an object is put.
const EVERY: Duration = Duration::from_millis(20);

/// Where the metrics of a shard are that produces all the time, and of its store.
pub(crate) fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    spawn(move || {
        block_on_local(|env| async move {
            let (cells, store) = (Cells::new(0, env.now()), Arc::default());
            env.spawn("producing", produce(env.clone(), cells.clone(), Arc::clone(&store)));
            let exposition = Exposition {
                shards: vec![cells],
                lanes: vec![Arc::default()],
                store,
                jobs: Arc::default(),
                ticks: Ticks::default(),
                started: WallMs(0),
            };
            serve(env, adopt(listener).unwrap(), exposition).await;
        })
        .unwrap();
    });
    url
}

async fn produce(env: Env, cells: Arc<Cells>, store: Arc<StoreMeter>) {
    let objects = SharedObjects::Memory(MemoryStore::new()).handle(&env, &store);
    let mut counters = Counters::default();
    loop {
        // Nothing is read between these two: the memory store answers at once.
        counters.produced_bytes += PRODUCED_PER_PUT;
        cells.acks().record(ACK_SHARE);
        cells.publish(env.now(), true, 0, &counters, &PoolLevels::default());
        objects.put_if_absent("the same", vec![Bytes::from_static(b"object")]).await.unwrap();
        env.sleep(EVERY).await;
    }
}
