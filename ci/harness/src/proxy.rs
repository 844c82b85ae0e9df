//! A TCP proxy on loopback that passes bytes on, cuts them off, holds them up or lets them through slowly: a network that
//! fails on demand, of one server for one client.
//!
//! 1. Bytes are never changed, dropped or reordered within a connection: what is held up arrives once the proxy passes again,
//!    if both ends still stand, as after a partition that TCP survives.
//! 2. A cut ends all connections at once, and new ones right after they open.
//! 3. The bound of a slow proxy holds for all connections together, and only towards the server; answers pass freely.
//! 4. At most one buffer of each direction waits here: the rest stays with the sender.

use crate::trouble::Trouble;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes moved at once.
const BUFFER_BYTES: usize = 16 << 10;

/// What becomes of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// They pass.
    Pass,
    /// Connections are ended.
    Cut,
    /// They wait here, and so do new connections.
    Hold,
    /// So many a second pass to the server.
    Slow(u64),
}

struct State {
    mode: Mode,
    /// Both ends of each connection.
    live: BTreeMap<u64, [TcpStream; 2]>,
    /// When the bytes let through so far are paid for.
    paid_until: Instant,
}

struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    opened: AtomicU64,
    passed: AtomicU64,
}

/// A running proxy; its threads end with the program.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free port and passes connections on to `server`.
    pub(crate) fn start(server: SocketAddr) -> Result<Self, Trouble> {
        Self::start_at(0, server)
    }

    /// The same on a given port.
    pub(crate) fn start_at(port: u16, server: SocketAddr) -> Result<Self, Trouble> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let state = State { mode: Mode::Pass, live: BTreeMap::new(), paid_until: Instant::now() };
        let shared = Arc::new(Shared {
            server,
            state: Mutex::new(state),
            changed: Condvar::new(),
            opened: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                // A connection that fails ends alone: the client sees it closed.
                let _ = thread::Builder::new().name("proxied".to_owned()).spawn(move || shared.serve(client));
            }
        })?;
        Ok(Proxy { address, shared })
    }

    /// Changes what becomes of bytes, from now on.
    pub(crate) fn set(&self, mode: Mode) {
        let mut state = self.shared.state();
        state.mode = mode;
        if mode == Mode::Cut {
            state.live.values().for_each(|ends| ends.iter().for_each(close));
        }
        self.shared.changed.notify_all();
    }

    /// Bytes that went to the server so far.
    pub(crate) fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Acquire)
    }
}

/// Ends both directions; the peer may have done so already.
fn close(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Waits while bytes are held up; `None` if they are cut off.
    fn admitted(&self) -> Option<MutexGuard<'_, State>> {
        let held = self.changed.wait_while(self.state(), |state| state.mode == Mode::Hold);
        let state = held.expect("no holder panics");
        (state.mode != Mode::Cut).then_some(state)
    }

    fn serve(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        if self.admitted().is_none() {
            return Ok(());
        }
        let server = TcpStream::connect(self.server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let ends = [client.try_clone()?, server.try_clone()?];
        let connection = self.opened.fetch_add(1, Ordering::Relaxed);
        match self.admitted() {
            Some(mut state) => state.live.insert(connection, ends),
            None => return Ok(()),
        };
        let (answers_from, answers_to) = (server.try_clone()?, client.try_clone()?);
        let shared = Arc::clone(self);
        let answers = thread::Builder::new()
            .name("proxied".to_owned())
            .spawn(move || shared.copy(&answers_from, &answers_to, false));
        if answers.is_ok() {
            self.copy(&client, &server, true);
            // It cannot panic: then there would be nothing to wait for.
            let _ = answers?.join();
        }
        self.state().live.remove(&connection);
        Ok(())
    }

    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream, to_server: bool) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if !self.pass(read, to_server) || to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        // Either side may be gone already.
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }

    /// Waits until so many bytes may go; false if they may not.
    fn pass(&self, bytes: usize, to_server: bool) -> bool {
        let Some(mut state) = self.admitted() else { return false };
        if !to_server {
            return true;
        }
        self.passed.fetch_add(bytes as u64, Ordering::AcqRel);
        let Mode::Slow(rate) = state.mode else { return true };
        let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
        state.paid_until = state.paid_until.max(Instant::now()) + due;
        let until = state.paid_until;
        drop(state);
        thread::sleep(until.saturating_duration_since(Instant::now()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's connection through a proxy, and the server's end of it.
    fn connected() -> (Proxy, TcpStream, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let proxy = Proxy::start(server.local_addr().expect("bound")).expect("a free port");
        let client = TcpStream::connect(proxy.address).expect("it listens");
        let (accepted, _) = server.accept().expect("the proxy connects");
        (proxy, client, accepted)
    }

    #[test]
    fn bytes_arrive_unchanged_and_no_faster_than_told() {
        let (proxy, mut client, mut accepted) = connected();
        proxy.set(Mode::Slow(1 << 20));
        let sent: Vec<u8> = (0..256 << 10).map(|index| (index % 251) as u8).collect();
        let began = Instant::now();
        let copy = sent.clone();
        let writer = thread::Builder::new().spawn(move || {
            client.write_all(&copy).and_then(|()| client.shutdown(Shutdown::Write)).expect("the proxy reads");
            client
        });
        let mut received = Vec::new();
        accepted.read_to_end(&mut received).expect("the proxy writes");
        assert!(received == sent);
        assert!(began.elapsed() >= Duration::from_millis(240), "256 KiB at 1 MiB a second");
        assert_eq!(proxy.passed(), sent.len() as u64);
        drop(writer.expect("a thread").join());
    }

    #[test]
    fn what_is_held_up_arrives_later_and_what_is_cut_ends() {
        let (proxy, mut client, mut accepted) = connected();
        proxy.set(Mode::Hold);
        client.write_all(b"late").expect("the proxy or the kernel takes it");
        accepted.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let mut four = [0; 4];
        assert!(accepted.read(&mut four).is_err(), "nothing passes");
        proxy.set(Mode::Pass);
        accepted.set_read_timeout(None).expect("no timeout");
        accepted.read_exact(&mut four).expect("it passes");
        assert_eq!(&four, b"late");
        proxy.set(Mode::Cut);
        assert_eq!(client.read(&mut four).unwrap_or(0), 0, "ended");
        let mut next = TcpStream::connect(proxy.address).expect("it listens");
        assert_eq!(next.read(&mut four).unwrap_or(0), 0, "ended right after it opened");
    }
}
