//! What the control task does besides where many processes serve one log (`docs/decisions/080-membership.md`).
//!
//! [`planner`] says where things shall be.

pub mod planner;
