//! Frames of a corpus, mutated by seed. Each is answered, or ends its connection, before the next is sent: so every one
//! is looked at by the broker.

use super::Patient;
use crate::connection::read_frame;
use crate::random::Random;
use crate::trouble::Trouble;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Connections at once.
const THREADS: u64 = 4;
/// Frames between two examinations of the broker.
const EXAMINE_EVERY: u64 = 20_000;
/// The most that one frame is changed.
const MAX_MUTATIONS: usize = 6;
/// How long an answer is waited for: a mutated fetch may ask the broker to wait for days.
const ANSWER_WITHIN: Duration = Duration::from_millis(20);
/// Bytes that lengths, counts and tags turn at.
const TURNING_POINTS: [u8; 8] = [0, 1, 2, 0x0f, 0x7f, 0x80, 0xfe, 0xff];

/// Sends as many as the options say.
pub(super) fn run(patient: &mut Patient<'_>) -> Result<(), Trouble> {
    let (frames, seed) = (patient.options.frames, patient.options.seed);
    let corpus = read_corpus(&patient.options.corpus)?;
    let began = Instant::now();
    let mut totals = Totals::default();
    let mut sent = 0;
    while sent < frames {
        let round = EXAMINE_EVERY.min(frames - sent);
        totals = totals.and(&send(patient.setup.bootstrap, &corpus, seed.wrapping_add(sent), round)?);
        sent += round;
        patient.examine(&format!("{sent} mutated frames"))?;
    }
    println!(
        "garbage: {frames} frames from a corpus of {} in {:.0} s: {} answered, {} ended their connection, {} held for longer",
        corpus.len(),
        began.elapsed().as_secs_f64(),
        totals.answered,
        totals.closed,
        totals.held,
    );
    Ok(())
}

/// What became of the frames.
#[derive(Clone, Copy, Default)]
struct Totals {
    answered: u64,
    /// The broker closed the connection.
    closed: u64,
    /// Neither within [`ANSWER_WITHIN`]; we closed the connection.
    held: u64,
}

impl Totals {
    fn and(self, other: &Totals) -> Totals {
        Totals {
            answered: self.answered + other.answered,
            closed: self.closed + other.closed,
            held: self.held + other.held,
        }
    }
}

fn read_corpus(folder: &Path) -> Result<Vec<Vec<u8>>, Trouble> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, Trouble>>()?;
    paths.sort();
    let corpus = paths.iter().map(|path| Ok(fs::read(path)?)).collect::<Result<Vec<_>, Trouble>>()?;
    if corpus.iter().any(|frame| frame.len() > 8) { Ok(corpus) } else { Err(Trouble::proof("the corpus is empty")) }
}

fn send(address: SocketAddr, corpus: &[Vec<u8>], seed: u64, frames: u64) -> Result<Totals, Trouble> {
    thread::scope(|scope| {
        let start = |index: u64| {
            let share = frames / THREADS + u64::from(index < frames % THREADS);
            let random = Random::new(seed.wrapping_mul(THREADS).wrapping_add(index));
            scope.spawn(move || send_share(address, corpus, random, share))
        };
        let workers: Vec<_> = (0..THREADS).map(start).collect();
        workers.into_iter().try_fold(Totals::default(), |totals, worker| {
            Ok(totals.and(&worker.join().map_err(|_| Trouble::proof("a sender panicked"))??))
        })
    })
}

fn send_share(address: SocketAddr, corpus: &[Vec<u8>], mut random: Random, frames: u64) -> Result<Totals, Trouble> {
    let mut totals = Totals::default();
    let mut open = None;
    for _ in 0..frames {
        let mut frame = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(MAX_MUTATIONS) {
            mutate(&mut frame, &mut random);
        }
        let mut stream = match open.take() {
            Some(stream) => stream,
            None => connect(address)?,
        };
        let bytes = [&(frame.len() as i32).to_be_bytes(), &frame[..]].concat();
        match stream.write_all(&bytes).and_then(|()| read_frame(&mut stream)) {
            Ok(_) => {
                totals.answered += 1;
                open = Some(stream);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => totals.held += 1,
            Err(_) => totals.closed += 1,
        }
    }
    Ok(totals)
}

fn connect(address: SocketAddr) -> Result<TcpStream, Trouble> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    Ok(stream)
}

fn mutate(frame: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(frame.len());
    match random.below(6) {
        0 => frame[at] = TURNING_POINTS[random.below(TURNING_POINTS.len())],
        1 => frame[at] = random.byte(),
        2 => frame[at] ^= 1 << random.below(8),
        3 => frame.truncate(at.max(1)),
        4 => frame.insert(at, random.byte()),
        _ => {
            let end = (at + 4).min(frame.len());
            let same = [TURNING_POINTS[random.below(TURNING_POINTS.len())]; 4];
            frame[at..end].copy_from_slice(&same[..end - at]);
        }
    }
}
