//! A reading thread: fetches partitions by assignment, without a group, and checks what comes.
//!
//! 1. One fetch is under way on each connection; there is one to each node that leads a partition of the reader.
//! 2. After trouble every connection is opened anew, to the leaders that were asked for meanwhile. Without an answer for
//!    [`GIVE_UP_NANOS`] the reader fails the run.

use crate::load::clock::Waiter;
use crate::load::fetch_link::FetchLink;
use crate::load::intake::{Intake, Way};
use crate::load::producer::Leaders;
use crate::load::routes::Routes;
use crate::load::team::Shared;
use crate::pace::SECOND;
use mio::{Interest, Token};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How long a reader tries without an answer, nanoseconds.
const GIVE_UP_NANOS: u64 = 30 * SECOND;
/// The longest wait while leaders are looked for, nanoseconds.
const LOST_LOOK: u64 = SECOND / 200;

/// What a reading thread works with.
pub(crate) struct Reader {
    topic: String,
    shared: Arc<Shared>,
    routes: Routes,
    leaders: Leaders,
    waiter: Waiter,
    links: Vec<FetchLink>,
    /// What it has read and counted.
    pub intake: Intake,
    /// When something last came.
    alive_at: u64,
    /// Whether leaders have to be asked for before anything else.
    lost: bool,
}

impl Reader {
    /// A reader that has asked for nothing yet.
    ///
    /// # Errors
    /// When the thread can't have what it waits with.
    pub(crate) fn new(topic: &str, shared: &Arc<Shared>, routes: &Routes, intake: Intake) -> io::Result<Reader> {
        Ok(Reader {
            topic: topic.to_owned(),
            shared: shared.clone(),
            routes: routes.clone(),
            leaders: routes.latest(),
            waiter: Waiter::new()?,
            links: Vec::new(),
            intake,
            alive_at: shared.clock.now(),
            lost: false,
        })
    }

    /// Reads to its end.
    ///
    /// # Errors
    /// When the thread cannot wait for its sockets.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        self.open();
        while !self.ended() {
            let now = self.shared.clock.now();
            self.intake.recorder.hand_over(now);
            if now > self.alive_at + GIVE_UP_NANOS {
                self.intake.recorder.failed("no answer to a fetch", 1);
                break;
            }
            if self.lost {
                self.routes.refresh();
                if let Some(leaders) = self.routes.newer(self.leaders.generation) {
                    self.leaders = leaders;
                    self.lost = false;
                    self.open();
                }
            }
            self.waiter.wait(self.lost.then_some(LOST_LOOK), &mut ready)?;
            for &Token(number) in &ready {
                if !self.lost {
                    self.serve(number);
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self) -> bool {
        let now = self.shared.clock.now();
        if self.intake.way == Way::Again {
            return now >= self.shared.window.end;
        }
        if self.intake.way == Way::Everything && !self.shared.sent.load(Ordering::Acquire) {
            return false;
        }
        let behind = self.intake.positions.iter().filter(|position| {
            position.offset < self.shared.acknowledged[position.partition as usize].load(Ordering::Relaxed)
        });
        let behind = behind.count() as u64;
        let after = if self.intake.way == Way::Once { 0 } else { 2 * self.shared.drain };
        let late = now > self.shared.window.end + after;
        if late {
            self.intake.recorder.failed("partitions not read to their end", behind);
        }
        behind == 0 || late
    }

    /// Opens a connection to every leader and asks it.
    fn open(&mut self) {
        self.links.clear();
        let mut nodes: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
        for (place, position) in self.intake.positions.iter().enumerate() {
            nodes.entry(self.leaders.addresses[position.partition as usize]).or_default().push(place);
        }
        for (address, places) in nodes {
            let opened = FetchLink::open(address, places).and_then(|mut link| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.waiter.poll.registry().register(&mut link.stream, Token(self.links.len()), interest)?;
                link.ask(&self.topic, &self.intake.positions, self.shared.clock.now());
                link.write()?;
                Ok(link)
            });
            match opened {
                Ok(link) => self.links.push(link),
                Err(error) => return self.trouble(&format!("no connection: {error}")),
            }
        }
    }

    fn trouble(&mut self, why: &str) {
        self.intake.recorder.retried(why, 1);
        self.lost = true;
    }

    fn serve(&mut self, number: usize) {
        let now = self.shared.clock.now();
        let link = &mut self.links[number];
        match link.receive(&mut self.intake, now) {
            Ok(answered) => {
                if answered {
                    self.alive_at = now;
                    link.ask(&self.topic, &self.intake.positions, now);
                }
                if let Err(error) = link.write() {
                    self.trouble(&format!("connection lost: {error}"));
                }
            }
            Err(error) => self.trouble(&format!("connection lost: {error}")),
        }
        if let Some(why) = self.intake.misled.take() {
            self.trouble(&why);
        }
    }
}
