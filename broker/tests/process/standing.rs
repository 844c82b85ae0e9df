//! One thread of a process that stands still while the others run: it is stopped as a debugger does it.

#![allow(unsafe_code, reason = "calls of the system that have no other form")]

use std::fs;
use std::ptr::null_mut;

/// A thread that stands still until this is dropped. To be dropped before its process ends, by the thread that made it.
pub(crate) struct Standing(libc::pid_t);

impl Standing {
    /// Stops the thread of `process` that has this name.
    pub(crate) fn of(process: u32, name: &str) -> Standing {
        let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
        let is_named = |thread: &fs::DirEntry| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|called| called.trim_end() == name)
        };
        let mut named = threads.map(|thread| thread.expect("it can be listed")).filter(is_named);
        let thread = named.next().unwrap_or_else(|| panic!("no thread is called {name}"));
        let thread = thread.file_name().to_str().and_then(|number| number.parse().ok()).expect("a thread's number");
        ask(libc::PTRACE_SEIZE, thread);
        let standing = Standing(thread);
        ask(libc::PTRACE_INTERRUPT, thread);
        // SAFETY: the status is memory of ours.
        let stopped = unsafe { libc::waitpid(thread, &mut 0, libc::__WALL) };
        assert_eq!(stopped, thread, "{}", std::io::Error::last_os_error());
        standing
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        ask(libc::PTRACE_DETACH, self.0);
    }
}

fn ask(request: libc::c_uint, thread: libc::pid_t) {
    // SAFETY: these requests take numbers only.
    let done = unsafe { libc::ptrace(request, thread, null_mut::<libc::c_void>(), null_mut::<libc::c_void>()) };
    let error = std::io::Error::last_os_error();
    assert_eq!(done, 0, "a child could not be traced: {error}; is ptrace allowed here?");
}
