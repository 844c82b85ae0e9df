//! A sending thread: its producers, until the window is over and every request is answered.

use crate::load::clock::{Clock, Waiter};
use crate::load::producer::{Leaders, Producer};
use crate::load::recorder::Recorder;
use crate::load::routes::Routes;
use crate::load::template::Templates;
use crate::pace::{SECOND, Schedule};
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// The longest wait while a leader is looked for, nanoseconds.
const HALTED_LOOK: u64 = SECOND / 200;
/// Tokens of a producer: more nodes than it ever meets.
const LINKS: usize = 1 << 10;

/// What a sending thread works with.
pub(crate) struct Sender {
    /// Its sockets.
    pub waiter: Waiter,
    /// The run's.
    pub clock: Clock,
    /// Where partitions are led.
    pub routes: Routes,
    /// What it sends.
    pub templates: Arc<Templates>,
    /// Who sends.
    pub producers: Vec<Producer<TcpStream>>,
    /// `None`: as fast as requests are answered.
    pub schedule: Option<Schedule>,
    /// Whether producers without a schedule go on without waiting for answers.
    pub unanswering: bool,
    /// What it counts.
    pub recorder: Recorder,
    /// As last told.
    pub leaders: Leaders,
    /// Whether a producer waits for newer ones.
    pub halted: bool,
}

impl Sender {
    /// Sends until `end`, then waits for answers as long as `drain`.
    ///
    /// # Errors
    /// When the thread cannot wait for its sockets.
    pub(crate) fn run(&mut self, end: u64, drain: u64) -> io::Result<()> {
        if self.schedule.is_none() {
            (0..self.producers.len()).for_each(|number| self.fill(number));
        }
        let mut ready = Vec::new();
        loop {
            let now = self.clock.now();
            self.recorder.hand_over(now);
            // What was due before the end is sent, however late it is looked for.
            self.ask_what_is_due(now.min(end - 1));
            if now < end {
                if self.unanswering {
                    (0..self.producers.len()).for_each(|number| self.fill(number));
                }
            } else {
                let unanswered: usize = self.producers.iter().map(Producer::unanswered).sum();
                if unanswered == 0 || now > end + drain {
                    self.recorder.failed("no answer", unanswered as u64);
                    return Ok(());
                }
            }
            let halted = self.mend();
            let due = self.schedule.as_ref().filter(|_| now < end).map(|schedule| schedule.next_due());
            let wait = due.map(|due| due.saturating_sub(now));
            let wait = if halted { Some(wait.unwrap_or(HALTED_LOOK).min(HALTED_LOOK)) } else { wait };
            // Without answers there is always room: the next round follows at once.
            let wait = if self.unanswering && now < end { Some(0) } else { wait };
            self.waiter.wait(wait, &mut ready)?;
            for &token in &ready {
                self.serve(token);
                if self.schedule.is_none() && now < end {
                    self.fill(token.0 / LINKS);
                }
            }
        }
    }

    /// Asks producers for what the schedule says.
    fn ask_what_is_due(&mut self, now: u64) {
        while let Some((number, due)) = self.schedule.as_mut().and_then(|schedule| schedule.take(now)) {
            self.producers[number].ask(due);
            self.send(number, now);
        }
    }

    /// Has a producer send as much as it may.
    fn fill(&mut self, number: usize) {
        let now = self.clock.now();
        let room = self.producers[number].room();
        (0..room).for_each(|_| self.producers[number].ask(now));
        self.send(number, now);
    }

    /// A socket is ready.
    fn serve(&mut self, token: Token) {
        let (number, link) = (token.0 / LINKS, token.0 % LINKS);
        let now = self.clock.now();
        self.producers[number].receive(link, self.leaders.generation, now, &mut self.recorder);
        self.send(number, now);
    }

    /// Has leaders asked for if a producer needs that, and tells what was answered; whether one still waits.
    fn mend(&mut self) -> bool {
        if !self.halted {
            return false;
        }
        self.routes.refresh();
        if let Some(leaders) = self.routes.newer(self.leaders.generation) {
            self.leaders = leaders;
            let now = self.clock.now();
            self.halted = false;
            (0..self.producers.len()).for_each(|number| self.send(number, now));
        }
        self.halted
    }

    fn send(&mut self, number: usize, now: u64) {
        let registry = self.waiter.poll.registry();
        let mut connect = |link: usize, address: SocketAddr| {
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            assert!(link < LINKS, "a cluster has fewer nodes");
            registry.register(&mut stream, Token(number * LINKS + link), Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        };
        let producer = &mut self.producers[number];
        producer.send(&self.templates, &self.leaders, now, &mut self.recorder, &mut connect);
        self.halted |= producer.halted();
    }
}
