//! The program as it is run, against a small broker that answers, refuses, moves or lies as told.

mod broker;
mod compare;
mod endpoint;
mod produce;
mod report;
mod validate;
mod workloads;
