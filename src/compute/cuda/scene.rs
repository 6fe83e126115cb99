//! Scenes: what kernels and guests do together, on which arrays, described before anything is on the device.
//!
//! A scene has parts, each a list of acts in order; parts do not need one another, and the device may work on all of
//! them at once. A play is a choice of parts: what is run by one call, and captured as one graph.
//!
//! ```text
//!   Given ─▶ kernel ─▶ Between ─▶ guest ─▶ Back        a part
//!     host's block │      the device's     │ host's block
//!   Kept ──────────┘                       └─▶ read once
//! ```
//!
//! **Invariant:** every array that an act touches is as long as the act needs: a scene that is built is sound, whatever
//! numbers are given to it later.

use super::staging::{ALIGN, Layout};
use crate::compute::assemble_inputs::AssembleInputs;
use crate::compute::launch::{Arg, Data, Geometry, Step};
use crate::compute::{ShapeError, Task};

/// An array of a scene, by who writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Array {
    /// The host, before each run: so many bytes.
    Given(usize),
    /// The host, once.
    Kept(Vec<u8>),
    /// An act, for another: so many bytes that never leave the device.
    Between(usize),
    /// An act, for the host: so many bytes.
    Back(usize),
}

impl Array {
    fn len(&self) -> usize {
        match self {
            Array::Given(bytes) | Array::Between(bytes) | Array::Back(bytes) => *bytes,
            Array::Kept(values) => values.len(),
        }
    }
}

/// Something done on the device.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Kernel(Step),
    /// The guest of that number.
    Guest(usize),
}

/// Arrays, and what is done with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    pub(super) arrays: Vec<Array>,
    /// Of each guest its inputs, then its outputs.
    pub(super) guests: Vec<Vec<usize>>,
    pub(super) parts: Vec<Vec<Act>>,
    /// Parts of each.
    pub(super) plays: Vec<Vec<usize>>,
}

/// The arrays of [`AssembleInputs`], as numbers of a scene's.
#[derive(Clone, Copy, Debug)]
pub struct Assembled {
    pub history: usize,
    pub newest: usize,
    pub count: usize,
    pub choice: usize,
    pub mean: usize,
    pub scale: usize,
    pub tensor: usize,
    pub mask: usize,
}

impl Scene {
    /// Adds an array, and gives its number.
    pub fn array(&mut self, array: Array) -> usize {
        self.arrays.push(array);
        self.arrays.len() - 1
    }

    /// Begins a part, and gives its number: what is added next belongs to it.
    pub fn part(&mut self) -> usize {
        self.parts.push(Vec::new());
        self.parts.len() - 1
    }

    /// Has the kernel assemble inputs from and into arrays of the scene. `task` tells its sizes, and what its choice is.
    ///
    /// What is given at each run may be any numbers: the kernel takes a slot modulo the ring, and a count no further
    /// than it. The choice of columns it believes, so that must be an array that is kept, as `task` has it.
    ///
    /// # Errors
    /// [`ShapeError`] if the sizes do not fit each other, or the scene's arrays do not fit them.
    pub fn assemble(
        &mut self,
        task: &mut AssembleInputs<'_>,
        geometry: &Geometry,
        at: Assembled,
    ) -> Result<(), ShapeError> {
        task.check()?;
        let kernel = task.kernel();
        let wrong = |what, found: usize, allowed: &str| ShapeError {
            kernel,
            what,
            found: i64::try_from(found).unwrap_or(i64::MAX),
            allowed: allowed.to_owned(),
        };
        let choice: Vec<u8> = task.choice.iter().flat_map(|c| c.to_ne_bytes()).collect();
        if self.arrays.get(at.choice) != Some(&Array::Kept(choice)) {
            return Err(wrong("choice", at.choice, "it must be kept as it is here"));
        }
        let places = [
            at.history, at.newest, at.count, at.choice, at.mean, at.scale, at.tensor, at.mask,
        ];
        for written in [at.tensor, at.mask] {
            if let Some(Array::Given(_) | Array::Kept(_)) = self.arrays.get(written) {
                return Err(wrong(
                    "tensor or mask",
                    written,
                    "the host writes that array",
                ));
            }
        }
        let lengths: Vec<Option<usize>> = (places.iter())
            .map(|place| self.arrays.get(*place).map(Array::len))
            .collect();
        let mismatch = |launched: &[Data<'_>]| {
            let mut pairs = launched.iter().zip(&lengths);
            pairs.position(|(data, length)| Some(data.len()) != *length)
        };
        if let Some(which) = mismatch(&task.launch(geometry).data) {
            return Err(wrong(
                "an array of the scene",
                which,
                "as many bytes as the task's",
            ));
        }
        let step = task.launch(geometry).step.on(&places);
        self.act(Act::Kernel(step));
        Ok(())
    }

    /// Has a guest run on these arrays: its inputs, then its outputs, which it and its maker know. Gives its number.
    pub fn guest(&mut self, arrays: Vec<usize>) -> usize {
        self.guests.push(arrays);
        let guest = self.guests.len() - 1;
        self.act(Act::Guest(guest));
        guest
    }

    /// Adds a play of these parts, and gives its number.
    pub fn play(&mut self, parts: Vec<usize>) -> usize {
        self.plays.push(parts);
        self.plays.len() - 1
    }

    fn act(&mut self, act: Act) {
        if self.parts.is_empty() {
            self.part();
        }
        if let Some(part) = self.parts.last_mut() {
            part.push(act);
        }
    }

