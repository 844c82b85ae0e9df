//! tokio, named here only: the side runtime that object-store clients need, threads for blocking calls, and the [`crate::env::Env`] of the
//! lane's and the control task's threads.
