//! The declarative codec: a message is declared once, field by field with version ranges as in Kafka's specification;
//! reading, writing, defaults and the test generator derive from it.
//!
//! ```text
//! message! {
//!     FetchRequest of Fetch 4..=18, flexible 12.., answered by FetchResponse;
//!
//!     /// What the struct is.
//!     pub struct FetchRequest {
//!         replica_id: i32 = -1 => 0..=14;          // default -1, only in versions 0 to 14
//!         max_wait_ms: i32 => 0..;                 // default 0, in every version
//!         rack_id: StrBytes => 11.., else ignored; // dropped silently when written before 11
//!     } tagged {
//!         0 cluster_id: Option<StrBytes> = None => 12.., else ignored;
//!     }
//!     pub struct …                                 // the structs inside, in any order
//! }
//! ```
//! `nullable 10..` says that an `Option` may be null only from that version on; without it wherever the field exists.
//!
//! 1. A field outside of the version has Kafka's default after reading.
//! 2. Writing fails if such a field has another value, unless the declaration says `else ignored`.
//! 3. Tagged fields are written by ascending tag and only with a value other than the default; unknown ones are skipped.

use crate::api::ApiKey;
use crate::double::Double;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use crate::wire::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind, Reader, Writer};
use bytes::Bytes;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use uuid::Uuid;

/// The version of a message being read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// The number in the request header.
    pub number: i16,
    /// Whether lengths are compact and structs end with tagged fields (KIP-482).
    pub flexible: bool,
}

/// What a field can be.
pub trait Wire: Sized {
    /// The fewest bytes that a value takes: bounds how many elements a frame can hold.
    fn min_size(version: Version) -> usize;

    /// Reads a value.
    ///
    /// # Errors
    /// When the bytes are not one.
    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError>;

    /// Writes the value.
    ///
    /// # Errors
    /// When it has no form in this version.
    fn write(&self, writer: &mut Writer, version: Version) -> Result<(), EncodeError>;
}

/// A field type that has a null form.
pub trait Nullable: Sized {
    /// As [`Wire::min_size`], null included.
    fn min_nullable_size(version: Version) -> usize;

    /// Reads a value, or `None` for null.
    ///
    /// # Errors
    /// When the bytes are neither.
    fn read_nullable(reader: &mut Reader<'_>, version: Version) -> Result<Option<Self>, DecodeError>;

    /// Writes a value, or null for `None`.
    ///
    /// # Errors
    /// When the value has no form in this version.
    fn write_nullable(value: Option<&Self>, writer: &mut Writer, version: Version) -> Result<(), EncodeError>;
}

/// The root of a request or response.
pub trait Message: Wire + Default + Clone + PartialEq + Debug {
    /// Its API.
    const KEY: ApiKey;
    /// The versions declared. Those that we serve are [`crate::api::ADVERTISED`].
    const VERSIONS: RangeInclusive<i16>;

    /// Reads the message; bytes after it are left in the reader.
    ///
    /// # Errors
    /// When the bytes are not such a message, or the version is not declared.
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(reader.error(DecodeErrorKind::Version(version)));
        }
        Self::read(reader, Version { number: version, flexible: Self::KEY.is_flexible(version) })
    }

    /// Writes the message.
    ///
    /// # Errors
    /// When it has no form in this version, or the version is not declared.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(writer.error(EncodeErrorKind::Version(version)));
        }
        self.write(writer, Version { number: version, flexible: Self::KEY.is_flexible(version) })
    }
}

/// A message that asks for another.
pub trait Request: Message {
    /// What answers it.
    type Response: Message;
}

/// Numbers and other types of one fixed form.
macro_rules! fixed {
    ($($type:ty, $method:ident, $size:literal;)*) => {
        $(impl Wire for $type {
            fn min_size(_: Version) -> usize {
                $size
            }

            fn read(reader: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
                reader.$method()
            }

            fn write(&self, writer: &mut Writer, _: Version) -> Result<(), EncodeError> {
                writer.$method(*self);
                Ok(())
            }
        })*
    };
}

fixed! {
    bool, bool, 1;
    i8, i8, 1;
    i16, i16, 2;
    u16, u16, 2;
    i32, i32, 4;
    i64, i64, 8;
    Double, f64, 8;
    Uuid, uuid, 16;
}

/// A code that Kafka 4.4 does not know is read as `UnknownServerError`, as its clients do.
impl Wire for ErrorCode {
    fn min_size(_: Version) -> usize {
        2
    }

    fn read(reader: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
        Ok(ErrorCode::from_code(reader.i16()?).unwrap_or(ErrorCode::UnknownServerError))
    }

    fn write(&self, writer: &mut Writer, _: Version) -> Result<(), EncodeError> {
        writer.i16(self.code());
        Ok(())
    }
}

impl Nullable for StrBytes {
    fn min_nullable_size(version: Version) -> usize {
        if version.flexible { 1 } else { 2 }
    }

