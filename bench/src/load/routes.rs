//! Where partitions are led: asked anew when a thread finds out that it was told wrongly, without stopping any.
//!
//! 1. However many threads ask, one question is under way, and [`PAUSE`] lies between two.
//! 2. The generation rises with each answer, also with one that says the same: who waits tries again.

use crate::cluster::Cluster;
use crate::load::producer::Leaders;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// The routes to a topic, shared by threads.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    shared: Arc<Shared>,
    ask: SyncSender<()>,
}

#[derive(Debug)]
struct Shared {
    leaders: Mutex<Leaders>,
    /// Of `leaders`, to see without the lock that nothing has changed.
    generation: AtomicU64,
}

impl Routes {
    /// Starts with what was told; asks `bootstrap` and then the nodes known.
    pub(crate) fn new(bootstrap: &str, topic: &str, leaders: Leaders) -> Routes {
        let generation = AtomicU64::new(leaders.generation);
        let shared = Arc::new(Shared { leaders: Mutex::new(leaders), generation });
        let (ask, asked) = sync_channel(1);
        let (bootstrap, topic, routes) = (bootstrap.to_owned(), topic.to_owned(), shared.clone());
        // It ends when the last `Routes` is dropped.
        thread::spawn(move || routes.answer(&bootstrap, &topic, &asked));
        Routes { shared, ask }
    }

    /// The newest answer, if it is newer than `known`.
    pub(crate) fn newer(&self, known: u64) -> Option<Leaders> {
        if self.shared.generation.load(Ordering::Acquire) <= known {
            return None;
        }
        Some(self.latest())
    }

    /// The newest answer.
    pub(crate) fn latest(&self) -> Leaders {
        self.shared.leaders.lock().expect("who holds it does not panic").clone()
    }

    /// Has them asked for anew.
    pub(crate) fn refresh(&self) {
        match self.ask.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => panic!("the routes are answered as long as someone may ask"),
        }
    }
}

impl Shared {
    fn answer(&self, bootstrap: &str, topic: &str, asked: &Receiver<()>) {
        while asked.recv().is_ok() {
            thread::sleep(PAUSE);
            let known = self.leaders.lock().expect("who holds it does not panic").addresses.clone();
            let nodes: BTreeSet<String> = known.iter().map(ToString::to_string).collect();
            let partitions = u32::try_from(known.len()).expect("the command line bounds it");
            let ask = |node: &str| Cluster::connect(node).ok()?.leaders(topic, partitions).ok()?;
            let mut candidates = std::iter::once(bootstrap).chain(nodes.iter().map(String::as_str));
            let Some(addresses) = candidates.find_map(ask) else { continue };
            let mut leaders = self.leaders.lock().expect("who holds it does not panic");
            let generation = leaders.generation + 1;
            *leaders = Leaders { addresses, generation };
            self.generation.store(generation, Ordering::Release);
        }
    }
}
