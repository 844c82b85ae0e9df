//! What each answer of a server, and each broken connection, is taken for. The server is a thread that answers one
//! request with fixed bytes, since no server at hand returns a 409 or a 503 when asked.

use super::*;
use crate::store_error::Certainty;
use futures::executor::block_on;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

/// A server for one connection: reads a request's head and body, answers `answer`, closes. The requests' heads come
/// out of the channel.
fn server(answer: String) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, seen) = mpsc::channel();
    crate::side::thread("server".to_owned(), move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let head = String::from_utf8(request).unwrap().to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).map_or(0, |rest| rest[..1].parse().unwrap());
            stream.read_exact(&mut vec![0; length]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            if heads.send(head).is_err() {
                return;
            }
        }
    })
    .unwrap();
    (address, seen)
}

fn store(address: SocketAddr) -> RemoteStore {
    store_with(address, [])
}

fn store_with<const N: usize>(address: SocketAddr, more: [(&str, String); N]) -> RemoteStore {
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    let side = SideRuntime::start().unwrap();
    let variables = variables.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value));
    RemoteStore::from_variables(Cloud::S3, "bucket", "some/prefix", variables, &side).unwrap()
}

fn answer(status: &str, code: &str) -> String {
    let body = format!("<Error><Code>{code}</Code></Error>");
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn put(answer: String) -> Result<PutOutcome, StoreError> {
    let (address, requests) = server(answer);
    let outcome = block_on(store(address).put_if_absent("wal/0/1", vec![Bytes::from_static(b"abc")]));
    let head = requests.recv().unwrap();
    assert!(head.starts_with("put /bucket/some/prefix/wal/0/1 "), "{head}");
    assert!(head.contains("if-none-match: *") && head.contains("unsigned-payload"), "{head}");
    assert!(head.contains("x-amz-checksum-crc64nvme: "), "{head}");
    assert!(requests.try_recv().is_err(), "a conditional put is sent once");
    outcome
}

#[test]
fn a_server_that_refuses_the_hash_of_the_payload_can_be_spared_it() {
    let (address, requests) = server(answer("412 Precondition Failed", "PreconditionFailed"));
    let store = store_with(address, [("AWS_CHECKSUM_ALGORITHM", "none".to_owned())]);
    let outcome = block_on(store.put_if_absent("k", vec![Bytes::from_static(b"abc")]));
    assert_eq!(outcome, Ok(PutOutcome::AlreadyExists));
    let head = requests.recv().unwrap();
    assert!(!head.contains("x-amz-checksum"), "{head}");
}

#[test]
fn only_a_412_means_that_another_object_is_there() {
    let outcome = put(answer("412 Precondition Failed", "PreconditionFailed"));
    assert_eq!(outcome, Ok(PutOutcome::AlreadyExists));
}

#[test]
fn every_other_answer_to_a_put_says_whether_it_may_have_happened() {
    use Certainty::{NotDone, Unknown};
    use FailureKind::{Denied, Full, Other, Throttled, Timeout, Unavailable};
    for (status, code, certainty, kind) in [
        ("409 Conflict", "ConditionalRequestConflict", Unknown, Unavailable),
        ("500 Internal Server Error", "InternalError", Unknown, Unavailable),
        ("503 Service Unavailable", "SlowDown", Unknown, Throttled),
        ("503 Service Unavailable", "ServiceUnavailable", Unknown, Unavailable),
        ("504 Gateway Timeout", "", Unknown, Timeout),
        ("400 Bad Request", "RequestTimeout", Unknown, Timeout),
        ("400 Bad Request", "BadDigest", Unknown, Unavailable),
        ("400 Bad Request", "IncompleteBody", Unknown, Unavailable),
        ("400 Bad Request", "XAmzContentChecksumMismatch", Unknown, Unavailable),
        ("429 Too Many Requests", "", Unknown, Throttled),
        ("507 Insufficient Storage", "", Unknown, Full),
        ("403 Forbidden", "RequestTimeTooSkewed", Unknown, Denied),
        ("403 Forbidden", "AccessDenied", NotDone, Denied),
        ("404 Not Found", "NoSuchBucket", NotDone, Other),
        ("400 Bad Request", "InvalidArgument", NotDone, Other),
    ] {
        let error = put(answer(status, code)).unwrap_err();
        assert_eq!((error.certainty, error.kind), (certainty, kind), "{status} {code}: {}", error.detail);
    }
}

#[test]
fn a_connection_that_breaks_before_the_answer_leaves_the_outcome_unknown() {
    let error = put(String::new()).unwrap_err();
    assert_eq!((error.certainty, error.kind), (Certainty::Unknown, FailureKind::Unavailable), "{}", error.detail);
}

#[test]
fn a_refused_connection_did_nothing() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = block_on(store(address).put_if_absent("k", vec![])).unwrap_err();
    assert_eq!((error.certainty, error.kind), (Certainty::NotDone, FailureKind::Unavailable), "{}", error.detail);
}

#[test]
fn a_missing_object_is_no_error_but_a_missing_bucket_is() {
    let (address, _requests) = server(answer("404 Not Found", "NoSuchKey"));
    assert_eq!(block_on(store(address).get("k")), Ok(None));
    let (address, _requests) = server(answer("404 Not Found", "NoSuchBucket"));
    assert!(block_on(store(address).get("k")).is_err());
}
