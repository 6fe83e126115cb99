//! A scene as the device's thread has it: guests at home, memory, streams, and a graph for each play.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::device::{Device, Functions, put_kernel, stream_for_ticks};
use super::error::{Call, CudaError};
use super::guest::Guest;
use super::pulse::Pulse;
use super::recording::Recording;
use super::scene::{Act, Places, Scene};
use super::staging::Staging;

/// All scenes of a device, by number.
pub(super) type Lodgers = HashMap<u64, Lodger>;

/// The memory of a scene.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Where what is given and what comes back begin, as the device sees them.
    pub io: u64,
    /// The same where it is memory of the device's own, which is to be freed; 0 where the host's block is mapped.
    io_memory: u64,
    /// Where the rest begins, on the device itself; 0 if there is none.
    pub held: u64,
}

/// A scene at home.
pub(super) struct Lodger {
    scene: Scene,
    places: Places,
    room: Room,
    guests: Vec<Box<dyn Guest>>,
    functions: Functions,
    /// Where the parts of a play are put but the first, which is on the device's stream; and what each waits for.
    sides: Vec<(sys::CUstream, sys::CUevent)>,
    begun: Option<sys::CUevent>,
    /// Of each play; none where it cannot be captured.
    recordings: Vec<Option<Recording>>,
}

impl Room {
    /// Memory for that scene, with what is kept in it; the rest is zeros, for a guest's first run reads what nobody has
    /// written yet. `staging` holds all of the layout and all that is kept, and is zeros afterwards.
    pub(super) fn furnish(
        device: &Device,
        scene: &Scene,
        places: &Places,
        staging: &Staging,
    ) -> Result<Room, CudaError> {
        let integrated = device.properties.integrated;
        let own = |bytes: usize| match bytes {
            0 => Ok(0),
            // SAFETY: the context is current; freed by `free`, or with the context.
            bytes => unsafe { result::malloc_sync(bytes) }.call("cuMemAlloc"),
        };
        let io_memory = own(if integrated { 0 } else { places.io.bytes })?;
        let held = match own(places.held) {
            Ok(held) => held,
            Err(e) => return free(io_memory).and(Err(e)),
        };
        let room = Room {
            io: if integrated {
                staging.device
            } else {
                io_memory
            },
            io_memory,
            held,
        };
        let kept = scene.kept(places);
        let filled = room.fill(device, places, &kept, staging);
        match filled {
            Ok(()) => Ok(room),
            Err(e) => room.free().and(Err(e)),
        }
    }

    fn fill(
        &self,
        device: &Device,
        places: &Places,
        kept: &[u8],
        staging: &Staging,
    ) -> Result<(), CudaError> {
        let stream = device.stream();
        let send = |to: u64, from: &[u8]| {
            if from.is_empty() || to == 0 {
                return Ok(());
            }
            // SAFETY: memory of the device that is at least as long, from a block that is pinned and waited for.
            unsafe { result::memcpy_htod_async(to, from, stream) }.call("cuMemcpyHtoDAsync")?;
            // SAFETY: a live stream of the current context.
            unsafe { result::stream::synchronize(stream) }.call("cuStreamSynchronize")
        };
        // SAFETY: the block is lent to this thread alone, and nothing of the device's works on it yet.
        let block = unsafe { std::slice::from_raw_parts_mut(staging.as_ptr(), staging.bytes) };
        block[..kept.len()].copy_from_slice(kept);
        if places.held > 0 {
            // SAFETY: memory of the device, so long.
            unsafe { result::memset_d8_async(self.held, 0, places.held, stream) }
                .call("cuMemsetD8Async")?;
        }
        send(self.held, &block[..kept.len()])?;
        block.fill(0);
        send(self.io_memory, &block[..places.io.bytes])
    }

    pub(super) fn free(&self) -> Result<(), CudaError> {
        free(self.io_memory).and(free(self.held))
    }
}

fn free(memory: u64) -> Result<(), CudaError> {
    if memory == 0 {
        return Ok(());
    }
    // SAFETY: from `furnish`, freed once, and nothing uses it any more.
    unsafe { result::free_sync(memory) }.call("cuMemFree")
}

