//! [`StrBytes`]: a string that is a slice of the frame it came in.
//!
//! 1. The bytes are UTF-8: checked once, where the value is made, and never changed after.
//!
//! A value pins its whole frame: what outlives the request keeps a [`StrBytes::detached`] copy or a `String`.
#![allow(unsafe_code, reason = "invariant 1 lets `as_str` skip a second UTF-8 check")]

use bytes::Bytes;
use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::str::Utf8Error;

/// An immutable UTF-8 string; clones share the bytes. Orders, compares and hashes as `str` does, so maps keyed by it are
/// searched with a `&str`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct StrBytes(Bytes);

impl StrBytes {
    /// The empty string.
    pub const fn new() -> Self {
        StrBytes(Bytes::new())
    }

    /// A string of the program text: nothing is copied.
    pub const fn from_static(text: &'static str) -> Self {
        StrBytes(Bytes::from_static(text.as_bytes()))
    }

    /// Takes the bytes as they are.
    ///
    /// # Errors
    /// When they are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(StrBytes(bytes))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        // SAFETY: every constructor takes a `str` or checks the bytes, which are immutable (invariant 1).
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// As bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// A copy that shares nothing with the frame.
    pub fn detached(&self) -> Self {
        StrBytes(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for StrBytes {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for StrBytes {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// `Borrow` demands the hash of `str`, which differs from that of its bytes; equality and order are the same for both.
impl Hash for StrBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for StrBytes {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for StrBytes {
    fn from(text: &str) -> Self {
        StrBytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for StrBytes {
    fn from(text: String) -> Self {
        StrBytes(Bytes::from(text.into_bytes()))
    }
}

impl PartialEq<str> for StrBytes {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for StrBytes {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for StrBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for StrBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::StrBytes;
    use bytes::Bytes;

    #[test]
    fn bytes_that_are_not_utf_8_are_refused() {
        assert!(StrBytes::from_utf8(Bytes::from_static(b"caf\xe9")).is_err());
        assert_eq!(StrBytes::from_utf8(Bytes::from_static("café".as_bytes())).unwrap(), "café");
    }

    #[test]
    fn a_detached_copy_does_not_pin_the_frame() {
        let frame = Bytes::from(vec![b'a'; 64]);
        let name = StrBytes::from_utf8(frame.slice(0..3)).unwrap();
        let copy = name.detached();
        drop(name);
        assert!(frame.is_unique());
        assert_eq!(copy, "aaa");
    }
}
