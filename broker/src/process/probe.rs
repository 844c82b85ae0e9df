//! What start-up looks at before it opens anything. Every refusal names its fix.

use crate::runtime;
use millrace_storage::env::WallMs;
use millrace_storage::object::OpenError;
use millrace_storage::side::wall_now;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::disable_transparent_huge_pages;

/// Descriptors that a process needs: its files, rings and stores, and some connections.
const LEAST_DESCRIPTORS: u64 = 512;

/// 2024-01-01, Unix milliseconds: no clock that is set shows an earlier time.
const EARLIEST_NOW: WallMs = WallMs(1_704_067_200_000);

/// Checks the clock, the limits and io_uring.
pub(super) fn check() -> Result<(), OpenError> {
    small_pages();
    clock(wall_now())?;
    descriptors(raise_descriptors())?;
    runtime::probe()
}

/// Huge pages only as asked for: one is cleared whole at its first touch, and until then the shard answers nobody
/// (decision 042). For this process; best effort, since it concerns time only.
fn small_pages() {
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::debug!("transparent huge pages stay as the system has them: {error}");
    }
}

fn clock(now: WallMs) -> Result<(), OpenError> {
    if now >= EARLIEST_NOW {
        return Ok(());
    }
    Err(OpenError::new(
        "the system clock shows a time before 2024, so timestamps and retention would be wrong",
        "set it, for example with `timedatectl set-ntp true`",
    ))
}

/// Raises the soft limit to the hard one and says what it is then; `None` = no limit.
fn raise_descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // Some sandboxes forbid even this: the soft limit it is.
        Err(_) => limit.current,
    }
}

fn descriptors(limit: Option<u64>) -> Result<(), OpenError> {
    match limit {
        Some(limit) if limit < LEAST_DESCRIPTORS => Err(OpenError::new(
            format!("the limit on open files is {limit}, and at least {LEAST_DESCRIPTORS} are needed"),
            "raise it: `ulimit -n 65536`, LimitNOFILE=65536 in a systemd unit, or `--ulimit nofile=65536` for Docker",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_refused_with_its_fix() {
        assert!(clock(EARLIEST_NOW).is_ok());
        let refused = clock(WallMs(0)).expect_err("1970");
        assert!(refused.to_string().contains("timedatectl"), "{refused}");
    }

    #[test]
    fn too_few_descriptors_are_refused_with_their_fix() {
        assert!(descriptors(None).is_ok() && descriptors(Some(LEAST_DESCRIPTORS)).is_ok());
        let refused = descriptors(Some(64)).expect_err("too few");
        assert!(refused.to_string().contains("ulimit -n"), "{refused}");
    }
}
