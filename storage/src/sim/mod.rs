//! Deterministic simulation: executor, virtual time, failing stores (DESIGN.md section 8).
