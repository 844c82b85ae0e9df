//! A bounded one-way queue between two threads of the process (or two tasks of the simulator).
//!
//! Invariants:
//! 1. Bounded: `send` gives the message back when the queue is full; the sender decides what waits.
//! 2. One wake per batch: the receiver is woken only when it registered to sleep; one that is draining is not woken.
//! 3. First in, first out.
//!
//! Dropping the receiver makes `send` fail with [`SendError::Closed`]: the process shares one fate, so the sender ends.

use crossbeam_queue::ArrayQueue;
use futures::task::AtomicWaker;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

struct Shared<T> {
    queue: ArrayQueue<T>,
    receiver: AtomicWaker,
    sender: AtomicWaker,
    receiver_gone: AtomicBool,
    senders: AtomicU64,
}

/// The sending end. Clones share the queue.
pub struct Sender<T>(Arc<Shared<T>>);

/// The receiving end.
pub struct Receiver<T>(Arc<Shared<T>>);

/// Why a message was not taken; it comes back.
#[derive(Debug)]
pub enum SendError<T> {
    /// The queue holds as many as it may.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// A mailbox for at most `capacity` messages.
pub fn mailbox<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity),
        receiver: AtomicWaker::new(),
        sender: AtomicWaker::new(),
        receiver_gone: AtomicBool::new(false),
        senders: AtomicU64::new(1),
    });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    /// Puts `message` at the end of the queue and wakes the receiver if it sleeps.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        if self.0.receiver_gone.load(Ordering::Acquire) {
            return Err(SendError::Closed(message));
        }
        self.0.queue.push(message).map_err(SendError::Full)?;
        self.0.receiver.wake();
        Ok(())
    }

    /// Waits for a place (with a single sender; of several waiting senders the last one registered is woken).
    pub async fn send_waiting(&self, message: T) -> Result<(), SendError<T>> {
        let mut message = Some(message);
        poll_fn(|cx| {
            let Some(next) = message.take() else { return Poll::Ready(Ok(())) };
            match self.send(next) {
                Err(SendError::Full(back)) => {
                    self.0.sender.register(cx.waker());
                    // A place may have come free between the try and the registration.
                    match self.send(back) {
                        Err(SendError::Full(back)) => {
                            message = Some(back);
                            Poll::Pending
                        }
                        done => Poll::Ready(done),
                    }
                }
                done => Poll::Ready(done),
            }
        })
        .await
    }

    /// Waits until the queue has a place; `false` once the receiver is gone. With a single sender the next `send` takes
    /// that place, so the message can be made late: when it can leave.
    pub async fn place(&self) -> bool {
        poll_fn(|cx| self.poll_place(cx)).await
    }

    /// [`Sender::place`] for a task that waits for several things.
    pub fn poll_place(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let look = || {
            if self.0.receiver_gone.load(Ordering::Acquire) {
                return Some(false);
            }
            (!self.0.queue.is_full()).then_some(true)
        };
        // A place may come free between the look and the registration, so look again.
        let seen = look().or_else(|| {
            self.0.sender.register(cx.waker());
            look()
        });
        seen.map_or(Poll::Pending, Poll::Ready)
    }

    /// Messages waiting now.
    pub fn len(&self) -> usize {
        self.0.queue.len()
    }

    /// Whether no message waits now.
    pub fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.receiver.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The next message if one waits.
    pub fn try_recv(&mut self) -> Option<T> {
        let message = self.0.queue.pop();
        if message.is_some() {
            self.0.sender.wake();
        }
        message
    }

    /// The next message; `None` once every sender is gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// [`Receiver::recv`] for a task that waits for several things.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(message) = self.try_recv() {
            return Poll::Ready(Some(message));
        }
        self.0.receiver.register(cx.waker());
        // A message may have come between the look and the registration.
        if let Some(message) = self.try_recv() {
            return Poll::Ready(Some(message));
        }
        if self.0.senders.load(Ordering::Acquire) > 0 {
            return Poll::Pending;
        }
        // The last sender may have sent and gone between the look and the count.
        Poll::Ready(self.try_recv())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.receiver_gone.store(true, Ordering::Release);
        self.0.sender.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    /// Enough for the short windows between two threads to be met.
    const ROUNDS: usize = 20_000;

    #[test]
    fn what_a_sender_sent_before_it_went_is_received() {
        for _ in 0..ROUNDS {
            let (sender, mut receiver) = mailbox(1);
            std::thread::scope(|scope| {
                scope.spawn(move || sender.send(7).expect("a place is free"));
                assert_eq!(block_on(receiver.recv()), Some(7));
                assert_eq!(block_on(receiver.recv()), None);
            });
        }
    }

    #[test]
    fn a_sender_that_waits_for_places_and_a_receiver_that_waits_for_messages_always_go_on() {
        let (sender, mut receiver) = mailbox(1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for message in 0..ROUNDS {
                    if message % 2 == 0 {
                        block_on(sender.send_waiting(message)).expect("received");
                    } else {
                        assert!(block_on(sender.place()));
                        sender.send(message).expect("a single sender saw a place");
                    }
                }
            });
            for message in 0..ROUNDS {
                assert_eq!(block_on(receiver.recv()), Some(message));
            }
        });
    }
}
