//! Turns for tasks that give way to all others of their shard: one at a time, each once no other task is ready. Where
//! there always is one, such a turn still comes for every thousand times as long as the last one took to give.

use crate::signal::Signal;
use glommio::{Latency, Shares, executor, spawn_local_into};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// Of the thousand that all other tasks have together.
const SHARES: usize = 1;

/// Who waits for a turn, in order. Bounded by the tasks of the shard, each of which waits for one.
#[derive(Default)]
pub(super) struct LastTurns {
    waiting: RefCell<VecDeque<Rc<Signal>>>,
    due: Signal,
}

impl LastTurns {
    /// Begins to give turns, and makes turns of the executor end after `turn` while somebody
    /// waits for a last one. To be called inside the executor.
    pub(super) fn start(self: Rc<Self>, turn: Duration) {
        let queue = executor().create_task_queue(Shares::Static(SHARES), Latency::Matters(turn), "last turns");
        spawn_local_into(self.give(), queue).expect("the queue was made just now").detach();
    }

    async fn give(self: Rc<Self>) {
        loop {
            self.due.wait().await;
            while let Some(turn) = { self.waiting.borrow_mut().pop_front() } {
                turn.raise();
                executor().yield_task_queue_now().await;
            }
        }
    }

    /// Waits for a turn.
    pub(super) async fn wait(self: Rc<Self>) {
        let turn = Rc::new(Signal::default());
        self.waiting.borrow_mut().push_back(turn.clone());
        self.due.raise();
        turn.wait().await;
    }
}
