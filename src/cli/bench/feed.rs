//! What is measured with: the messages of a recording, or of the simulator.

use std::path::Path;

use bytes::Bytes;

use super::publisher::Packets;
use crate::ingest::recording;
use crate::record::codec::FRAMES_PREFIX;
use crate::simulator::circuit::CIRCUITS;
use crate::simulator::{FrameOptions, Options, Simulator};

/// Rate of the simulated frames (Hz): 100 samples each.
const FRAME_HZ: u32 = 1000;

/// A message of the feed.
pub struct Message {
    pub topic: Box<str>,
    pub payload: Bytes,
}

/// The first `most` messages of `recording`, or of a simulated race.
///
/// # Errors
/// If the recording cannot be read.
pub fn messages(recording: Option<&Path>, most: usize) -> anyhow::Result<Vec<Message>> {
    let Some(recording) = recording else {
        let simulator = Simulator::new(Options::new(&CIRCUITS[0]))?;
        let messages = simulator.take(most).map(|m| Message {
            topic: m.topic,
            payload: m.payload,
        });
        return Ok(messages.collect());
    };
    recording::Reader::open(recording)?
        .take(most)
        .map(|recorded| {
            let recorded = recorded?;
            Ok(Message {
                topic: recorded.topic,
                payload: recorded.payload,
            })
        })
        .collect()
}

/// High-rate frames of twenty cars, 8 channels and 100 samples each, and how many samples they are.
///
/// # Errors
/// If the simulator refuses its options.
pub fn frames(most: usize) -> anyhow::Result<(Packets, u64)> {
    let frames = FrameOptions::at(FRAME_HZ);
    let samples = u64::from(frames.samples_per_frame);
    let options = Options {
        frames: Some(frames),
        ..Options::new(&CIRCUITS[0])
    };
    let mut packets = Packets::default();
    for message in Simulator::new(options)?
        .filter(|m| m.topic.starts_with(FRAMES_PREFIX))
        .take(most)
    {
        packets.push(&message.topic, &message.payload)?;
    }
    let samples = samples * packets.len() as u64;
    Ok((packets, samples))
}
