//! Connections that ask for nothing, and partitions that nobody writes to: what a broker costs at rest.

use super::{RunError, failed};
use crate::arguments::Load;
use crate::cluster::Cluster;
use crate::load::clock::Waiter;
use crate::load::recorder::Recorder;
use crate::load::team::{self, Member, Shared};
use crate::result::{Progress, RunResult};
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::io::{self, Read};
use std::net::SocketAddr;

/// Runs it: connections are dealt out over the nodes that lead partitions; each that is closed is an error.
pub(crate) fn run(name: &str, load: &Load, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    let nodes = Cluster::connect(&load.bootstrap)?.topic(&load.topic, load.partitions)?;
    let connected = nodes.iter().cycle().take(load.connections as usize).map(connect).collect::<io::Result<_>>();
    let streams: Vec<TcpStream> = connected.map_err(|error| RunError::Io("connections".to_owned(), error))?;
    let shared = Shared::start(load, None);
    let (clock, end) = (shared.clock, shared.window.end);
    let work = move |mut recorder: Recorder| {
        let mut streams = streams;
        let mut waiter = Waiter::new()?;
        for (number, stream) in streams.iter_mut().enumerate() {
            waiter.poll.registry().register(stream, Token(number), Interest::READABLE)?;
        }
        let mut ready = Vec::new();
        while clock.now() < end {
            waiter.wait(None, &mut ready)?;
            for &Token(number) in &ready {
                if !matches!(streams[number].read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                    recorder.failed("a connection that asks for nothing was closed or written to", 1);
                }
            }
        }
        Ok(recorder)
    };
    let member = Member { series: name.to_owned(), sends: true, work: Box::new(work) };
    team::run(name, load, &shared, vec![member], show).map_err(failed)
}

fn connect(address: &SocketAddr) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::connect(address)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}
