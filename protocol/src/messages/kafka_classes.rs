//! The codec against Kafka's own message classes: random messages and defaults of every declared version.
//!
//! Runs where `MILLRACE_KAFKA_CLASSPATH` names the jars of Kafka 4.4 (kafka-clients and what it needs) and `java` is
//! there; says so and passes elsewhere. `oracle` and `golden` hold everywhere.

use super::{MessageVisitor, visit_messages};
use crate::codec::sample::{Sample, Sampler};
use crate::codec::{Message, Version};
use crate::wire::Writer;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Random messages of each version.
const ROUNDS: u64 = 50;

/// The lines that `CheckMessages.java` reads.
struct Lines {
    text: String,
    visited: usize,
}

impl Lines {
    fn push<M: Message>(&mut self, kind: &str, message: &M, version: i16) {
        let direction = if self.visited.is_multiple_of(2) { "request" } else { "response" };
        let mut writer = Writer::new();
        message.encode(&mut writer, version).expect("the message has a form in its version");
        write!(self.text, "{direction} {kind} {} {version} x", M::KEY.code()).expect("a String takes all");
        for byte in writer.concat() {
            write!(self.text, "{byte:02x}").expect("a String takes all");
        }
        self.text.push('\n');
    }
}

impl MessageVisitor for Lines {
    fn visit<M: Message + Sample>(&mut self) {
        for number in M::VERSIONS {
            let version = Version { number, flexible: M::KEY.is_flexible(number) };
            self.push("default", &M::default(), number);
            for seed in 0..ROUNDS {
                self.push("sample", &M::sample(&mut Sampler(seed), version), number);
            }
        }
        self.visited += 1;
    }
}

#[test]
fn kafka_s_own_classes_read_and_write_every_version_as_we_do() {
    let Some(class_path) = std::env::var_os("MILLRACE_KAFKA_CLASSPATH") else {
        println!("MILLRACE_KAFKA_CLASSPATH is not set: not compared with Kafka's classes");
        return;
    };
    let mut lines = Lines { text: String::new(), visited: 0 };
    visit_messages(&mut lines);
    let mut java = Command::new("java")
        .arg("-cp")
        .arg(class_path)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/CheckMessages.java"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("java is there");
    let written = java.stdin.take().expect("piped").write_all(lines.text.as_bytes());
    assert!(java.wait().expect("java ends").success(), "a message differs: see above");
    written.expect("java read every line");
}
