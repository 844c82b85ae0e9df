//! An S3 server on loopback, versitygw: the one that `MILLRACE_TEST_S3_ENDPOINT` names, else one that a test starts with
//! `ci/s3-server.sh` and ends.

use std::collections::BTreeMap;
use std::process::Command;

/// A running server's variables; one started here ends with this.
pub(crate) struct S3Server {
    /// Endpoint, bucket and credentials, as programs take them.
    pub(crate) variables: BTreeMap<String, String>,
    ours: bool,
}

/// A line that a script prints for a shell.
pub(crate) fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/s3-server.sh");

impl S3Server {
    pub(crate) fn get() -> S3Server {
        if std::env::var_os("MILLRACE_TEST_S3_ENDPOINT").is_some() {
            return S3Server { variables: std::env::vars().collect(), ours: false };
        }
        let output = Command::new(SCRIPT).arg("start").output().expect("bash runs");
        assert!(output.status.success(), "no S3 server: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        S3Server { variables: text.lines().filter_map(assignment).collect(), ours: true }
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.variables["MILLRACE_TEST_S3_BUCKET"]
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if self.ours {
            let stopped = Command::new(SCRIPT).arg("stop").envs(&self.variables).status();
            assert!(stopped.is_ok_and(|status| status.success()));
        }
    }
}
