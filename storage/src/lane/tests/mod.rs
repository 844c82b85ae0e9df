//! Tests of the lane: [`world`] runs pumps over memory stores in virtual time, [`core`] feeds the bare core.

mod births;
mod collecting;
mod compacting;
mod core;
mod damage;
mod deletions;
mod faults;
mod hedging;
mod holding;
mod joining;
mod moves;
mod probe;
mod restart;
mod segments;
mod waits;
mod world;
