//! A task as a device sees it: a kernel, its geometry, its arguments in order.
//!
//! The same description is launched through CUDA and, in tests, on the host, so that the order of arguments
//! and the geometry are tested without a GPU.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Kernel;

/// What of a device decides how many blocks are launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Most threads that one of them holds.
    pub threads_each: u32,
}

impl Geometry {
    /// Blocks of `block` threads for `items` pieces of work, of which a block takes `each` at a time: enough to
    /// fill the device, no more; the kernels loop over what is left.
    pub fn blocks(&self, items: usize, each: u32, block: u32) -> u32 {
        let wanted = items.div_ceil(each as usize).max(1);
        let resident = self.multiprocessors * (self.threads_each / block).max(1);
        // Twice what is resident evens out blocks that take longer.
        wanted.min(2 * resident.max(1) as usize) as u32
    }
}

/// Blocks for `items` pieces of work where each block takes `each` of them and ends: of a kernel that runs for long, so
/// that one of higher priority gets its turn as soon as a block has ended, not when the kernel has.
pub fn short_blocks(items: usize, each: u32) -> u32 {
    // Beyond that the kernel loops; its indices stay within 32 bits.
    const MOST_BLOCKS: usize = 1 << 28;
    items.div_ceil(each as usize).clamp(1, MOST_BLOCKS) as u32
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// The array of that number in the launch's data.
    Array(usize),
    U32(u32),
    I32(i32),
    F32(f32),
}

/// Memory that a kernel reads or writes.
#[derive(Debug)]
pub enum Data<'a> {
    In(&'a [u8]),
    /// Written in full by the kernel; what was there is not read.
    Out(&'a mut [u8]),
    InOut(&'a mut [u8]),
}

impl<'a> Data<'a> {
    pub fn input<T: IntoBytes + Immutable>(values: &'a [T]) -> Data<'a> {
        Data::In(values.as_bytes())
    }

    pub fn output<T: IntoBytes + FromBytes>(values: &'a mut [T]) -> Data<'a> {
        Data::Out(values.as_mut_bytes())
    }

    pub fn both<T: IntoBytes + FromBytes>(values: &'a mut [T]) -> Data<'a> {
        Data::InOut(values.as_mut_bytes())
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        match self {
            Data::In(bytes) => bytes.len(),
            Data::Out(bytes) | Data::InOut(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One launch, but for its arrays' places.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub kernel: Kernel,
    /// Blocks.
    pub grid: u32,
    /// Threads a block.
    pub block: u32,
    /// Dynamic shared memory a block (bytes).
    pub shared: u32,
    pub args: Vec<Arg>,
}

impl Step {
    /// The same step where its arrays are numbered from `first`.
    pub fn with_arrays_from(&self, first: usize) -> Step {
        let args = self.args.iter().map(|arg| match *arg {
            Arg::Array(i) => Arg::Array(first + i),
            other => other,
        });
        Step {
            args: args.collect(),
            ..*self
        }
    }
}

/// One launch with its arrays.
#[derive(Debug)]
pub struct Launch<'a> {
    pub step: Step,
    pub data: Vec<Data<'a>>,
}

/// Blocks, threads of one, and its dynamic shared memory (bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub grid: u32,
    pub block: u32,
    pub shared: u32,
}

impl<'a> Launch<'a> {
    /// A kernel's launch: its arguments are the arrays, in their order, then the scalars.
    pub fn new(kernel: Kernel, shape: Shape, data: Vec<Data<'a>>, scalars: &[Arg]) -> Launch<'a> {
        let arrays = (0..data.len()).map(Arg::Array);
        Launch {
            step: Step {
                kernel,
                grid: shape.grid,
                block: shape.block,
                shared: shape.shared,
                args: arrays.chain(scalars.iter().copied()).collect(),
            },
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_filled_and_not_flooded() {
        let orin = Geometry {
            multiprocessors: 16,
            threads_each: 1536,
        };
        assert_eq!(orin.blocks(0, 4, 128), 1);
        assert_eq!(orin.blocks(9, 4, 128), 3);
        assert_eq!(orin.blocks(1_000_000, 1, 128), 2 * 16 * 12);
    }

    #[test]
    fn blocks_of_a_long_kernel_are_short() {
        assert_eq!((short_blocks(0, 4), short_blocks(9, 4)), (1, 3));
        assert_eq!(short_blocks(100_000, 4), 25_000);
        assert_eq!(short_blocks(usize::MAX, 1), 1 << 28);
    }
}
