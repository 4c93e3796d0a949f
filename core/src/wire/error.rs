//! Why bytes are no frame, and a payload cannot be in one.

use super::code;
use std::fmt;

/// Why bytes are not a frame. The texts of `Display` are the PHP library's where it has one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    BadMagic(u16),
    TooLong(u32),
    BadPayload,
    /// A flag of v2 that means nothing yet.
    BadFlags(u8),
}

impl FrameError {
    /// The code of the ERROR frame that answers this.
    pub fn code(self) -> u16 {
        match self {
            Self::TooLong(_) => code::FRAME_TOO_LONG,
            Self::BadMagic(_) | Self::BadPayload | Self::BadFlags(_) => code::FAILED,
        }
    }

    /// The message of the ERROR frame that answers this.
    pub fn answer(self) -> String {
        match self {
            Self::TooLong(_) => self.to_string(),
            Self::BadMagic(_) | Self::BadPayload | Self::BadFlags(_) => format!("{}{self}", code::FAILED_PREFIX),
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic(magic) => write!(f, "Invalid message magic: {magic:#x}"),
            Self::TooLong(len) => write!(f, "Frame too long: {len} bytes"),
            Self::BadPayload => f.write_str("Invalid message payload"),
            Self::BadFlags(flags) => write!(f, "Invalid message flags: {flags:#x}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A payload that v1 cannot carry, because JSON text is UTF-8.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct NotUtf8;

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payload is not valid UTF-8")
    }
}

impl std::error::Error for NotUtf8 {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_carry_the_texts_and_codes_of_the_reference() {
        assert_eq!(FrameError::BadMagic(0x4745).to_string(), "Invalid message magic: 0x4745");
        assert_eq!(FrameError::BadMagic(0x000a).to_string(), "Invalid message magic: 0xa");
        assert_eq!(FrameError::BadMagic(0).to_string(), "Invalid message magic: 0x0");
        assert_eq!(FrameError::BadPayload.answer(), "Failed to process message: Invalid message payload");
        assert_eq!(FrameError::BadPayload.code(), 500);
        assert_eq!(FrameError::TooLong(10_485_761).answer(), "Frame too long: 10485761 bytes");
        assert_eq!(FrameError::TooLong(10_485_761).code(), 413);
        assert_eq!(FrameError::BadFlags(0x81).answer(), "Failed to process message: Invalid message flags: 0x81");
        assert_eq!(FrameError::BadFlags(1).code(), 500);
    }
}
