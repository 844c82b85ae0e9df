//! The named mistakes, each with the answer that Kafka gives: an error code, or a closed connection.

use super::{Patient, TOPIC};
use crate::batch::{ATTRIBUTES_AT, COUNT_AT, CRC_AT, Identity, encode, record_value, seal};
use crate::cluster::{self, PRODUCE_VERSION};
use crate::connection::{Connection, read_frame};
use crate::random::Random;
use crate::trouble::Trouble;
use bytes::Bytes;
use millrace_protocol::api::ApiKey;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::decode_response;
use millrace_protocol::messages::api_versions::ApiVersion;
use millrace_protocol::messages::{ApiVersionsResponse, MetadataRequest, ProduceResponse};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection that is to be closed is closed within this time.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// What a connection announces without sending it: below the limit of 100 MiB.
const PROMISED_BYTES: i32 = 90 << 20;
/// Where the batch's offset of the last record stands.
const LAST_DELTA_AT: usize = 23;
/// Where the batch's magic stands.
const MAGIC_AT: usize = 16;
/// The bit of the attributes that marks a control batch.
const CONTROL: u8 = 0x20;
/// Larger than Kafka's default for `max.message.bytes`, 1,048,588.
const TOO_LARGE: usize = 1_200_000;

/// Goes through all of them.
pub(super) fn run(patient: &mut Patient<'_>) -> Result<(), Trouble> {
    let mut count = 0;
    for (name, bytes) in closing_bytes() {
        closed_after(patient, name, &bytes)?;
        patient.examine(name)?;
        count += 1;
    }
    truncated(patient)?;
    broken_promises(patient)?;
    api_versions_above_ours(patient)?;
    count += 3;
    for (name, batch, acks, expected) in refused_batches() {
        refused(patient, name, batch, acks, expected)?;
        patient.examine(name)?;
        count += 1;
    }
    println!("garbage: {count} named mistakes answered as Kafka answers them");
    Ok(())
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as i32).to_be_bytes(), body].concat()
}

/// Header version 1 with a null client id, then a body.
fn request(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let header = [&key.to_be_bytes()[..], &version.to_be_bytes(), &7i32.to_be_bytes(), &(-1i16).to_be_bytes()];
    frame(&[&header.concat(), body].concat())
}

/// What no broker can answer: Kafka closes the connection.
fn closing_bytes() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Random::new(1);
    let mut noise: Vec<u8> = (0..64 << 10).map(|_| random.byte()).collect();
    noise[0] = 0x7f;
    vec![
        ("random bytes", noise),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a frame of 2 GiB less one byte", i32::MAX.to_be_bytes().to_vec()),
        ("a frame of negative length", i32::MIN.to_be_bytes().to_vec()),
        ("a frame just above the limit", ((100 << 20) + 1i32).to_be_bytes().to_vec()),
        ("an empty frame", frame(&[])),
        ("a frame shorter than a header", frame(&[0, 18, 0, 0])),
        ("an unknown API", request(1000, 0, &[])),
        ("a negative API", request(-3, 0, &[])),
        ("an unsupported version of Metadata", request(ApiKey::Metadata.code(), 99, &[0; 16])),
        ("a negative version", request(ApiKey::Metadata.code(), -1, &[0; 16])),
        ("Produce of version 2", request(ApiKey::Produce.code(), 2, &[0; 16])),
        ("2,147,483,647 topics in 4 bytes", request(ApiKey::Metadata.code(), 1, &i32::MAX.to_be_bytes())),
        ("a string longer than its frame", request(ApiKey::Metadata.code(), 1, &[0, 0, 0, 1, 0x7f, 0xff, b'x'])),
        ("a body cut short", request(ApiKey::Produce.code(), 3, &[0xff, 0xff, 0])),
    ]
}

/// Sends the bytes and expects the connection to be closed without an answer.
fn closed_after(patient: &Patient<'_>, name: &str, bytes: &[u8]) -> Result<(), Trouble> {
    let mut stream = TcpStream::connect(patient.setup.bootstrap)?;
    stream.set_read_timeout(Some(CLOSED_WITHIN))?;
    // The broker may close before all is written.
    let _ = stream.write_all(bytes);
    let mut answer = [0; 64];
    match stream.read(&mut answer) {
        Ok(0) => Ok(()),
        Ok(read) => Err(Trouble::proof(format!("{name}: {read} bytes answered where Kafka closes"))),
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(()),
        Err(e) => Err(Trouble::proof(format!("{name}: not closed within {CLOSED_WITHIN:?}: {e}"))),
    }
}

/// A valid request, cut at every byte, then the end of the connection.
fn truncated(patient: &mut Patient<'_>) -> Result<(), Trouble> {
    let metadata = MetadataRequest::default();
    let whole = millrace_protocol::frame::request_frame(&metadata, 9, 1, Some("cut".into()))?.concat();
    for length in 0..whole.len() {
        TcpStream::connect(patient.setup.bootstrap)?.write_all(&whole[..length])?;
    }
    patient.examine("truncated frames")
}

