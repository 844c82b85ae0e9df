//! The simulator: Millrace's real code in a world that a seed decides (DESIGN.md section 8).
//!
//! A *scenario* plays one seed: processes, clients, accidents. Everything that must hold is checked while it runs
//! ([`truth`], [`ledger`], [`audit`]) and after everything was healed ([`rebuild`], [`recovery`], liveness). A *finding* is a panic, with the seed
//! that leads to it. The wrong variants of PROTOCOL.md section 9 prove that the checks see what they should: [`table`].

pub mod audit;
pub mod journal;
pub mod lane;
pub mod ledger;
pub mod litter;
pub mod node;
pub mod rebuild;
pub mod recovery;
pub mod scale;
pub mod seeds;
pub mod segments;
pub mod table;
pub mod truth;
