//! Guests: engines that somebody else's library runs on this device, TensorRT's for one.
//!
//! A guest has the device's context and its stream, and works on arrays of a [`Scene`]: those that the host gives and
//! gets back lie in one pinned block as a launch's do, mapped where CPU and GPU share their memory, one copy each way
//! where they do not; those that only the device sees lie in memory of its own, on any GPU. A guest is made and run
//! once on its maker's thread, for that may take seconds; then each play of the scene, copies, kernels and guests, is
//! run once and captured as one graph, which the device's thread replays. A play that cannot be captured is put onto
//! the stream call by call.
//!
//! Parts of a play run beside each other, on streams of their own between the copies: a network of one row fills a
//! small part of a GPU, so that three of them take little longer than the longest.
//!
//! **When the device fails**, guests go before their context does, or are left to its reset where it is broken; each
//! one's next run is an error. One that is busy keeps its guests: that run alone is an error.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cudarc::driver::{result, sys};

use super::error::{Call, CudaError};
use super::lodger::{Lodger, Room, Travellers};
use super::memory::{Discarded, Lease};
use super::scene::{Array, Places, Scene};
use super::staging::Life;
use super::{Cuda, PATIENT_LIMIT, lock};
use crate::compute::launch::Data;

/// Longest wait for a run of engines to begin, and again for it to end: predictions wait for it, and the CPU can do
/// them.
const GUEST_LIMIT: Duration = Duration::from_millis(250);

/// An engine of somebody else's.
pub trait Guest: Send {
    /// Reads its inputs from and writes its outputs to these addresses from now on: inputs first, each in the order
    /// of the scene's arrays.
    ///
    /// # Safety
    /// They are memory of the device whose context is current, as long as the scene says and on boundaries of 256
    /// bytes, until the guest is dropped.
    unsafe fn bind(&mut self, addresses: &[u64]) -> Result<(), String>;

    /// Puts a run onto the stream (`CUstream`), and does not wait for it.
    ///
    /// # Safety
    /// The stream is alive and of the context that is current. The run before is done, or on the same stream.
    unsafe fn enqueue(&mut self, stream: *mut c_void) -> Result<(), String>;
}

/// Makes a guest, on the thread that asked for it, where the device's context is current.
pub type Maker<'a> = Box<dyn FnOnce() -> Result<Box<dyn Guest>, String> + 'a>;

/// The device's context, held: it is not torn down meanwhile. After a failure the device opens again once nobody
/// holds it.
pub struct Hold {
    context: Context,
    _life: Arc<Life>,
}

/// A context on the way to another thread.
#[derive(Clone, Copy)]
struct Context(sys::CUcontext);

// SAFETY: every thread may make a context current; a `Hold` keeps it from being torn down.
unsafe impl Send for Context {}

/// While this lives, the device's context is this thread's.
pub struct Current<'a> {
    _hold: PhantomData<(&'a Hold, *const ())>,
}

impl Hold {
    /// Makes the context current on this thread; what was current before is again once the answer is dropped.
    ///
    /// # Errors
    /// What the driver said.
    pub fn current(&self) -> Result<Current<'_>, CudaError> {
        // SAFETY: the context lives as long as `self`.
        unsafe { sys::cuCtxPushCurrent_v2(self.context.0) }
            .result()
            .call("cuCtxPushCurrent")?;
        Ok(Current { _hold: PhantomData })
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        // SAFETY: takes off this thread what `current` put there; without a place for it, nothing is answered.
        let popped = unsafe { sys::cuCtxPopCurrent_v2(std::ptr::null_mut()) };
        if let Err(e) = popped.result().call("cuCtxPopCurrent") {
            tracing::warn!(error = %e, "a context stays with a thread");
        }
    }
}

/// A scene on the device. It may be played from any thread; it plays one at a time.
pub struct Staged {
    cuda: Cuda,
    lease: Lease,
    arrays: Vec<Array>,
    places: Places,
    /// Whose run it is.
    turn: Mutex<()>,
    captured: bool,
}

/// One engine on the device: a scene in which the host gives all inputs and gets all outputs back.
pub struct Hosted {
    staged: Staged,
    inputs: usize,
    outputs: Vec<usize>,
}

impl Cuda {
    /// Holds the context, for work that somebody else's library does on another thread.
    ///
    /// # Errors
    /// What the driver said, if the device had to be opened.
    pub fn hold(&self) -> Result<Hold, CudaError> {
        self.inner.thread.call(PATIENT_LIMIT, |device| {
            Ok(Hold {
                context: Context(device.context()),
                _life: device.life(),
            })
        })
    }

