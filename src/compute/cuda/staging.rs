//! Pinned host memory: where a launch's arrays lie while the device has them.
//!
//! One block a launch, laid out so that each direction is one copy:
//!
//! ```text
//!   [ inputs … | in and out … | outputs … ]     each array on a boundary of 256 bytes
//!   └── host to device ───────┘
//!              └── device to host ────────┘
//! ```
//!
//! On an integrated GPU the block is mapped: a kernel that streams ([`crate::compute::Kernel::streams`]) reads and
//! writes it where it lies, and nothing is copied. The others' arrays are copied to memory that the GPU caches.

use std::sync::{Arc, Mutex};

use super::lock;
use crate::compute::launch::Data;

/// Arrays begin on such a boundary, as from CUDA's own allocator.
pub(super) const ALIGN: usize = 256;

/// Where the arrays of a launch lie in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Offset and length of each array, in the launch's order.
    pub arrays: Vec<(usize, usize)>,
    /// Bytes from the start that go to the device.
    pub to_device: usize,
    /// Where what comes back begins.
    pub from_device: usize,
    /// Bytes in all.
    pub bytes: usize,
}

impl Layout {
    pub(super) fn of<'a>(data: impl Iterator<Item = &'a Data<'a>> + Clone) -> Layout {
        let mut arrays = vec![(0, 0); data.clone().count()];
        let mut at = 0;
        let mut bounds = [0; 3];
        for (class, end) in bounds.iter_mut().enumerate() {
            for (array, data) in arrays.iter_mut().zip(data.clone()) {
                let own = match data {
                    Data::In(_) => 0,
                    Data::InOut(_) => 1,
                    Data::Out(_) => 2,
                };
                if own == class {
                    *array = (at, data.len());
                    at += data.len().next_multiple_of(ALIGN);
                }
            }
            *end = at;
        }
        Layout {
            arrays,
            to_device: bounds[1],
            from_device: bounds[0],
            bytes: bounds[2].max(ALIGN),
        }
    }
}

impl Layout {
    /// What the device is to read, as it lies in a block.
    pub(super) fn image<'a>(&self, data: impl Iterator<Item = &'a Data<'a>>) -> Vec<u8> {
        let mut block = vec![0; self.to_device];
        self.fill(&mut block, data);
        block
    }

    /// Writes what the device is to read.
    fn fill<'a>(&self, block: &mut [u8], data: impl Iterator<Item = &'a Data<'a>>) {
        for (&(at, length), data) in self.arrays.iter().zip(data) {
            match data {
                Data::In(bytes) => block[at..at + length].copy_from_slice(bytes),
                Data::InOut(bytes) => block[at..at + length].copy_from_slice(bytes),
                Data::Out(_) => {}
            }
        }
    }

    /// What of an output's stretch no kernel writes: begin and length.
    pub(super) fn gaps(&self) -> impl Iterator<Item = (usize, usize)> {
        let outputs = (self.arrays.iter()).filter(|(at, _)| *at >= self.to_device);
        outputs
            .map(|&(at, length)| (at + length, length.next_multiple_of(ALIGN) - length))
            .filter(|(_, length)| *length > 0)
    }
}

/// The life of a context: it is not torn down while a block of its memory is held.
#[derive(Default)]
pub(super) struct Life {
    /// Where blocks begin that nobody holds any more; the device's thread frees them.
    orphans: Mutex<Vec<usize>>,
}

impl Life {
    /// Takes the blocks that are to be freed.
    pub(super) fn orphans(&self) -> Vec<usize> {
        std::mem::take(&mut lock(&self.orphans))
    }
}

/// A block of pinned host memory, owned; dropped, it goes back to the driver by and by.
pub(super) struct Staging {
    /// From `cuMemHostAlloc`; valid while `life` keeps its context.
    host: *mut u8,
    /// The same memory as the device sees it; 0 where it does not.
    pub device: u64,
    pub bytes: usize,
    life: Arc<Life>,
}

impl Drop for Staging {
    fn drop(&mut self) {
        lock(&self.life.orphans).push(self.host as usize);
    }
}

// SAFETY: it owns its memory, which any thread may touch; nothing else points to it but a device's work, which
// has ended whenever a `Staging` is not in the hands of the device's thread.
unsafe impl Send for Staging {}

impl Staging {
    /// Takes a block that the driver gave.
    ///
    /// # Safety
    /// `host` is valid for reads and writes of `bytes` bytes, which are initialised, until this is dropped and, being
    /// among the orphans of `life`, freed by the device's thread; nobody else uses it.
    pub(super) unsafe fn new(host: *mut u8, device: u64, bytes: usize, life: Arc<Life>) -> Staging {
        Staging {
            host,
            device,
            bytes,
            life,
        }
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.host
    }

    pub(super) fn slice(&self) -> &[u8] {
        // SAFETY: the constructor's promise; the device does not write while the host holds the block.
        unsafe { std::slice::from_raw_parts(self.host, self.bytes) }
    }

    pub(super) fn slice_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` is the only way to it.
        unsafe { std::slice::from_raw_parts_mut(self.host, self.bytes) }
    }

    /// Writes what the device is to read.
    pub(super) fn fill<'a>(&mut self, layout: &Layout, data: impl Iterator<Item = &'a Data<'a>>) {
        layout.fill(self.slice_mut(), data);
    }

    /// Reads what the device wrote.
    pub(super) fn drain<'a, 'b: 'a>(
        &self,
        layout: &Layout,
        data: impl Iterator<Item = &'a mut Data<'b>>,
    ) {
        let block = self.slice();
        for (&(at, length), data) in layout.arrays.iter().zip(data) {
            match data {
                Data::In(_) => {}
                Data::Out(bytes) | Data::InOut(bytes) => {
                    bytes.copy_from_slice(&block[at..at + length]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_is_one_stretch() {
        let (a, b) = ([1_u8; 10], [2_u8; 300]);
        let (mut out, mut both) = ([0_u8; 7], [3_u8; 256]);
        let data = [
            Data::Out(&mut out),
            Data::In(&a),
            Data::InOut(&mut both),
            Data::In(&b),
        ];
        let layout = Layout::of(data.iter());
        assert_eq!(layout.arrays, [(1024, 7), (0, 10), (768, 256), (256, 300)]);
        assert_eq!(
            (layout.to_device, layout.from_device, layout.bytes),
            (1024, 768, 1280)
        );
        // What follows inputs comes from the host with them.
        assert_eq!(layout.gaps().collect::<Vec<_>>(), [(1031, 249)]);
    }
}
