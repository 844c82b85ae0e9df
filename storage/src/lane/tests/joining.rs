//! The flush governor.