    fn read_nullable(reader: &mut Reader<'_>, version: Version) -> Result<Option<Self>, DecodeError> {
        reader.nullable_string(version.flexible)
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, version: Version) -> Result<(), EncodeError> {
        writer.string(value, version.flexible)
    }
}

impl Nullable for Bytes {
    fn min_nullable_size(version: Version) -> usize {
        if version.flexible { 1 } else { 4 }
    }

    fn read_nullable(reader: &mut Reader<'_>, version: Version) -> Result<Option<Self>, DecodeError> {
        reader.nullable_bytes(version.flexible)
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, version: Version) -> Result<(), EncodeError> {
        writer.bytes(value, version.flexible)
    }
}

impl<T: Wire> Nullable for Vec<T> {
    fn min_nullable_size(version: Version) -> usize {
        if version.flexible { 1 } else { 4 }
    }

    fn read_nullable(reader: &mut Reader<'_>, version: Version) -> Result<Option<Self>, DecodeError> {
        let Some(count) = reader.count(version.flexible, T::min_size(version))? else { return Ok(None) };
        reader.charge(count.saturating_mul(size_of::<T>()))?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(reader, version)?);
        }
        Ok(Some(elements))
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, version: Version) -> Result<(), EncodeError> {
        writer.length(value.map(Vec::len), version.flexible)?;
        for element in value.into_iter().flatten() {
            element.write(writer, version)?;
        }
        Ok(())
    }
}

impl<T: Nullable> Wire for Option<T> {
    fn min_size(version: Version) -> usize {
        T::min_nullable_size(version)
    }

    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        T::read_nullable(reader, version)
    }

    fn write(&self, writer: &mut Writer, version: Version) -> Result<(), EncodeError> {
        T::write_nullable(self.as_ref(), writer, version)
    }
}

/// Makes [`Nullable`] types fields that may not be null.
macro_rules! not_null {
    ($([$($generic:tt)*] $type:ty;)*) => {
        $(impl $($generic)* Wire for $type {
            fn min_size(version: Version) -> usize {
                <Self as $crate::codec::Nullable>::min_nullable_size(version)
            }

            fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
                <Self as $crate::codec::Nullable>::read_nullable(reader, version)?
                    .ok_or_else(|| reader.error(DecodeErrorKind::Null))
            }

            fn write(&self, writer: &mut Writer, version: Version) -> Result<(), EncodeError> {
                <Self as $crate::codec::Nullable>::write_nullable(Some(self), writer, version)
            }
        })*
    };
}

not_null! {
    [] StrBytes;
    [] Bytes;
    [<T: Wire>] Vec<T>;
}

/// Makes structs of messages fields that may be null: a byte goes before them, negative for null (KIP-893).
macro_rules! nullable_struct {
    ($($type:ty),*) => {
        $(impl $crate::codec::Nullable for $type {
            fn min_nullable_size(_: $crate::codec::Version) -> usize {
                1
            }

            fn read_nullable(
                reader: &mut $crate::wire::Reader<'_>,
                version: $crate::codec::Version,
            ) -> Result<Option<Self>, $crate::wire::DecodeError> {
                if reader.i8()? < 0 { Ok(None) } else { $crate::codec::Wire::read(reader, version).map(Some) }
            }

            fn write_nullable(
                value: Option<&Self>,
                writer: &mut $crate::wire::Writer,
                version: $crate::codec::Version,
            ) -> Result<(), $crate::wire::EncodeError> {
                writer.i8(if value.is_some() { 1 } else { -1 });
                value.map_or(Ok(()), |value| $crate::codec::Wire::write(value, writer, version))
            }
        })*
    };
}

