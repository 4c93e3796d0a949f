//! How messages of the bus socket are laid out in bytes: as postcard has it, and so that both sides may grow.
//!
//! Owns what is done with what one side does not know. Knows no message.

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Why bytes are not what they should be. The connection is of no use any more.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(pub &'static str);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Appends a message by itself.
pub fn append(out: &mut Vec<u8>, message: &impl Serialize) {
    postcard::serialize_with_flavor(message, Appended(out)).expect("a vector takes every message");
}

/// postcard's own way to append asks for room byte by byte.
struct Appended<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appended<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Reads a message. What a newer side has appended to it is left alone.
///
/// # Errors
/// The bytes are no such message.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    take(bytes).map(|(message, _appended)| message)
}

/// Reads a message, and says what is behind it.
///
/// # Errors
/// The bytes are no such message.
pub fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), DecodeError> {
    postcard::take_from_bytes(bytes).map_err(|_| DecodeError("a message is not laid out as it should be"))
}

/// The number of a choice that this release does not know, if that is what stands there.
pub fn unknown_variant<'a, T: Deserialize<'a>>(bytes: &[u8]) -> Option<u32> {
    let (kind, _) = postcard::take_from_bytes::<u32>(bytes).ok()?;
    (kind as usize >= variants::<T>()).then_some(kind)
}

/// How many variants an enum has: what its `Deserialize` says of itself.
fn variants<'a, T: Deserialize<'a>>() -> usize {
    struct Count(usize);

    impl<'de> Deserializer<'de> for &mut Count {
        type Error = serde::de::value::Error;

        fn deserialize_enum<V: Visitor<'de>>(self, _: &str, variants: &'static [&'static str], _: V) -> Result<V::Value, Self::Error> {
            self.0 = variants.len();
            Err(Self::Error::custom("only counted"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("no enum"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
            tuple_struct map struct identifier ignored_any
        }
    }

    let mut count = Count(0);
    let _ = T::deserialize(&mut count);
    count.0
}

pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(message).expect("a vector takes every message")
}

/// A slice of bytes as such: not one by one.
pub(super) fn as_bytes<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(data)
}
