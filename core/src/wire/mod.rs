//! Bytes to frames and back, for every dialect of the bus.
//!
//! Owns the frame types, the JSON inside control frames and the codecs. Pure: knows no socket, no clock, no session and
//! no hub; it is given bytes and gives bytes.

pub mod bus;
pub mod code;
pub mod control;
mod dialects;
mod error;
pub mod firetower;
mod frame;
mod frame_type;
pub mod framing;
mod json;
pub mod metadata;
mod php_cast;
pub mod php_json;
mod scan;
pub mod text;
pub mod topic;
pub mod topic_frames;
pub mod v1;
pub mod v2;
pub mod websocket;

pub use dialects::{decode, encode, frame_len, frame_type, front};
pub use error::{FrameError, NotUtf8};
pub use frame::{Decoded, Dialect, Frame, Front, MAX_BODY_LEN, Payload, Whole};
pub use frame_type::FrameType;
pub use framing::{Framing, framed_len};
pub use v1::HEADER_LEN;