/// Many connections announce much and send little: memory follows what was sent.
fn broken_promises(patient: &mut Patient<'_>) -> Result<(), Trouble> {
    let start = request(ApiKey::Produce.code(), PRODUCE_VERSION, &[0; 1024]);
    let mut open = Vec::with_capacity(patient.options.promises);
    for _ in 0..patient.options.promises {
        let mut stream = TcpStream::connect(patient.setup.bootstrap)?;
        stream.write_all(&PROMISED_BYTES.to_be_bytes())?;
        // It may be closed at once: that is a good answer too.
        let _ = stream.write_all(&start[4..]);
        open.push(stream);
    }
    patient.examine("large frames announced and not sent")
}

/// KIP-511: a version-0 body with the error and the range of ApiVersions.
fn api_versions_above_ours(patient: &mut Patient<'_>) -> Result<(), Trouble> {
    let mut stream = TcpStream::connect(patient.setup.bootstrap)?;
    stream.set_read_timeout(Some(CLOSED_WITHIN))?;
    stream.write_all(&request(ApiKey::ApiVersions.code(), 99, &[0, 1, 1, 0]))?;
    let (correlation, answer) = decode_response::<ApiVersionsResponse>(&read_frame(&mut stream)?, 0)?;
    let names_itself = |api: &ApiVersion| api.api_key == ApiKey::ApiVersions.code() && api.max_version >= 3;
    if correlation != 7
        || answer.error_code != ErrorCode::UnsupportedVersion
        || !answer.api_keys.iter().any(names_itself)
    {
        return Err(Trouble::proof(format!("ApiVersions 99 is answered {answer:?}")));
    }
    patient.examine("ApiVersions 99")
}

type RefusedBatch = (&'static str, Vec<u8>, i16, ErrorCode);

/// Batches that Kafka refuses: name, bytes, acks, error.
fn refused_batches() -> Vec<RefusedBatch> {
    let values: Vec<_> = (0..3).map(|number| record_value(Identity { producer: 9, number }, 64)).collect();
    let valid = encode(&values, None, 0);
    let changed = |change: &dyn Fn(&mut [u8]), sealed: bool| {
        let mut batch = valid.clone();
        change(&mut batch);
        if sealed {
            seal(&mut batch);
        }
        batch
    };
    let set = |at: usize, value: i32| move |batch: &mut [u8]| batch[at..at + 4].copy_from_slice(&value.to_be_bytes());
    vec![
        ("a wrong CRC", changed(&|batch| batch[CRC_AT] ^= 1, false), -1, ErrorCode::CorruptMessage),
        ("a flipped payload bit", changed(&|batch| batch[100] ^= 1, false), -1, ErrorCode::CorruptMessage),
        ("a count above the records", changed(&set(COUNT_AT, 1000), true), -1, ErrorCode::InvalidRecord),
        ("a count of 2,147,483,647", changed(&set(COUNT_AT, i32::MAX), true), -1, ErrorCode::InvalidRecord),
        ("a negative count", changed(&set(COUNT_AT, -1), true), -1, ErrorCode::InvalidRecord),
        ("a last offset that the count denies", changed(&set(LAST_DELTA_AT, 7), true), -1, ErrorCode::InvalidRecord),
        ("a control batch", changed(&|batch| batch[ATTRIBUTES_AT + 1] |= CONTROL, true), -1, ErrorCode::InvalidRecord),
        ("magic 1", changed(&|batch| batch[MAGIC_AT] = 1, false), -1, ErrorCode::InvalidRecord),
        ("two batches for one partition", [valid.clone(), valid.clone()].concat(), -1, ErrorCode::InvalidRecord),
        ("acks of 5", valid.clone(), 5, ErrorCode::InvalidRequiredAcks),
        (
            "a batch above max.message.bytes",
            encode(&[record_value(Identity { producer: 9, number: 0 }, TOO_LARGE)], None, 0),
            -1,
            ErrorCode::MessageTooLarge,
        ),
    ]
}

fn refused(patient: &Patient<'_>, name: &str, batch: Vec<u8>, acks: i16, expected: ErrorCode) -> Result<(), Trouble> {
    let mut connection: Connection = patient.connect()?;
    let request = cluster::produce_request(TOPIC, acks, 10_000, [(0, Bytes::from(batch))]);
    let answer: ProduceResponse = connection
        .call(&request, PRODUCE_VERSION)
        .map_err(|trouble| Trouble::proof(format!("{name}: {expected:?} expected, {trouble}")))?;
    let code = answer.responses.first().and_then(|topic| topic.partition_responses.first()).map(|p| p.error_code);
    if code == Some(expected) {
        return Ok(());
    }
    Err(Trouble::proof(format!("{name}: {expected:?} expected, {code:?} answered")))
}