impl Lodger {
    /// Takes guests in whose arrays are bound already, runs every play once, and captures it: a driver loads a kernel,
    /// and some guests prepare themselves, in a first run, which must not be captured. The room is the caller's if that
    /// fails.
    pub(super) fn move_in(
        device: &Device,
        (scene, places, room): (Scene, Places, Room),
        guests: Vec<Box<dyn Guest>>,
        staging: &Staging,
    ) -> Result<Lodger, CudaError> {
        let mut lodger = Lodger {
            scene,
            places,
            room,
            guests,
            functions: Rc::clone(device.functions()),
            sides: Vec::new(),
            begun: None,
            recordings: Vec::new(),
        };
        match lodger.prepare(device.stream(), staging) {
            Ok(()) => Ok(lodger),
            // Nothing may be destroyed in a context that is broken; it goes as a whole.
            Err(e) if e.breaks_the_context() => {
                lodger.abandon();
                Err(e)
            }
            Err(e) => lodger.dismantle().and(Err(e)),
        }
    }

    fn prepare(&mut self, stream: sys::CUstream, staging: &Staging) -> Result<(), CudaError> {
        let most = self.scene.plays.iter().map(Vec::len).max().unwrap_or(0);
        let event = || {
            result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).call("cuEventCreate")
        };
        if most > 1 {
            self.begun = Some(event()?);
        }
        for _ in 1..most {
            self.sides.push((stream_for_ticks()?, event()?));
        }
        for play in 0..self.scene.plays.len() {
            let put = self.put(play, stream, staging);
            self.waited(stream, put)?;
            let recording = Recording::of(stream, || self.put(play, stream, staging));
            if let Err(e) = &recording {
                tracing::info!(error = %e, "engines cannot be captured as a graph; they run call by call");
            }
            self.recordings.push(recording.ok());
        }
        Ok(())
    }

    /// Whether every play is one graph.
    pub(super) fn is_captured(&self) -> bool {
        self.recordings.iter().all(Option::is_some)
    }

    /// Runs a play, and waits for it.
    pub(super) fn run(
        &mut self,
        play: usize,
        stream: sys::CUstream,
        staging: &Staging,
    ) -> Result<(), CudaError> {
        let put = match self.recordings.get(play) {
            Some(Some(recording)) => recording.launch(stream),
            Some(None) => self.put(play, stream, staging),
            None => return Err(CudaError::NotCaptured),
        };
        self.waited(stream, put)
    }

    /// Waits for what was put onto the streams, all of it or what went before an error: the block is the host's again
    /// then, and nothing works on the arrays.
    fn waited(&self, stream: sys::CUstream, put: Result<(), CudaError>) -> Result<(), CudaError> {
        let mut said = synchronize(stream);
        if put.is_err() {
            // Those that were not joined.
            for (side, _) in &self.sides {
                said = said.and(synchronize(*side));
            }
        }
        // What the device says comes first: whether its context is broken.
        said.and(put)
    }

    /// Copies, the acts of each part, and copies. Parts but the first are on streams of their own between.
    fn put(
        &mut self,
        play: usize,
        stream: sys::CUstream,
        staging: &Staging,
    ) -> Result<(), CudaError> {
        self.upload(stream, staging)?;
        let parts = self.scene.plays[play].clone();
        if let (Some(begun), true) = (self.begun, parts.len() > 1) {
            // SAFETY: an event of this scene's and a stream, alive, of the current context.
            unsafe { result::event::record(begun, stream) }.call("cuEventRecord")?;
        }
        for (nth, part) in parts.into_iter().enumerate() {
            let side = nth.checked_sub(1).map(|side| self.sides[side]);
            if let (Some((own, _)), Some(begun)) = (side, self.begun) {
                wait(own, begun)?;
            }
            let own = side.map_or(stream, |(own, _)| own);
            self.act(part, own)?;
            if let Some((own, ended)) = side {
                // SAFETY: as above.
                unsafe { result::event::record(ended, own) }.call("cuEventRecord")?;
                wait(stream, ended)?;
            }
        }
        self.download(stream, staging)
    }

    fn act(&mut self, part: usize, stream: sys::CUstream) -> Result<(), CudaError> {
        for act in &self.scene.parts[part] {
            match act {
                Act::Kernel(step) => put_kernel(&self.functions, stream, step, |array| {
                    self.places.address(self.room.io, self.room.held, array)
                })?,
                Act::Guest(guest) => {
                    // SAFETY: a live stream of the current context; every run of the guest's is waited for.
                    unsafe { self.guests[*guest].enqueue(stream.cast()) }
                        .map_err(CudaError::Guest)?;
                }
            }
        }
        Ok(())
    }

    fn upload(&self, stream: sys::CUstream, staging: &Staging) -> Result<(), CudaError> {
        let bytes = self.places.io.to_device;
        if self.room.io_memory == 0 || bytes == 0 {
            return Ok(());
        }
        // SAFETY: both blocks are as long as the layout; the host's is pinned, and not touched until the stream has
        // passed, which `run` waits for.
        unsafe {
            let from = std::slice::from_raw_parts(staging.as_ptr(), bytes);
            result::memcpy_htod_async(self.room.io, from, stream)
        }
        .call("cuMemcpyHtoDAsync")
    }

    fn download(&self, stream: sys::CUstream, staging: &Staging) -> Result<(), CudaError> {
        let io = &self.places.io;
        let (at, bytes) = (io.from_device, io.bytes - io.from_device);
        if self.room.io_memory == 0 || bytes == 0 {
            return Ok(());
        }
        // SAFETY: as in `upload`.
        unsafe {
            let to = std::slice::from_raw_parts_mut(staging.as_ptr().add(at), bytes);
            result::memcpy_dtoh_async(to, self.room.io + at as u64, stream)
        }
        .call("cuMemcpyDtoHAsync")
    }

    /// Graphs, streams, guests and memory, in this order; whatever fails, all of them.
    pub(super) fn leave(self) -> Result<(), CudaError> {
        let room = self.room;
        self.dismantle().and(room.free())
    }

    /// The same, but for the memory.
    fn dismantle(self) -> Result<(), CudaError> {
        let mut said = Ok(());
        for recording in self.recordings.into_iter().flatten() {
            said = said.and(recording.destroy());
        }
        for (stream, event) in self.sides {
            // SAFETY: this scene's own, and not used again.
            unsafe {
                said = said.and(result::stream::destroy(stream).call("cuStreamDestroy"));
                said = said.and(result::event::destroy(event).call("cuEventDestroy"));
            }
        }
        if let Some(event) = self.begun {
            // SAFETY: likewise.
            said = said.and(unsafe { result::event::destroy(event) }.call("cuEventDestroy"));
        }
        drop(self.guests);
        said
    }

    /// Leaves everything to the reset of a context that is broken: TensorRT ends the process where something that it
    /// destroys there throws. What the guests hold of the host's memory is lost, once a failure.
    pub(super) fn abandon(self) {
        abandon(self.guests);
    }
}

