//! The bare core: one event, one consequence.
