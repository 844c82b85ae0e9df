//! Connections: frames into the arena, replies out in order, budgets. Generic over a byte stream, so that TLS, tests
//! and the simulator's network fit.

pub mod arena;
pub mod budget;
pub mod connection;
#[cfg(test)]
mod connection_tests;
pub mod duplex;
pub mod frame;
pub mod incoming;
pub mod replies;
pub mod sockets;
pub mod stream;
