//! Asks other broker processes whether they live: a Kafka request that any of them answers.

use crate::control::cluster::observer::Pong;
use crate::control::pump::Pinger;
use futures::future::LocalBoxFuture;
use millrace_protocol::frame::request_frame;
use millrace_protocol::messages::ApiVersionsRequest;
use millrace_storage::side::net;
use std::io::ErrorKind;

/// Over TCP, a connection each.
pub(super) struct TcpPinger;

/// What every broker answers, whoever asks.
fn question() -> Vec<u8> {
    let frame = request_frame(&ApiVersionsRequest::default(), 0, 0, Some("observer".into()));
    frame.expect("every request has a version 0").concat()
}

impl Pinger for TcpPinger {
    fn ping(&self, host: &str, port: u16) -> LocalBoxFuture<'static, Pong> {
        let host = host.to_owned();
        Box::pin(async move {
            match net::ask(&host, port, &question()).await {
                // Who has no place for a further connection lives.
                Ok(()) => Pong::Answered,
                Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                    Pong::Answered
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Pong::Refused,
                Err(_) => Pong::Silent,
            }
        })
    }
}
