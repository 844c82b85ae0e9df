//! Structured logs on standard error: text for a terminal, JSON lines otherwise. `MILLRACE_LOG` filters as
//! `tracing_subscriber`'s `EnvFilter` does (default `info`). Nothing is logged per record or per request.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Installs the subscriber; a second call changes nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env("MILLRACE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed =
        if std::io::stderr().is_terminal() { builder.compact().try_init() } else { builder.json().try_init() };
    // Only a test that starts two brokers in one process gets here twice.
    drop(installed);
}
