//! A TCP proxy on loopback that lets bytes through no faster than told: a slow object store made of a fast one.
//!
//! 1. The bound holds for all connections together, and only towards the server; answers pass freely.
//! 2. At most one buffer of each connection waits here: the rest stays with the sender.

use crate::trouble::Trouble;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes moved at once.
const BUFFER_BYTES: usize = 16 << 10;

/// What all connections share.
struct Pace {
    /// Bytes a second; `u64::MAX`: no bound.
    rate: AtomicU64,
    /// When the bytes let through so far are paid for.
    paid_until: Mutex<Instant>,
    passed: AtomicU64,
}

/// A running proxy; its threads end with the program.
pub(crate) struct SlowProxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    pace: Arc<Pace>,
}

impl SlowProxy {
    /// Listens on a free port and passes connections on to `server`.
    pub(crate) fn start(server: SocketAddr, bytes_per_second: u64) -> Result<Self, Trouble> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let pace = Arc::new(Pace {
            rate: AtomicU64::new(bytes_per_second),
            paid_until: Mutex::new(Instant::now()),
            passed: AtomicU64::new(0),
        });
        let shared = Arc::clone(&pace);
        thread::Builder::new().name("slow-proxy".to_owned()).spawn(move || {
            // A connection that fails ends alone: the client sees it closed.
            listener.incoming().flatten().for_each(|client| drop(pass(client, server, &shared)));
        })?;
        Ok(SlowProxy { address, pace })
    }

    /// Lets bytes through as they come.
    pub(crate) fn lift(&self) {
        self.pace.rate.store(u64::MAX, Ordering::Release);
    }

    /// Bytes that went to the server so far.
    pub(crate) fn passed(&self) -> u64 {
        self.pace.passed.load(Ordering::Acquire)
    }
}

fn pass(client: TcpStream, server: SocketAddr, pace: &Arc<Pace>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (mut client_out, mut server_out) = (client.try_clone()?, server.try_clone()?);
    let (mut client_in, mut server_in) = (client, server);
    let pace = Arc::clone(pace);
    thread::Builder::new().spawn(move || copy(&mut client_in, &mut server_out, |bytes| pace.pay(bytes)))?;
    thread::Builder::new().spawn(move || copy(&mut server_in, &mut client_out, |_| ()))?;
    Ok(())
}

fn copy(from: &mut TcpStream, to: &mut TcpStream, mut before_write: impl FnMut(usize)) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        before_write(read);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Either side may be gone already.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

impl Pace {
    /// Waits until so many bytes may go.
    fn pay(&self, bytes: usize) {
        self.passed.fetch_add(bytes as u64, Ordering::AcqRel);
        let rate = self.rate.load(Ordering::Acquire);
        if rate == u64::MAX {
            return;
        }
        let until = {
            let mut paid_until = self.paid_until.lock().expect("no holder panics");
            *paid_until = (*paid_until).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *paid_until
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_unchanged_and_no_faster_than_told() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let proxy = SlowProxy::start(server.local_addr().expect("bound"), 1 << 20).expect("a free port");
        let mut client = TcpStream::connect(proxy.address).expect("it listens");
        let sent: Vec<u8> = (0..256 << 10).map(|index| (index % 251) as u8).collect();
        let began = Instant::now();
        let (mut accepted, _) = server.accept().expect("the proxy connects");
        let copy = sent.clone();
        let writer = thread::spawn(move || {
            client.write_all(&copy).and_then(|()| client.shutdown(Shutdown::Write)).expect("the proxy reads");
            client
        });
        let mut received = Vec::new();
        accepted.read_to_end(&mut received).expect("the proxy writes");
        assert!(received == sent);
        assert!(began.elapsed() >= Duration::from_millis(240), "256 KiB at 1 MiB a second");
        assert_eq!(proxy.passed(), sent.len() as u64);
        drop(writer.join());
    }
}
