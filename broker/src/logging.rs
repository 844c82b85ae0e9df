//! Structured logs on standard error: text for a terminal, JSON lines otherwise. `MILLRACE_LOG` filters as
//! `tracing_subscriber`'s `EnvFilter` does (default `info`). Nothing is logged per record or per request.
//!
//! A line that can't be written (a reader that left, a full disk) is lost and harms nothing.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Installs the subscriber; a second call changes nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env("MILLRACE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It would tell of a failed write by another write to standard error, and panic when that fails too.
    let builder = builder.log_internal_errors(false);
    let installed =
        if std::io::stderr().is_terminal() { builder.compact().try_init() } else { builder.json().try_init() };
    // Only a test that starts two brokers in one process gets here twice.
    drop(installed);
}