/// Guests on their way home. Where they are let go of before they have come there, they go in the context that is
/// current, or, where that is broken, are left to its reset.
pub(super) struct Travellers {
    guests: Vec<Box<dyn Guest>>,
    pulse: Arc<Pulse>,
}

impl Travellers {
    pub(super) fn new(pulse: &Arc<Pulse>) -> Travellers {
        Travellers {
            guests: Vec::new(),
            pulse: Arc::clone(pulse),
        }
    }

    pub(super) fn join(&mut self, guest: Box<dyn Guest>) {
        self.guests.push(guest);
    }

    pub(super) fn arrive(mut self) -> Vec<Box<dyn Guest>> {
        std::mem::take(&mut self.guests)
    }
}

impl Drop for Travellers {
    fn drop(&mut self) {
        if self.guests.is_empty() {
            return;
        }
        // Nobody may have met the error yet: the driver is asked for a number, and says.
        let sound = self.pulse.is_open() && result::mem_get_info().is_ok();
        if !sound {
            abandon(std::mem::take(&mut self.guests));
        }
    }
}

/// Guests of a context that is broken.
#[allow(clippy::mem_forget)]
fn abandon(guests: Vec<Box<dyn Guest>>) {
    std::mem::forget(guests);
}

fn synchronize(stream: sys::CUstream) -> Result<(), CudaError> {
    // SAFETY: a live stream of the current context.
    unsafe { result::stream::synchronize(stream) }.call("cuStreamSynchronize")
}

fn wait(stream: sys::CUstream, event: sys::CUevent) -> Result<(), CudaError> {
    // SAFETY: both alive, of the current context.
    unsafe {
        result::stream::wait_event(
            stream,
            event,
            sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT,
        )
    }
    .call("cuStreamWaitEvent")
}
