//! Kafka's error codes (protocol guide, "Error Codes").

/// An error code as it goes over the wire. Names are Kafka's in camel case.
#[repr(i16)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "Kafka documents them by these names")]
pub enum ErrorCode {
    UnknownServerError = -1,
    None = 0,
}
