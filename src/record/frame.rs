//! The native high-rate form: one car, one burst of samples, one typed array a channel.
//!
//! One CBOR map: `session` (int), `driver` (int), `seq` (uint, counts up by one for each frame of a
//! car), `t0` (int, µs since 1970 of the first sample), `dt` (uint, µs between samples) or `t` (a
//! typed array of int64 µs since 1970, one a sample), and `ch`: a map from channel name to an RFC
//! 8746 typed array, little-endian, all of the same length. Arrays are byte strings under a tag, so
//! that decoding borrows them and copies nothing. Channel names and units come from the registry in
//! the configuration.

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::{Reject, Time};

/// Most channels in a frame.
pub const MAX_CHANNELS: usize = 64;
/// Most samples in a frame.
pub const MAX_SAMPLES: u32 = 65_536;

/// A validated frame: its head as fields, its samples still in the payload as they arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub session_key: i32,
    pub driver_number: u8,
    /// Counts up by one for each frame of a car in a session.
    pub sequence: u64,
    /// Time of the first sample.
    pub first: Time,
    /// Time of the last sample.
    pub last: Time,
    /// Samples of each channel.
    pub samples: u32,
    payload: Bytes,
}

impl Frame {
    /// Checks a payload and reads its head.
    pub fn decode(payload: Bytes) -> Result<Frame, Reject> {
        let _ = payload;
        Err(Reject::UnknownTopic)
    }

    /// The payload, as it came.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }
}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_unit()
    }
}
