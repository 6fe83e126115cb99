//! High-rate channels with holes, rows of which nothing is known, zeros of both signs.

use super::{Case, Draw, Size, Values, bytes_of};
use crate::compute::{FrameStats, Task};

pub(super) struct Frames {
    samples: Vec<f32>,
    rows: usize,
    windows: usize,
    length: usize,
    hop: usize,
    stats: Vec<f32>,
    known: Vec<u32>,
}

impl Frames {
    pub(super) fn draw(size: Size, draw: &mut Draw) -> Frames {
        match size {
            Size::Small => {
                let (length, hop) = (4 + 4 * draw.below(200), 4 + 4 * draw.below(200));
                Frames::of(1 + draw.below(9), 1 + draw.below(7), length, hop, draw)
            }
            Size::Season => Frames::of(20 * 32, 60, 1000, 1000, draw),
        }
    }

    pub(super) fn of(
        rows: usize,
        windows: usize,
        length: usize,
        hop: usize,
        draw: &mut Draw,
    ) -> Frames {
        let stride = (windows - 1) * hop + length + 4 * draw.below(3);
        let samples = (0..rows * stride)
            .map(|i| match draw.below(60) {
                0 => f32::NAN,
                1 => -0.0,
                2 => 0.0,
                // A row of which nothing is known.
                _ if i / stride == 3 && rows < 10 => f32::NAN,
                _ => draw.between(-300.0, 300.0),
            })
            .collect();
        Frames {
            samples,
            rows,
            windows,
            length,
            hop,
            stats: vec![0.0; rows * windows * 4],
            known: vec![0; rows * windows],
        }
    }
}

impl Case for Frames {
    fn task(&mut self) -> Box<dyn Task + '_> {
        Box::new(FrameStats {
            samples: &self.samples,
            rows: self.rows,
            windows: self.windows,
            length: self.length,
            hop: self.hop,
            stats: &mut self.stats,
            known: &mut self.known,
        })
    }

    fn outputs(&self) -> Vec<(&'static str, Values<'_>)> {
        vec![
            ("stats", Values::F32(&self.stats)),
            ("known", Values::U32(&self.known)),
        ]
    }

    fn reset(&mut self) {
        self.stats.fill(0.0);
        self.known.fill(0);
    }

    fn bytes(&self) -> u64 {
        bytes_of(&self.samples) + bytes_of(&self.stats) + bytes_of(&self.known)
    }
}