    /// Takes in a guest with inputs and outputs of so many numbers each. `make` makes it on this thread; it may take
    /// its time, for launches go on meanwhile.
    ///
    /// # Errors
    /// [`CudaError::Guest`] with what it said, or what the driver said.
    pub fn host(
        &self,
        inputs: &[usize],
        outputs: &[usize],
        make: impl FnOnce() -> Result<Box<dyn Guest>, String>,
    ) -> Result<Hosted, CudaError> {
        let bytes = |numbers: &usize| numbers.saturating_mul(size_of::<f32>());
        let mut scene = Scene::default();
        let part = scene.part();
        let given = inputs.iter().map(bytes).map(Array::Given);
        let back = outputs.iter().map(bytes).map(Array::Back);
        let all = given.chain(back).map(|array| scene.array(array)).collect();
        scene.guest(all);
        scene.play(vec![part]);
        Ok(Hosted {
            staged: self.stage(scene, vec![Box::new(make)])?,
            inputs: inputs.len(),
            outputs: outputs.to_vec(),
        })
    }

    /// Puts a scene on the device, with a maker for each of its guests, in their order.
    ///
    /// # Errors
    /// [`CudaError::Guest`] with what one said, or what the driver said.
    pub fn stage(&self, scene: Scene, makers: Vec<Maker<'_>>) -> Result<Staged, CudaError> {
        if !scene.is_whole() || scene.guests.len() != makers.len() {
            return Err(CudaError::Guest("the scene is not whole".to_owned()));
        }
        let places = scene.places();
        let kept = scene.kept(&places).len();
        let hold = self.hold()?;
        // Whatever becomes of guests on this thread, their context is current.
        let current = hold.current()?;
        let thread = &self.inner.thread;
        let staging = self.block(places.io.bytes.max(kept))?;
        let (own, lie) = (scene.clone(), places.clone());
        let (staging, room) = thread.lend(PATIENT_LIMIT, staging, move |device, staging| {
            Room::furnish(device, &own, &lie, staging)
        });
        let (staging, room) = match (staging, room) {
            (Some(staging), Ok(room)) => (staging, room),
            (staging, room) => {
                staging.into_iter().for_each(|staging| self.park(staging));
                return Err(room.err().unwrap_or(CudaError::Gone));
            }
        };
        let guests = Travellers::new(&thread.pulse);
        let guests = match settle(guests, (&scene, &places, room), makers) {
            Ok(guests) => guests,
            Err(e) => {
                if e.breaks_the_context() {
                    thread.pulse.failed();
                }
                thread.memory.discard(Discarded::Room(room));
                self.park(staging);
                return Err(e);
            }
        };
        let lease = thread.memory.lease();
        let number = lease.number;
        let (arrays, lie) = (scene.arrays.clone(), places.clone());
        let (staging, captured) = thread.lend(PATIENT_LIMIT, staging, move |device, staging| {
            let guests = guests.arrive();
            let lodger = Lodger::move_in(device, (scene, places, room), guests, staging)?;
            let captured = lodger.is_captured();
            device.lodgers().insert(number, lodger);
            Ok(captured)
        });
        drop(current);
        if let Some(staging) = staging {
            // Kept in any case: it goes when the engines do.
            thread.memory.keep(number, staging);
        }
        let captured = captured.inspect_err(|_| {
            // They never moved in: the room is as empty as the one above.
            thread.memory.discard(Discarded::Room(room));
        })?;
        Ok(Staged {
            cuda: self.clone(),
            lease,
            arrays,
            places: lie,
            turn: Mutex::default(),
            captured,
        })
    }
}

impl Staged {
    /// Whether each play is one graph, rather than put onto the stream call by call.
    pub fn is_captured(&self) -> bool {
        self.captured
    }