/// Declares a message: see the head of this file.
macro_rules! message {
    (
        $root:ident of $key:ident $versions:expr, flexible $flexible:expr $(, answered by $response:ty)?;
        $($(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* } $(tagged { $($tagged:tt)* })?)+
    ) => {
        impl $crate::codec::Message for $root {
            const KEY: $crate::api::ApiKey = $crate::api::ApiKey::$key;
            const VERSIONS: std::ops::RangeInclusive<i16> = $versions;
        }

        $(impl $crate::codec::Request for $root {
            type Response = $response;
        })?

        const _: () = assert!(
            $crate::api::ApiKey::$key.first_flexible() == ($flexible).start,
            "the flexible floor is that of the API's row"
        );

        $($crate::codec::structure! {
            $(#[$meta])* pub struct $name { $($fields)* } { $($($tagged)*)? }
        })+
    };
}

/// The default of a field: the declared one or that of its type.
macro_rules! default_of {
    ($type:ty) => {
        <$type>::default()
    };
    ($type:ty, $default:expr) => {
        $default
    };
}

/// Whether a field is dropped silently in a version that lacks it.
macro_rules! is_ignored {
    () => {
        false
    };
    (ignored) => {
        true
    };
}

/// Declares one struct of a message.
macro_rules! structure {
    (
        $(#[$meta:meta])* pub struct $name:ident {
            $(
                $(#[$field_meta:meta])*
                $field:ident: $type:ty $(= $default:expr)? => $versions:expr
                    $(, nullable $nullable:expr)? $(, else $ignored:ident)?;
            )*
        } {
            $(
                $(#[$tag_meta:meta])*
                $tag:literal $tag_field:ident: $tag_type:ty $(= $tag_default:expr)? => $tag_versions:expr
                    $(, else $tag_ignored:ident)?;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug)]
        #[allow(missing_docs, reason = "fields bear the names of Kafka's protocol guide, which documents them")]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            $($(#[$tag_meta])* pub $tag_field: $tag_type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name {
                    $($field: $crate::codec::default_of!($type $(, $default)?),)*
                    $($tag_field: $crate::codec::default_of!($tag_type $(, $tag_default)?),)*
                }
            }
        }

        impl $crate::codec::Wire for $name {
            fn min_size(version: $crate::codec::Version) -> usize {
                let mut size = usize::from(version.flexible);
                $(if ($versions).contains(&version.number) {
                    size += <$type as $crate::codec::Wire>::min_size(version);
                })*
                size
            }

            fn read(
                reader: &mut $crate::wire::Reader<'_>,
                version: $crate::codec::Version,
            ) -> Result<Self, $crate::wire::DecodeError> {
                let mut value = Self::default();
                $(if ($versions).contains(&version.number) {
                    reader.enter(concat!(stringify!($name), ".", stringify!($field)));
                    value.$field = $crate::codec::Wire::read(reader, version)?;
                    $(if value.$field.is_none() && !($nullable).contains(&version.number) {
                        return Err(reader.error($crate::wire::DecodeErrorKind::Null));
                    })?
                })*
                if version.flexible {
                    reader.enter(stringify!($name));
                    for _ in 0..reader.tag_count()? {
                        let (tag, length) = reader.tag()?;
                        let end = reader.position() + length;
                        match tag {
                            $($tag if ($tag_versions).contains(&version.number) => {
                                reader.enter(concat!(stringify!($name), ".", stringify!($tag_field)));
                                value.$tag_field = $crate::codec::Wire::read(reader, version)?;
                            })*
                            _ => {
                                reader.range(length)?;
                            }
                        }
                        if reader.position() != end {
                            return Err(reader.error($crate::wire::DecodeErrorKind::TagLength));
                        }
                    }
                }
                Ok(value)
            }

            fn write(
                &self,
                writer: &mut $crate::wire::Writer,
                version: $crate::codec::Version,
            ) -> Result<(), $crate::wire::EncodeError> {
                $(
                    writer.enter(concat!(stringify!($name), ".", stringify!($field)));
                    if ($versions).contains(&version.number) {
                        $(if self.$field.is_none() && !($nullable).contains(&version.number) {
                            return Err(writer.error($crate::wire::EncodeErrorKind::Null));
                        })?
                        $crate::codec::Wire::write(&self.$field, writer, version)?;
                    } else if !$crate::codec::is_ignored!($($ignored)?)
                        && self.$field != $crate::codec::default_of!($type $(, $default)?)
                    {
                        return Err(writer.error($crate::wire::EncodeErrorKind::NotInVersion(version.number)));
                    }
                )*
                #[allow(unused_mut, reason = "not every struct has tagged fields")]
                let mut tags = 0u32;
                $(if self.$tag_field != $crate::codec::default_of!($tag_type $(, $tag_default)?) {
                    if ($tag_versions).contains(&version.number) {
                        tags += 1;
                    } else if !$crate::codec::is_ignored!($($tag_ignored)?) {
                        writer.enter(concat!(stringify!($name), ".", stringify!($tag_field)));
                        return Err(writer.error($crate::wire::EncodeErrorKind::NotInVersion(version.number)));
                    }
                })*
                if version.flexible {
                    writer.uvarint(tags);
                }
                $(if ($tag_versions).contains(&version.number)
                    && self.$tag_field != $crate::codec::default_of!($tag_type $(, $tag_default)?)
                {
                    let mut value = $crate::wire::Writer::new();
                    $crate::codec::Wire::write(&self.$tag_field, &mut value, version)?;
                    writer.tagged($tag, value)?;
                })*
                Ok(())
            }
        }

        #[cfg(test)]
        impl $crate::codec::sample::Sample for $name {
            #[allow(unused_variables, reason = "a struct may have no field")]
            fn sample(sampler: &mut $crate::codec::sample::Sampler, version: $crate::codec::Version) -> Self {
                let mut value = Self::default();
                $(if ($versions).contains(&version.number) {
                    value.$field = $crate::codec::sample::Sample::sample(sampler, version);
                    $(while value.$field.is_none() && !($nullable).contains(&version.number) {
                        value.$field = $crate::codec::sample::Sample::sample(sampler, version);
                    })?
                })*
                $(if ($tag_versions).contains(&version.number) {
                    value.$tag_field = $crate::codec::sample::Sample::sample(sampler, version);
                })*
                value
            }
        }
    };
}

pub(crate) use {default_of, is_ignored, message, not_null, nullable_struct, structure};

#[cfg(test)]
pub(crate) mod sample;
