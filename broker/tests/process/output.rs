//! What the program writes, and who reads it.

use crate::kafka::Client;
use crate::program::{Broker, Running, directory, millrace, run, serve, until};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn a_reader_that_leaves_after_the_first_line_leaves_the_broker_running() {
    let (_directory, data) = directory();
    let first = Broker::start(&data, &["--shards", "1"]);
    let address = first.bootstrap().to_owned();
    first.stop();
    // As `millrace serve 2>&1 | head -1` does it: both streams go to a pipe that nobody reads any more. The port is
    // known from before, since the banner is not.
    let mut command = millrace(&["serve", "--shards", "1", "--listen", &address]);
    command.arg("--data-dir").arg(&data).env("MILLRACE_LOG", "debug");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let errors = writer.try_clone().expect("a descriptor");
    drop(reader);
    let mut process = Orphan(command.stdout(writer).stderr(errors).spawn().expect("the program starts"));
    drop(command);
    until("it listens", || {
        assert_eq!(process.0.try_wait().expect("our child"), None, "it must go on");
        std::net::TcpStream::connect(&address).ok()
    });
    let mut client = Client::new(&address);
    client.create_topic("t", 1);
    assert_eq!(client.write("t", 0, &["a"]), 0);
    assert_eq!(process.0.try_wait().expect("our child"), None, "it must go on");
}

/// A child whose output is not ours.
struct Orphan(std::process::Child);

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_command_whose_reader_is_gone_ends_quietly() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    broker.topic(&["create", "t"]).expect("a new topic");
    for arguments in [&["config"][..], &["topic", "--bootstrap", broker.bootstrap(), "list"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = millrace(arguments).stdout(writer).stderr(Stdio::piped()).output().expect("the program starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("panicked") && text.is_empty(), "{text}");
        assert_eq!(output.status.code(), Some(1), "{text}");
    }
    broker.stop();
}

#[test]
fn log_lines_that_no_terminal_shows_are_json_with_level_time_and_message() {
    let (_directory, data) = directory();
    let mut process = Running::start(&mut serve(&data));
    until("the banner", || process.out().contains("acks=0").then_some(()));
    process.signal(crate::program::Signal::Term);
    assert!(process.end().success());
    let log = process.err();
    assert!(!log.is_empty());
    for line in BufReader::new(log.as_bytes()).lines() {
        let line = line.expect("text");
        let fields = ["{\"timestamp\":\"", "\"level\":\"", "\"message\":\""];
        assert!(fields.iter().all(|field| line.contains(field)) && line.ends_with('}'), "{line}");
        assert!(!line.contains('\u{1b}'), "no colours: {line}");
    }
    assert!(!process.out().contains("timestamp"), "logs go to standard error");
}

#[test]
fn help_and_version_name_every_setting() {
    let text = String::from_utf8(run(&["serve", "--help"]).stdout).expect("text");
    for flag in ["--data-dir", "--listen", "--object-store", "--wal-lanes", "--memory-mib", "MILLRACE_FSYNC"] {
        assert!(text.contains(flag), "{flag}: {text}");
    }
    let version = run(&["--version"]);
    assert!(version.status.success() && version.stdout.starts_with(b"millrace "));
}