    /// One run of a play. `data` names arrays of the scene: [`Data::In`] for one that is given, [`Data::Out`] for one
    /// that comes back. What is given and not named is as it was.
    ///
    /// # Errors
    /// What a guest or the driver said. [`CudaError::NotCaptured`] after the device has failed: it must be staged
    /// anew.
    pub fn run(&self, play: usize, data: &mut [(usize, Data<'_>)]) -> Result<(), CudaError> {
        if !data.iter().all(|(array, data)| self.fits(*array, data)) {
            return Err(CudaError::Guest("its inputs are of other sizes".to_owned()));
        }
        let _turn = lock(&self.turn);
        let (thread, number) = (&self.cuda.inner.thread, self.lease.number);
        thread.pulse.check()?;
        let mut staging = (thread.memory.take(number)).ok_or(CudaError::NotCaptured)?;
        let io = &self.places.io.arrays;
        for (array, data) in data.iter() {
            if let Data::In(bytes) = data {
                let (at, length) = io[*array];
                staging.slice_mut()[at..at + length].copy_from_slice(bytes);
            }
        }
        let (staging, said) = thread.lend(GUEST_LIMIT, staging, move |device, staging| {
            let stream = device.stream();
            let lodger = device.lodgers().get_mut(&number);
            (lodger.ok_or(CudaError::NotCaptured)?).run(play, stream, staging)
        });
        let Some(staging) = staging else {
            return said;
        };
        for (array, data) in data.iter_mut() {
            if let (Data::Out(bytes), Ok(())) = (data, &said) {
                let (at, length) = io[*array];
                bytes.copy_from_slice(&staging.slice()[at..at + length]);
            }
        }
        // A guest that refused and a device that is busy are as they were; one that failed takes its guests with it.
        if thread.pulse.is_open() {
            thread.memory.keep(number, staging);
        }
        said
    }

    fn fits(&self, array: usize, data: &Data<'_>) -> bool {
        match (self.arrays.get(array), data) {
            (Some(Array::Given(bytes)), Data::In(given)) => *bytes == given.len(),
            (Some(Array::Back(bytes)), Data::Out(back)) => *bytes == back.len(),
            _ => false,
        }
    }
}

impl Hosted {
    /// One run: the numbers of each input in, those of each output back. Who comes while another is at it waits.
    ///
    /// # Errors
    /// As [`Staged::run`].
    pub fn run(&self, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, CudaError> {
        use zerocopy::IntoBytes;
        if inputs.len() != self.inputs {
            return Err(CudaError::Guest("its inputs are of other sizes".to_owned()));
        }
        let mut outputs: Vec<Vec<f32>> = self.outputs.iter().map(|n| vec![0.0; *n]).collect();
        let given = inputs.iter().map(|i| Data::In(i.as_bytes()));
        let back = outputs.iter_mut().map(|o| Data::Out(o.as_mut_bytes()));
        let mut data: Vec<(usize, Data<'_>)> = given.chain(back).enumerate().collect();
        self.staged.run(0, &mut data)?;
        drop(data);
        Ok(outputs)
    }
}

/// Makes the guests in the context that is current, gives each its arrays and runs it once: some prepare themselves in
/// their first run, which must not be captured.
fn settle(
    mut guests: Travellers,
    (scene, places, room): (&Scene, &Places, Room),
    makers: Vec<Maker<'_>>,
) -> Result<Travellers, CudaError> {
    for (make, arrays) in makers.into_iter().zip(&scene.guests) {
        let address = |array: &usize| places.address(room.io, room.held, *array);
        let addresses: Vec<u64> = arrays.iter().map(address).collect();
        let mut guest = make().map_err(CudaError::Guest)?;
        let ran = first(&mut *guest, &addresses);
        guests.join(guest);
        ran?;
    }
    Ok(guests)
}

/// A guest's first run.
fn first(guest: &mut dyn Guest, addresses: &[u64]) -> Result<(), CudaError> {
    // SAFETY: the addresses lie in the room, which outlives the guest: `leave` drops the guest first.
    unsafe { guest.bind(addresses) }.map_err(CudaError::Guest)?;
    let stream =
        result::stream::create(result::stream::StreamKind::NonBlocking).call("cuStreamCreate")?;
    // SAFETY: a live stream of the current context, waited for, and not used after it is destroyed.
    unsafe {
        let ran = guest.enqueue(stream.cast()).map_err(CudaError::Guest);
        let waited = result::stream::synchronize(stream).call("cuStreamSynchronize");
        let gone = result::stream::destroy(stream).call("cuStreamDestroy");
        waited.and(gone).and(ran)
    }
}

/// A guest for tests: its output is its input.
#[cfg(test)]
pub(in crate::compute) struct Echo {
    bytes: usize,
    addresses: Vec<u64>,
}

#[cfg(test)]
impl Echo {
    /// Of so many numbers.
    pub(in crate::compute) fn of(numbers: usize) -> Box<dyn Guest> {
        Box::new(Echo {
            bytes: numbers * size_of::<f32>(),
            addresses: Vec::new(),
        })
    }
}

#[cfg(test)]
impl Guest for Echo {
    unsafe fn bind(&mut self, addresses: &[u64]) -> Result<(), String> {
        self.addresses = addresses.to_vec();
        Ok(())
    }

    unsafe fn enqueue(&mut self, stream: *mut c_void) -> Result<(), String> {
        let (from, to) = (self.addresses[0], self.addresses[1]);
        // SAFETY: the caller's promise, of these addresses and of the stream.
        unsafe { result::memcpy_dtod_async(to, from, self.bytes, stream.cast()) }
            .map_err(|e| e.to_string())
    }
}
