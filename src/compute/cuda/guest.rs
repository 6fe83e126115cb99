//! Guests: engines that somebody else's library runs on this device, TensorRT's for one.
//!
//! A guest has the device's context and its stream, and inputs and outputs in one pinned block as a launch has:
//! mapped where CPU and GPU share their memory, one copy each way where they do not. It is made and run once on its
//! maker's thread, for that may take seconds; then copies, engine and copies are captured as one graph, which the
//! device's thread replays. A guest that cannot be captured is put onto the stream run by run.
//!
//! **When the device fails**, guests go before their context does; each one's next run is an error. One that is busy
//! keeps its guests: that run alone is an error.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;
use std::time::Duration;

use cudarc::driver::{result, sys};

use super::device::{Device, clear_gaps};
use super::error::{Call, CudaError};
use super::memory::{Discarded, Lease};
use super::staging::{Layout, Staging};
use super::{Cuda, PATIENT_LIMIT, lock};
use crate::compute::launch::Data;

/// Longest wait for an engine's run to begin, and again for it to end: predictions wait for it, and the CPU can do
/// them.
const GUEST_LIMIT: Duration = Duration::from_millis(250);

/// An engine of somebody else's.
pub trait Guest: Send {
    /// Reads its inputs from and writes its outputs to these addresses from now on: inputs first, each in the order
    /// of [`Cuda::host`].
    ///
    /// # Safety
    /// They are memory of the device whose context is current, as long as was said to [`Cuda::host`] and on
    /// boundaries of 256 bytes, until the guest is dropped.
    unsafe fn bind(&mut self, addresses: &[u64]) -> Result<(), String>;

    /// Puts a run onto the stream (`CUstream`), and does not wait for it.
    ///
    /// # Safety
    /// The stream is alive and of the context that is current. The run before is done, or on the same stream.
    unsafe fn enqueue(&mut self, stream: *mut c_void) -> Result<(), String>;
}

/// A guest as the device's thread has it.
pub(super) struct Lodger {
    guest: Box<dyn Guest>,
    room: Room,
    graph: Option<(sys::CUgraph, sys::CUgraphExec)>,
}

/// All guests of a device, by number.
pub(super) type Lodgers = HashMap<u64, Lodger>;

/// Where a guest's tensors lie.
#[derive(Clone)]
struct Room {
    layout: Layout,
    /// Where they begin, as the device sees it.
    base: u64,
    /// The same where it is memory of the device's own, which is to be freed; 0 where the block is mapped.
    memory: u64,
}

/// A handle that goes to another thread and is used there while its context lives.
struct Sent<T>(T);

// SAFETY: handles of a driver that allows every thread to use them; a block of the context is held meanwhile, so
// that it is not torn down.
unsafe impl<T> Send for Sent<T> {}

/// An engine on the device. It may be asked from any thread; it answers one at a time.
pub struct Hosted {
    cuda: Cuda,
    lease: Lease,
    layout: Layout,
    outputs: Vec<usize>,
    /// Held by who asks.
    one: Mutex<()>,
}

impl Cuda {
    /// Takes in a guest with inputs and outputs of so many numbers each. `make` makes it on this thread, where the
    /// device's context is current; it may take its time, for launches go on meanwhile.
    ///
    /// # Errors
    /// [`CudaError::Guest`] with what it said, or what the driver said.
    pub fn host(
        &self,
        inputs: &[usize],
        outputs: &[usize],
        make: impl FnOnce() -> Result<Box<dyn Guest>, String>,
    ) -> Result<Hosted, CudaError> {
        let layout = layout_of(inputs, outputs);
        let staging = self.block(layout.bytes)?;
        let thread = &self.inner.thread;
        let (mapped, bytes) = (staging.device, layout.bytes);
        let own = layout.clone();
        let (context, memory) = thread.call(PATIENT_LIMIT, move |device| {
            let memory = if device.properties.integrated {
                0
            } else {
                // SAFETY: the context is current; freed by `leave` or `tidy`, or with the context.
                let memory = unsafe { result::malloc_sync(bytes) }.call("cuMemAlloc")?;
                clear_gaps(device.stream(), memory, &own)?;
                // The guest's maker has a stream of its own, and may give the memory back at once.
                device.synchronize()?;
                memory
            };
            Ok((Sent(device.context()), memory))
        })?;
        let room = Room {
            layout: layout.clone(),
            base: if memory == 0 { mapped } else { memory },
            memory,
        };
        // Holding `staging` keeps the context.
        let guest = match settle(context, &room, make) {
            Ok(guest) => guest,
            Err(e) => {
                if memory != 0 {
                    thread.memory.discard(Discarded::Own(memory));
                }
                self.park(staging);
                return Err(e);
            }
        };
        let lease = thread.memory.lease();
        let number = lease.number;
        let (staging, moved) = thread.lend(PATIENT_LIMIT, staging, move |device, staging| {
            let lodger = Lodger::move_in(guest, room, device.stream(), staging);
            device.lodgers().insert(number, lodger);
            Ok(())
        });
        if let Some(staging) = staging {
            // Kept in any case: it goes when the engine does.
            thread.memory.keep(number, staging);
        }
        if let Err(e) = moved {
            if memory != 0 {
                // It never moved in: the room is as empty as the one above.
                thread.memory.discard(Discarded::Own(memory));
            }
            return Err(e);
        }
        Ok(Hosted {
            cuda: self.clone(),
            lease,
            layout,
            outputs: outputs.to_vec(),
            one: Mutex::default(),
        })
    }
}

