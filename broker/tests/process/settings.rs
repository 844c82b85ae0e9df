//! Settings: `millrace config`, precedence, refusals.

use crate::program::{directory, millrace, refusal, run, serve};
use std::fs;
use std::process::Command;

/// The row of a setting in `millrace config`: value and origin.
fn row(command: &mut Command, name: &str) -> (String, String) {
    let output = command.output().expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("{name} in {text}"));
    let columns: Vec<&str> = line.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
    let [_, value, .., origin] = columns[..] else { panic!("four columns: {line}") };
    (value.to_owned(), origin.to_owned())
}

fn pair(value: &str, origin: &str) -> (String, String) {
    (value.to_owned(), origin.to_owned())
}

#[test]
fn config_shows_flag_over_variable_over_file_over_default_with_their_origins() {
    let (directory, _data) = directory();
    let path = directory.path().join("millrace.toml");
    fs::write(&path, "linger-ms = 1\nfsync = false\nzone = \"z\"\n").expect("it can be written");
    let path = path.to_str().expect("a plain path");
    let config = |flags: &[&str]| millrace(&[&["config", "--config", path], flags].concat());
    let flag = ["--linger-ms", "3"];
    assert_eq!(row(config(&flag).env("MILLRACE_LINGER_MS", "2"), "linger-ms"), pair("3", "flag"));
    assert_eq!(row(config(&[]).env("MILLRACE_LINGER_MS", "2"), "linger-ms"), pair("2", "MILLRACE_LINGER_MS"));
    assert_eq!(row(&mut config(&[]), "linger-ms"), pair("1", path));
    assert_eq!(row(&mut config(&[]), "fsync"), pair("false", path));
    assert_eq!(row(&mut config(&[]), "memory-mib"), pair("1024", "default"));
    assert_eq!(row(&mut millrace(&["config"]), "linger-ms"), pair("-", "derived at start-up"));
    let by_variable = row(millrace(&["config"]).env("MILLRACE_CONFIG", path), "zone");
    assert_eq!(by_variable, pair("z", path));
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_name_before_anything_is_opened() {
    let (directory, data) = directory();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--memory-mib", "1"], &["memory-mib", "flag", "from 64"]),
        (&["--shards", "x"], &["shards", "whole number"]),
        (&["--shards", "0"], &["shards", "from 1"]),
        (&["--fsync", "maybe"], &["fsync", "true or false"]),
        (&["--listen", "nowhere"], &["listen", "HOST:PORT"]),
        (&["--listen", "0.0.0.0:0"], &["--advertise"]),
        (&["--listen", "127.0.0.1:65535", "--shards", "2"], &["65535"]),
        (&["--object-store", "memory:", "--metadata", "embedded:/nowhere"], &["memory:", "--metadata"]),
        (&["--metadata", "etcd:x"], &["embedded:DIR"]),
        (&["--object-store", "abfs://bucket"], &["abfs://bucket", "s3://bucket/prefix"]),
        (&["--object-store", "file://relative"], &["absolute"]),
        (&["--shards", "64", "--memory-mib", "64"], &["--memory-mib", "512"]),
    ];
    for (flags, words) in cases {
        let data = data.to_str().expect("a plain path");
        // A later --listen wins over no earlier one: these give their own.
        let refused = refusal(&mut millrace(&[&["serve", "--data-dir", data], *flags].concat()));
        for word in *words {
            assert!(refused.contains(word), "{flags:?}: {word} is not in {refused}");
        }
    }
    assert!(!data.join("metadata").exists());
    let file = directory.path().join("bad.toml");
    let file = file.to_str().expect("a plain path");
    for (text, words) in [("shard = 2\n", "\"shard\" is not a setting"), ("shards = [1]\n", "array"), ("=", "bad.toml")]
    {
        fs::write(file, text).expect("it can be written");
        let refused = refusal(serve(&data).args(["--config", file]));
        assert!(refused.contains(words) && refused.contains(file), "{refused}");
    }
    let refused = refusal(serve(&data).args(["--config", "/nowhere.toml"]));
    assert!(refused.contains("/nowhere.toml"), "{refused}");
}

#[test]
fn an_unknown_flag_is_a_wrong_command_line() {
    let output = run(&["serve", "--shard", "2"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--shard") && text.contains("--shards"), "{text}");
}