    /// Whether every number that it names is there.
    pub(super) fn is_whole(&self) -> bool {
        let guests = self.guests.iter().flatten();
        let parts = self.plays.iter().flatten();
        let mut arrays = guests.map(|a| *a < self.arrays.len());
        arrays.all(|there| there) && parts.clone().all(|p| *p < self.parts.len())
    }

    /// Where everything lies.
    pub(super) fn places(&self) -> Places {
        let zeros = |array: &Array| match array {
            Array::Given(bytes) | Array::Back(bytes) => vec![0; *bytes],
            Array::Kept(_) | Array::Between(_) => Vec::new(),
        };
        let mut blank: Vec<Vec<u8>> = self.arrays.iter().map(zeros).collect();
        let data: Vec<Data<'_>> = (self.arrays.iter().zip(&mut blank))
            .map(|(array, bytes)| match array {
                Array::Back(_) => Data::Out(bytes),
                _ => Data::In(bytes),
            })
            .collect();
        let io = Layout::of(data.iter());
        let mut held = 0;
        let mut own = vec![None; self.arrays.len()];
        for first in [true, false] {
            for (place, array) in own.iter_mut().zip(&self.arrays) {
                let kept = matches!(array, Array::Kept(_));
                if kept == first && matches!(array, Array::Kept(_) | Array::Between(_)) {
                    *place = Some(held);
                    held += array.len().next_multiple_of(ALIGN);
                }
            }
        }
        Places { io, own, held }
    }

    /// What is kept, as it lies at the beginning of the device's own memory.
    pub(super) fn kept(&self, places: &Places) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (array, place) in self.arrays.iter().zip(&places.own) {
            if let (Array::Kept(values), Some(at)) = (array, place) {
                bytes.resize(*at, 0);
                bytes.extend(values);
            }
        }
        bytes
    }
}

/// Where the arrays of a scene lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// What the host gives and gets back.
    pub io: Layout,
    /// Offsets of what is the device's own.
    own: Vec<Option<usize>>,
    /// Bytes of that.
    pub held: usize,
}

impl Places {
    /// The address of an array, where both memories begin there.
    pub(super) fn address(&self, io: u64, held: u64, array: usize) -> u64 {
        match self.own.get(array).copied().flatten() {
            Some(at) => held + at as u64,
            None => io + self.io.arrays[array].0 as u64,
        }
    }
}

impl Step {
    /// The same step on other arrays: `arrays[i]` in the place of array i.
    fn on(&self, arrays: &[usize]) -> Step {
        let args = self.args.iter().map(|arg| match *arg {
            Arg::Array(i) => Arg::Array(arrays[i]),
            other => other,
        });
        Step {
            args: args.collect(),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::assemble_inputs::Tensor;

    const SMALL: Geometry = Geometry {
        multiprocessors: 1,
        threads_each: 256,
    };

    /// Two rows of three numbers, assembled into an array that is `wrong` bytes too long.
    fn scene(wrong: usize, choice: &[u32]) -> Result<Scene, ShapeError> {
        let mut scene = Scene::default();
        let kept = |scene: &mut Scene, values: &[u32]| {
            let bytes = values.iter().flat_map(|v| v.to_ne_bytes());
            scene.array(Array::Kept(bytes.collect()))
        };
        let at = Assembled {
            history: scene.array(Array::Given(24)),
            newest: kept(&mut scene, &[0, 0]),
            count: scene.array(Array::Given(8)),
            choice: kept(&mut scene, choice),
            mean: kept(&mut scene, &[0; 3]),
            scale: kept(&mut scene, &[0; 3]),
            tensor: scene.array(Array::Between(24 + wrong)),
            mask: scene.array(Array::Back(8)),
        };
        let mut task = AssembleInputs {
            history: &[0.0; 6],
            slots: 1,
            features: 3,
            newest: &[0; 2],
            count: &[0; 2],
            steps: 1,
            choice: &[0, 1, 2],
            mean: &[0.0; 3],
            scale: &[0.0; 3],
            limit: f32::MAX,
            tensor: Tensor::F32(&mut [0.0; 6]),
            mask: &mut [0.0; 2],
        };
        scene.assemble(&mut task, &SMALL, at)?;
        let part = scene.parts.len() - 1;
        scene.play(vec![part]);
        Ok(scene)
    }

    #[test]
    fn what_is_given_and_what_comes_back_lie_in_one_block_and_the_rest_on_the_device() {
        let scene = scene(0, &[0, 1, 2]).unwrap();
        assert!(scene.is_whole());
        let places = scene.places();
        assert_eq!((places.io.to_device, places.io.bytes), (512, 768));
        // Four that are kept come first, then what is between.
        let at = |array| places.address(10_000, 90_000, array);
        let all: Vec<u64> = (0..8).map(at).collect();
        let kept = [90_000, 90_256, 90_512, 90_768];
        assert_eq!(
            all,
            [
                10_000, kept[0], 10_256, kept[1], kept[2], kept[3], 91_024, 10_512
            ]
        );
        assert_eq!(places.held, 5 * 256);
        assert_eq!(scene.kept(&places).len(), 3 * 256 + 12);
    }

    #[test]
    fn arrays_that_do_not_fit_and_a_choice_that_was_not_checked_are_refused() {
        let said = scene(4, &[0, 1, 2]).unwrap_err();
        assert_eq!((said.what, said.found), ("an array of the scene", 6));
        assert_eq!(scene(0, &[0, 1, 99]).unwrap_err().what, "choice");
        let mut broken = scene(0, &[0, 1, 2]).unwrap();
        broken.play(vec![7]);
        assert!(!broken.is_whole());
    }
}