impl Hosted {
    /// One run: the numbers of each input in, those of each output back.
    ///
    /// # Errors
    /// What the guest or the driver said. [`CudaError::NotCaptured`] after the device has failed: it must be hosted
    /// anew.
    pub fn run(&self, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, CudaError> {
        use zerocopy::IntoBytes;
        let _one = lock(&self.one);
        let mut outputs: Vec<Vec<f32>> = self.outputs.iter().map(|n| vec![0.0; *n]).collect();
        let mut data: Vec<Data<'_>> = inputs.iter().map(|i| Data::In(i.as_bytes())).collect();
        data.extend(outputs.iter_mut().map(|o| Data::Out(o.as_mut_bytes())));
        if !fits(&self.layout, &data) {
            return Err(CudaError::Guest("its inputs are of other sizes".to_owned()));
        }
        let thread = &self.cuda.inner.thread;
        thread.pulse.check()?;
        let number = self.lease.number;
        let mut staging = (thread.memory.take(number)).ok_or(CudaError::NotCaptured)?;
        staging.fill(&self.layout, data.iter());
        let (staging, said) = thread.lend(GUEST_LIMIT, staging, move |device, staging| {
            let stream = device.stream();
            let lodger = device.lodgers().get_mut(&number);
            lodger.ok_or(CudaError::NotCaptured)?.run(stream, staging)
        });
        if let Some(staging) = staging {
            if said.is_ok() {
                staging.drain(&self.layout, data.iter_mut());
            }
            // A guest that refused and a device that is busy are as they were; one that failed takes its guests
            // with it.
            if thread.pulse.is_open() {
                thread.memory.keep(number, staging);
            }
        }
        said.map(|()| outputs)
    }
}

fn layout_of(inputs: &[usize], outputs: &[usize]) -> Layout {
    let bytes = |n: &usize| vec![0_u8; n.saturating_mul(size_of::<f32>())];
    let given: Vec<Vec<u8>> = inputs.iter().map(bytes).collect();
    let mut made: Vec<Vec<u8>> = outputs.iter().map(bytes).collect();
    let mut data: Vec<Data<'_>> = given.iter().map(|b| Data::In(b)).collect();
    data.extend(made.iter_mut().map(|b| Data::Out(b)));
    Layout::of(data.iter())
}

fn fits(layout: &Layout, data: &[Data<'_>]) -> bool {
    let lengths = layout.arrays.iter().map(|a| a.1);
    lengths.eq(data.iter().map(Data::len))
}

/// Makes the guest, gives it its room and runs it once: some prepare themselves in their first run, which must not
/// be captured.
fn settle(
    context: Sent<sys::CUcontext>,
    room: &Room,
    make: impl FnOnce() -> Result<Box<dyn Guest>, String>,
) -> Result<Box<dyn Guest>, CudaError> {
    // SAFETY: the caller keeps the context.
    unsafe { result::ctx::set_current(context.0) }.call("cuCtxSetCurrent")?;
    let mut guest = make().map_err(CudaError::Guest)?;
    // SAFETY: the addresses lie in the room, which outlives the guest: `leave` drops the guest first.
    unsafe { guest.bind(&room.addresses()) }.map_err(CudaError::Guest)?;
    let stream =
        result::stream::create(result::stream::StreamKind::NonBlocking).call("cuStreamCreate")?;
    // SAFETY: a live stream of the current context, waited for, and not used after it is destroyed.
    unsafe {
        let ran = guest.enqueue(stream.cast()).map_err(CudaError::Guest);
        let waited = result::stream::synchronize(stream).call("cuStreamSynchronize");
        let gone = result::stream::destroy(stream).call("cuStreamDestroy");
        ran.and(waited).and(gone)?;
    }
    Ok(guest)
}

impl Room {
    fn addresses(&self) -> Vec<u64> {
        let arrays = self.layout.arrays.iter();
        arrays.map(|a| self.base + a.0 as u64).collect()
    }

    /// Copies, the guest's run, and copies.
    fn put(
        &self,
        guest: &mut dyn Guest,
        stream: sys::CUstream,
        staging: &Staging,
    ) -> Result<(), CudaError> {
        let (layout, host) = (&self.layout, staging.as_ptr());
        if self.memory != 0 && layout.to_device > 0 {
            // SAFETY: both blocks are as long as the layout; the host's is pinned, and not touched until the stream
            // has passed, which `run` waits for.
            unsafe {
                let from = std::slice::from_raw_parts(host, layout.to_device);
                result::memcpy_htod_async(self.base, from, stream)
            }
            .call("cuMemcpyHtoDAsync")?;
        }
        // SAFETY: a live stream of the current context, which every run of the guest's goes to.
        unsafe { guest.enqueue(stream.cast()) }.map_err(CudaError::Guest)?;
        let (at, bytes) = (layout.from_device, layout.bytes - layout.from_device);
        if self.memory != 0 && bytes > 0 {
            // SAFETY: as above.
            unsafe {
                let to = std::slice::from_raw_parts_mut(host.add(at), bytes);
                result::memcpy_dtoh_async(to, self.base + at as u64, stream)
            }
            .call("cuMemcpyDtoHAsync")?;
        }
        Ok(())
    }

    fn free(&self) -> Result<(), CudaError> {
        if self.memory == 0 {
            return Ok(());
        }
        // SAFETY: from `host`, freed once, and nothing uses it any more.
        unsafe { result::free_sync(self.memory) }.call("cuMemFree")
    }
}

impl Lodger {
    fn move_in(
        mut guest: Box<dyn Guest>,
        room: Room,
        stream: sys::CUstream,
        staging: &Staging,
    ) -> Lodger {
        let graph = capture(&mut *guest, &room, stream, staging);
        if let Err(e) = &graph {
            tracing::info!(error = %e, "an engine cannot be captured as a graph; it runs call by call");
        }
        Lodger {
            guest,
            room,
            graph: graph.ok(),
        }
    }

    fn run(&mut self, stream: sys::CUstream, staging: &Staging) -> Result<(), CudaError> {
        match self.graph {
            Some((_, exec)) => {
                // SAFETY: captured on this stream, over the block that the caller holds.
                unsafe { result::graph::launch(exec, stream) }.call("cuGraphLaunch")?;
            }
            None => self.room.put(&mut *self.guest, stream, staging)?,
        }
        // SAFETY: a live stream of the current context.
        unsafe { result::stream::synchronize(stream) }.call("cuStreamSynchronize")
    }

    /// Graph, guest and memory, in this order.
    pub(super) fn leave(self) -> Result<(), CudaError> {
        let destroyed = self.graph.map_or(Ok(()), |(graph, exec)| {
            // SAFETY: both were made by `capture`, and are not used again.
            unsafe {
                result::graph::exec_destroy(exec).call("cuGraphExecDestroy")?;
                result::graph::destroy(graph).call("cuGraphDestroy")
            }
        });
        drop(self.guest);
        destroyed.and(self.room.free())
    }
}

fn capture(
    guest: &mut dyn Guest,
    room: &Room,
    stream: sys::CUstream,
    staging: &Staging,
) -> Result<(sys::CUgraph, sys::CUgraphExec), CudaError> {
    // SAFETY: the stream is the device's and captures nothing yet.
    unsafe {
        result::stream::begin_capture(
            stream,
            sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
        )
    }
    .call("cuStreamBeginCapture")?;
    let put = room.put(guest, stream, staging);
    // SAFETY: it is capturing; ended whether or not all went in, so that the stream is usable again.
    let graph = unsafe { result::stream::end_capture(stream) }.call("cuStreamEndCapture");
    put?;
    let graph = graph?;
    // SAFETY: a graph that was just captured.
    let exec = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) }
        .call("cuGraphInstantiate")?;
    Ok((graph, exec))
}

impl Device {
    /// Lets every guest go, before the context does.
    pub(super) fn evict(&mut self) {
        for (_, lodger) in self.lodgers().drain() {
            let _ = lodger.leave();
        }
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
