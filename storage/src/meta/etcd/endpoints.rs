//! The endpoints of an etcd: one is used until it fails, then the next.
//!
//! A channel connects when it is first used and again after its connection broke; names are resolved each time. One that
//! hangs is found by its calls' limits and, where watches are open, by pings.

use super::EtcdSettings;
use super::address::EtcdAddress;
use crate::object::OpenError;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Longest way to a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Pause between pings while something is under way. etcd takes more than one in 5 s for an attack.
const PING_EVERY: Duration = Duration::from_secs(6);
/// An endpoint that leaves a ping unanswered for so long is gone.
const PING_LIMIT: Duration = Duration::from_secs(3);

/// All endpoints, and which one is in use.
pub(super) struct Endpoints {
    channels: Vec<Channel>,
    names: Vec<String>,
    current: AtomicUsize,
}

impl Endpoints {
    /// To be called on the side runtime, which drives the connections.
    pub(super) fn new(ends: &[Endpoint], names: Vec<String>) -> Endpoints {
        let channels = ends.iter().map(Endpoint::connect_lazy).collect();
        Endpoints { channels, names, current: AtomicUsize::new(0) }
    }

    pub(super) fn count(&self) -> usize {
        self.channels.len()
    }

    /// The one in use, and its number for [`Endpoints::failed`].
    pub(super) fn pick(&self) -> (usize, Channel) {
        let number = self.current.load(Ordering::Relaxed) % self.channels.len();
        (number, self.channels[number].clone())
    }

    /// The next calls use another one, unless others have found that already.
    pub(super) fn failed(&self, number: usize) {
        let next = (number + 1) % self.channels.len();
        let _ = self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn name(&self, number: usize) -> &str {
        &self.names[number]
    }
}

/// Reads what the settings name and describes each endpoint; connects to none.
pub(super) fn describe(address: &EtcdAddress, settings: &EtcdSettings) -> Result<Vec<Endpoint>, OpenError> {
    let tls = address.tls.then(|| tls(settings)).transpose()?;
    if tls.is_none() && (settings.ca.is_some() || settings.cert.is_some() || settings.key.is_some()) {
        return Err(OpenError::new(
            "certificates are given for an etcd that is spoken to without TLS",
            "write etcds:// instead of etcd://, or leave them out",
        ));
    }
    (0..address.endpoints.len())
        .map(|number| {
            let refused = |error: tonic::transport::Error| {
                OpenError::new(
                    format!("the etcd endpoint {} can't be used: {error:?}", address.endpoints[number]),
                    "check the host, the port and the certificates",
                )
            };
            let end = Endpoint::from_shared(address.url(number)).map_err(refused)?;
            let end = end
                .connect_timeout(CONNECT_LIMIT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_LIMIT)
                .keep_alive_while_idle(false);
            match &tls {
                Some(tls) => end.tls_config(tls.clone()).map_err(refused),
                None => Ok(end),
            }
        })
        .collect()
}

fn tls(settings: &EtcdSettings) -> Result<ClientTlsConfig, OpenError> {
    let config = ClientTlsConfig::new();
    let config = match &settings.ca {
        Some(ca) => config.ca_certificate(Certificate::from_pem(read(ca)?)),
        None => config.with_native_roots(),
    };
    match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => Ok(config.identity(Identity::from_pem(read(cert)?, read(key)?))),
        (None, None) => Ok(config),
        _ => Err(OpenError::new(
            "of a client certificate for etcd and its key one is missing",
            "give both --etcd-cert and --etcd-key, or none",
        )),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path).map_err(|error| {
        OpenError::new(
            format!("{} can't be read: {error}", path.display()),
            "name a PEM file that this process may read",
        )
    })
}
