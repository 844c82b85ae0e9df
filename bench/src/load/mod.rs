//! What sends and counts: [`crew`] decides who sends what where, [`team`] runs the threads, a [`sender`] is one of them
//! and has [`producer`]s over [`link`]s; what they send is encoded once ([`template`]) and counted by [`recorder`]s. A
//! [`reader`] takes back what was sent.

pub(crate) mod clock;
pub(crate) mod compress;
pub(crate) mod crew;
pub(crate) mod fetch_link;
pub(crate) mod intake;
pub(crate) mod keys;
pub(crate) mod link;
pub(crate) mod patch;
#[cfg(test)]
mod pretended;
pub(crate) mod producer;
#[cfg(test)]
mod producer_tests;
pub(crate) mod reader;
pub(crate) mod readers;
pub(crate) mod recorder;
pub(crate) mod routes;
pub(crate) mod sender;
pub(crate) mod team;
pub(crate) mod template;
