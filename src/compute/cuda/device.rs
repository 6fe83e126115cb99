//! A GPU, as the thread that owns its context has it: module, streams, memory, launches.
//!
//! Every handle is made, used and destroyed on that thread. Nothing here retries or falls back: an error goes up
//! with the name of the call, and the device is torn down and opened anew some time later.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{result, sys};

use super::error::{Call, CudaError};
use super::fault::{During, NOWHERE};
use super::lodger::{Lodger, Lodgers, Room};
use super::memory::{Discarded, Memory};
use super::properties::Properties;
use super::recording::Recording;
use super::staging::{Layout, Life, Staging};
use crate::compute::frame_stats::STATS;
use crate::compute::launch::{Arg, Step};
use crate::compute::{FrameStats, Kernel, Task};

/// What the memory pool keeps for the next launch rather than give it back (bytes).
const POOL_KEEPS: u64 = 256 << 20;
/// Samples of which a device that was opened anew finds the mean, before anything is asked of it.
const PROBE: usize = 128;

/// Cubins run on exactly these compute capabilities (Tegra's and desktops' do not run on each other).
const CUBINS: [((i32, i32), &[u8]); 3] = [
    ((7, 2), include_bytes!("../../../kernels/built/sm_72.cubin")),
    ((8, 7), include_bytes!("../../../kernels/built/sm_87.cubin")),
    ((9, 0), include_bytes!("../../../kernels/built/sm_90.cubin")),
];
/// Any later GPU's driver compiles this for itself.
const PTX: &[u8] = include_bytes!("../../../kernels/built/compute_72.ptx");
/// The oldest that the PTX is for.
const OLDEST: (i32, i32) = (7, 2);

/// Whether libcuda can be loaded; asked before anything else, for without it cudarc would panic.
pub(super) fn driver_is_there() -> bool {
    // SAFETY: it loads libcuda, whose initialisers are NVIDIA's affair, and lets it go again.
    unsafe { sys::is_culib_present() }
}

/// A captured graph and where it works.
pub(super) struct Captured {
    recording: Recording,
    place: Place,
}

/// Where a launch's arrays lie for the device.
#[derive(Clone, Copy)]
enum Place {
    /// In the staged block itself, which is mapped there: nothing is copied.
    Mapped(u64),
    /// In memory of the device's own, to and from which they are copied.
    Own(u64),
}

impl Place {
    fn base(self) -> u64 {
        match self {
            Place::Mapped(base) | Place::Own(base) => base,
        }
    }
}

/// The kernels, loaded.
pub(super) type Functions = Rc<[(Kernel, sys::CUfunction)]>;

/// An open device.
pub(super) struct Device {
    pub properties: Properties,
    handle: sys::CUdevice,
    context: sys::CUcontext,
    module: sys::CUmodule,
    functions: Functions,
    /// Launches and ticks; a stream of their own, so that nothing waits for the default one.
    stream: sys::CUstream,
    /// What may take long; of two kernels that are ready the other stream's goes first.
    background: sys::CUstream,
    /// Where the launch that is there has its arrays.
    in_flight: Option<Place>,
    events: (sys::CUevent, sys::CUevent),
    graphs: HashMap<u64, Captured>,
    /// Memory that nobody uses any more, where there are no pools; see [`Device::tidy`].
    spent: RefCell<Vec<u64>>,
    lodgers: Lodgers,
    life: Arc<Life>,
}

impl Device {
    /// Opens the first GPU: context, module, stream.
    pub(super) fn open() -> Result<Device, CudaError> {
        if !driver_is_there() {
            return Err(CudaError::NoDriver);
        }
        match result::init() {
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => {
                return Err(CudaError::NoDevice);
            }
            said => said.call("cuInit")?,
        }
        if result::device::get_count().call("cuDeviceGetCount")? == 0 {
            return Err(CudaError::NoDevice);
        }
        let handle = result::device::get(0).call("cuDeviceGet")?;
        let properties = Properties::of(handle)?;
        // SAFETY: `handle` is a device; released in `drop`.
        let context =
            unsafe { result::primary_ctx::retain(handle) }.call("cuDevicePrimaryCtxRetain")?;
        // From here on `drop` undoes what was done, however far it came.
        let mut device = Device {
            properties,
            handle,
            context,
            module: null_mut(),
            functions: Rc::default(),
            stream: null_mut(),
            background: null_mut(),
            in_flight: None,
            events: (null_mut(), null_mut()),
            graphs: HashMap::new(),
            spent: RefCell::default(),
            lodgers: Lodgers::new(),
            life: Arc::default(),
        };
        device.set_up()?;
        Ok(device)
    }

    /// Module, streams and events in the context.
    fn set_up(&mut self) -> Result<(), CudaError> {
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(self.context) }.call("cuCtxSetCurrent")?;
        if self.properties.memory_pools {
            keep_memory(self.handle)?;
        }
        self.module = load(self.properties.capability)?;
        let functions = Kernel::ALL.into_iter().map(|kernel| {
            let name = CString::new(kernel.name()).unwrap_or_default();
            // SAFETY: the module is loaded and outlives its functions.
            let function = unsafe { result::module::get_function(self.module, name) };
            Ok((kernel, function.call("cuModuleGetFunction")?))
        });
        self.functions = functions.collect::<Result<_, CudaError>>()?;
        let (lowest, highest) = priorities()?;
        self.stream = stream(highest)?;
        self.background = stream(lowest)?;
        self.events.0 = event()?;
        self.events.1 = event()?;
        Ok(())
    }

    /// Has a kernel compute something small, and compares it with the CPU: whether the device really works.
    pub(super) fn probe(&mut self) -> Result<(), CudaError> {
        let samples: Vec<f32> = (0..PROBE).map(|n| n as f32).collect();
        let mut said = [([0.0; STATS], [0; 1]); 2];
        let [mut here, mut there] = said.each_mut().map(|said| one_window(&samples, said));
        here.run_on_cpu();
        let mut launch = there.launch(&self.properties.geometry());
        let layout = Layout::of(launch.data.iter());
        let mut staging = self.stage(layout.bytes)?;
        staging.fill(&layout, launch.data.iter());
        self.run(&staging, &layout, &launch.step)?;
        staging.drain(&layout, launch.data.iter_mut());
        if said[0] == said[1] {
            Ok(())
        } else {
            Err(CudaError::Wrong)
        }
    }

    /// The context, for work on another thread while a block of its memory is held.
    pub(super) fn context(&self) -> sys::CUcontext {
        self.context
    }

    /// The stream of launches and ticks.
    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Keeps the context from being torn down while it is held.
    pub(super) fn life(&self) -> Arc<Life> {
        Arc::clone(&self.life)
    }

    /// The kernels.
    pub(super) fn functions(&self) -> &Functions {
        &self.functions
    }

    /// Engines that others run on it.
    pub(super) fn lodgers(&mut self) -> &mut Lodgers {
        &mut self.lodgers
    }

    /// Whether a block of its memory is still in somebody's hands.
    pub(super) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.life) > 1
    }

    /// Pinned memory, mapped where the GPU is integrated.
    pub(super) fn stage(&self, bytes: usize) -> Result<Staging, CudaError> {
        let flags = if self.properties.integrated {
            sys::CU_MEMHOSTALLOC_DEVICEMAP
        } else {
            0
        };
        // SAFETY: the context is current; freed by `sweep`, or with the context.
        let host = unsafe { result::malloc_host(bytes, flags) }.call("cuMemHostAlloc")?;
        // SAFETY: just allocated, of that size: initialised here, once.
        unsafe { host.cast::<u8>().write_bytes(0, bytes) };
        let mut device = 0;
        if self.properties.integrated {
            // SAFETY: `host` is pinned memory that was asked to be mapped.
            unsafe { sys::cuMemHostGetDevicePointer_v2(&mut device, host, 0) }
                .result()
                .call("cuMemHostGetDevicePointer")?;
        }
        // SAFETY: allocated and initialised above, for this block alone; `is_in_use` keeps the context.
        Ok(unsafe { Staging::new(host.cast(), device, bytes, self.life.clone()) })
    }

    /// Gives back what nobody needs any more; while races are under way, nothing: the driver frees memory once the device
    /// has done all that it was given, and ticks would wait for that. It is bounded by what a minute of races sees
    /// ([`super::BACKGROUND_LIMIT`]).
    pub(super) fn tidy(&mut self, memory: &Memory) -> Result<(), CudaError> {
        if self.in_flight.is_some() {
            return Ok(());
        }
        for what in memory.discarded() {
            match what {
                // The graph first, then what it works on.
                Discarded::Graph(number, staging) => {
                    self.forget(number)?;
                    drop(staging);
                }
                // Of guests that never came.
                Discarded::Room(room) => Room::free(&room)?,
            }
        }
        self.sweep()
    }

    /// Gives memory and blocks that nobody holds back to the driver.
    fn sweep(&self) -> Result<(), CudaError> {
        for memory in self.spent.take() {
            // SAFETY: from `allocate`, freed once; what used it was waited for.
            unsafe { result::free_sync(memory) }.call("cuMemFree")?;
        }
        for host in self.life.orphans() {
            // SAFETY: it came from `stage` of this device, and its owner was dropped.
            unsafe { result::free_host(host as *mut c_void) }.call("cuMemFreeHost")?;
        }
        Ok(())
    }

    /// Free and total memory (bytes).
    pub(super) fn memory(&self) -> Result<(usize, usize), CudaError> {
        if self.in_flight.is_none() {
            self.sweep()?;
        }
        result::mem_get_info().call("cuMemGetInfo")
    }

    /// Runs a launch on a staged block, and waits for it.
    pub(super) fn run(
        &mut self,
        staging: &Staging,
        layout: &Layout,
        step: &Step,
    ) -> Result<(), CudaError> {
        let stream = self.stream;
        self.with_place(staging, layout, step, |device, place| {
            device.upload(stream, staging.as_ptr(), place, layout)?;
            device.launch(stream, step, layout, place)?;
            device.download(stream, staging.as_ptr(), place, layout)
        })?;
        self.synchronize()
    }

    /// Sends a launch off on the background's stream, and waits for nothing: [`Device::is_done`] tells when its
    /// outputs lie in the staged block, which is nobody's until then.
    pub(super) fn submit(
        &mut self,
        staging: &Staging,
        layout: &Layout,
        step: &Step,
    ) -> Result<(), CudaError> {
        let stream = self.background;
        let place = self.place(stream, staging, layout, std::slice::from_ref(step))?;
        self.in_flight = Some(place);
        self.upload(stream, staging.as_ptr(), place, layout)?;
        self.launch(stream, step, layout, place)?;
        self.download(stream, staging.as_ptr(), place, layout)
    }

    /// Whether what was submitted is done.
    pub(super) fn is_done(&mut self) -> Result<bool, CudaError> {
        let place = self.in_flight.ok_or(CudaError::NotCaptured)?;
        // SAFETY: the stream is this device's.
        match unsafe { sys::cuStreamQuery(self.background) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => return Ok(false),
            said => said.result().call("cuStreamQuery")?,
        }
        self.in_flight = None;
        self.leave(self.background, place)?;
        Ok(true)
    }

    /// Sends a kernel where no memory is, unless it is to go behind races and there are none. Nobody waits for it.
    pub(super) fn stray(&mut self, during: During) -> Result<bool, CudaError> {
        let stream = match (during, self.in_flight) {
            (During::Ticks, _) => self.stream,
            (During::Races, Some(_)) => self.background,
            (During::Races, None) => return Ok(false),
        };
        let (samples, mut said) = ([0.0; PROBE], ([0.0; STATS], [0; 1]));
        let mut task = one_window(&samples, &mut said);
        let step = task.launch(&self.properties.geometry()).step;
        put_kernel(&self.functions, stream, &step, |_| NOWHERE)?;
        Ok(true)
    }

    /// How long the kernel alone takes, so many times over.
    pub(super) fn measure(
        &mut self,
        staging: &Staging,
        layout: &Layout,
        step: &Step,
        rounds: usize,
    ) -> Result<Vec<Duration>, CudaError> {
        let mut took = Vec::with_capacity(rounds);
        let stream = self.stream;
        self.with_place(staging, layout, step, |device, place| {
            let (begin, end) = device.events;
            for _ in 0..rounds {
                device.upload(stream, staging.as_ptr(), place, layout)?;
                // SAFETY: events and stream are this device's.
                unsafe { result::event::record(begin, stream) }.call("cuEventRecord")?;
                device.launch(stream, step, layout, place)?;
                // SAFETY: as above.
                unsafe { result::event::record(end, stream) }.call("cuEventRecord")?;
                device.synchronize()?;
                // SAFETY: both were recorded, and the stream has passed them.
                let ms =
                    unsafe { result::event::elapsed(begin, end) }.call("cuEventElapsedTime")?;
                took.push(Duration::from_secs_f64(f64::from(ms) / 1e3));
            }
            device.download(stream, staging.as_ptr(), place, layout)
        })?;
        self.synchronize()?;
        Ok(took)
    }

    /// How long a copy of so many bytes within the device's memory takes.
    pub(super) fn measure_copy(
        &mut self,
        bytes: usize,
        rounds: usize,
    ) -> Result<Vec<Duration>, CudaError> {
        let mut took = Vec::with_capacity(rounds);
        let (begin, end) = self.events;
        let memory = self.allocate(self.stream, 2 * bytes)?;
        // SAFETY: just allocated, of that size, for this stream.
        unsafe { result::memset_d8_async(memory, 0, 2 * bytes, self.stream) }
            .call("cuMemsetD8Async")?;
        for _ in 0..rounds {
            // SAFETY: both halves lie in the allocation; events and stream are this device's.
            unsafe {
                result::event::record(begin, self.stream).call("cuEventRecord")?;
                result::memcpy_dtod_async(memory + bytes as u64, memory, bytes, self.stream)
                    .call("cuMemcpyDtoDAsync")?;
                result::event::record(end, self.stream).call("cuEventRecord")?;
            }
            self.synchronize()?;
            // SAFETY: both were recorded, and the stream has passed them.
            let ms = unsafe { result::event::elapsed(begin, end) }.call("cuEventElapsedTime")?;
            took.push(Duration::from_secs_f64(f64::from(ms) / 1e3));
        }
        self.free(self.stream, memory)?;
        self.synchronize()?;
        Ok(took)
    }

    /// Captures launches over one block as the graph of that number, which was never used before.
    pub(super) fn capture(
        &mut self,
        number: u64,
        staging: &Staging,
        layout: &Layout,
        steps: &[Step],
    ) -> Result<(), CudaError> {
        let place = self.place(self.stream, staging, layout, steps)?;
        let put = || {
            self.upload(self.stream, staging.as_ptr(), place, layout)?;
            let mut steps = steps.iter();
            steps.try_for_each(|step| self.launch(self.stream, step, layout, place))?;
            self.download(self.stream, staging.as_ptr(), place, layout)
        };
        // The allocation is stream-ordered, and a driver may load a kernel at its first launch: both must have happened
        // before anything is captured.
        let recording = put()
            .and_then(|()| self.synchronize())
            .and_then(|()| Recording::of(self.stream, put));
        let recording = match recording {
            Ok(recording) => recording,
            Err(e) => return self.leave(self.stream, place).and(Err(e)),
        };
        self.graphs.insert(number, Captured { recording, place });
        Ok(())
    }

    /// Destroys a captured graph, or lets an engine go.
    fn forget(&mut self, number: u64) -> Result<(), CudaError> {
        if let Some(lodger) = self.lodgers.remove(&number) {
            return lodger.leave();
        }
        let Some(captured) = self.graphs.remove(&number) else {
            return Ok(());
        };
        captured.recording.destroy()?;
        self.leave(self.stream, captured.place)
    }

    /// Runs a captured graph, and waits for it.
    pub(super) fn replay(&mut self, number: u64) -> Result<(), CudaError> {
        let captured = self.graphs.get(&number).ok_or(CudaError::NotCaptured)?;
        captured.recording.launch(self.stream)?;
        self.synchronize()
    }

    /// Has `work` done with a place for a launch's arrays, for as long as it takes.
    fn with_place(
        &mut self,
        staging: &Staging,
        layout: &Layout,
        step: &Step,
        work: impl FnOnce(&mut Device, Place) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let place = self.place(self.stream, staging, layout, std::slice::from_ref(step))?;
        let done = work(self, place);
        // Freed in the stream's order, after the work.
        let freed = self.leave(self.stream, place);
        done.and(freed)
    }

    /// A place for the arrays of launches: the staged block where all of them may work on it, else memory of the
    /// device's own, in which nothing that is copied back is left as it was found.
    fn place(
        &self,
        stream: sys::CUstream,
        staging: &Staging,
        layout: &Layout,
        steps: &[Step],
    ) -> Result<Place, CudaError> {
        if self.properties.integrated && steps.iter().all(|step| step.kernel.streams()) {
            return Ok(Place::Mapped(staging.device));
        }
        let memory = self.allocate(stream, layout.bytes)?;
        clear_gaps(stream, memory, layout)?;
        Ok(Place::Own(memory))
    }

    /// Gives a place up.
    fn leave(&self, stream: sys::CUstream, place: Place) -> Result<(), CudaError> {
        match place {
            Place::Mapped(_) => Ok(()),
            Place::Own(memory) => self.free(stream, memory),
        }
    }

    fn allocate(&self, stream: sys::CUstream, bytes: usize) -> Result<u64, CudaError> {
        if self.properties.memory_pools {
            // SAFETY: the stream is this device's, and all work on the memory goes there.
            unsafe { result::malloc_async(stream, bytes) }.call("cuMemAllocAsync")
        } else {
            // SAFETY: the context is current.
            unsafe { result::malloc_sync(bytes) }.call("cuMemAlloc")
        }
    }

    /// Frees what `stream` has used, and who used it waits for. The background's is known to be idle then.
    fn free(&self, stream: sys::CUstream, memory: u64) -> Result<(), CudaError> {
        if self.properties.memory_pools {
            // SAFETY: from `allocate`, freed once, in the order of the stream that used it.
            unsafe { result::free_async(memory, stream) }.call("cuMemFreeAsync")
        } else {
            self.spent.borrow_mut().push(memory);
            Ok(())
        }
    }

    /// Sends what the kernels read.
    fn upload(
        &self,
        stream: sys::CUstream,
        host: *const u8,
        place: Place,
        layout: &Layout,
    ) -> Result<(), CudaError> {
        let Place::Own(base) = place else {
            return Ok(());
        };
        if layout.to_device == 0 {
            return Ok(());
        }
        // SAFETY: both blocks are at least as long as the layout; the host's is pinned and not touched until the
        // stream has passed, which every caller waits for.
        unsafe {
            let bytes = std::slice::from_raw_parts(host, layout.to_device);
            result::memcpy_htod_async(base, bytes, stream)
        }
        .call("cuMemcpyHtoDAsync")
    }

    /// Fetches what the kernels wrote.
    fn download(
        &self,
        stream: sys::CUstream,
        host: *mut u8,
        place: Place,
        layout: &Layout,
    ) -> Result<(), CudaError> {
        let Place::Own(base) = place else {
            return Ok(());
        };
        let bytes = layout.bytes - layout.from_device;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: as in `upload`.
        unsafe {
            let to = std::slice::from_raw_parts_mut(host.add(layout.from_device), bytes);
            result::memcpy_dtoh_async(to, base + layout.from_device as u64, stream)
        }
        .call("cuMemcpyDtoHAsync")
    }

    fn launch(
        &self,
        stream: sys::CUstream,
        step: &Step,
        layout: &Layout,
        place: Place,
    ) -> Result<(), CudaError> {
        put_kernel(&self.functions, stream, step, |array| {
            place.base() + layout.arrays[array].0 as u64
        })
    }

    /// Waits for the stream of launches and ticks.
    pub(super) fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: the stream is this device's.
        unsafe { result::stream::synchronize(self.stream) }.call("cuStreamSynchronize")
    }
}

impl Drop for Device {
    /// After an error that sticks (an illegal address, say) these calls fail, too; the reset clears it, and frees
    /// what memory is left.
    fn drop(&mut self) {
        let idle = [self.stream, self.background].map(|stream| match stream.is_null() {
            true => Ok(()),
            // SAFETY: both streams are this device's.
            false => unsafe { result::stream::synchronize(stream) },
        });
        // Their work is done, or never will be: in a context that is broken nothing of theirs is called.
        let sound = idle.iter().all(Result::is_ok);
        for (_, lodger) in self.lodgers.drain() {
            match sound {
                true => drop(lodger.leave()),
                false => Lodger::abandon(lodger),
            }
        }
        for (_, captured) in self.graphs.drain() {
            let _ = captured.recording.destroy();
        }
        // SAFETY: every handle is this device's, was made on this thread and is not used again; null ones were never
        // made.
        unsafe {
            for event in [self.events.0, self.events.1] {
                if !event.is_null() {
                    let _ = result::event::destroy(event);
                }
            }
            for stream in [self.stream, self.background] {
                if !stream.is_null() {
                    let _ = result::stream::destroy(stream);
                }
            }
            if !self.module.is_null() {
                let _ = result::module::unload(self.module);
            }
            let _ = result::primary_ctx::release(self.handle);
            let _ = sys::cuDevicePrimaryCtxReset_v2(self.handle);
        }
    }
}

/// All samples in one window.
fn one_window<'a>(
    samples: &'a [f32],
    (stats, known): &'a mut ([f32; STATS], [u32; 1]),
) -> FrameStats<'a> {
    FrameStats {
        samples,
        rows: 1,
        windows: 1,
        length: samples.len(),
        hop: samples.len(),
        stats,
        known,
    }
}

/// Puts a kernel onto a stream, its arrays where `address` says.
pub(super) fn put_kernel(
    functions: &Functions,
    stream: sys::CUstream,
    step: &Step,
    address: impl Fn(usize) -> u64,
) -> Result<(), CudaError> {
    let mut own = functions.iter();
    let function = own
        .find_map(|(kernel, function)| (*kernel == step.kernel).then_some(*function))
        .ok_or(CudaError::NoDevice)?;
    // Eight bytes hold any argument; the driver reads as many as the kernel's signature says.
    let mut values: Vec<u64> = step
        .args
        .iter()
        .map(|arg| match *arg {
            Arg::Array(i) => address(i),
            Arg::U32(v) => u64::from(v),
            Arg::I32(v) => u64::from(v as u32),
            Arg::F32(v) => u64::from(v.to_bits()),
        })
        .collect();
    let mut params: Vec<*mut c_void> = values
        .iter_mut()
        .map(|v| std::ptr::from_mut(v).cast())
        .collect();
    // SAFETY: arguments in number, order and width are those of the kernel's signature (the host's shim runs
    // the same list against it in tests, where a wrong number is refused); arrays are as long as the task's
    // `check` requires, within the memory that the caller lays out, or, where a fault is wanted, on pages that are
    // nobody's, which the device refuses; the driver copies the parameters before it returns.
    unsafe {
        result::launch_kernel(
            function,
            (step.grid, 1, 1),
            (step.block, 1, 1),
            step.shared,
            stream,
            &mut params,
        )
    }
    .call("cuLaunchKernel")
}

/// The lowest priority of streams and the highest: the background's and that of ticks.
fn priorities() -> Result<(i32, i32), CudaError> {
    let (mut lowest, mut highest) = (0, 0);
    // SAFETY: the context is current, and both are numbers of ours.
    unsafe { sys::cuCtxGetStreamPriorityRange(&mut lowest, &mut highest) }
        .result()
        .call("cuCtxGetStreamPriorityRange")?;
    Ok((lowest, highest))
}

/// A stream of the highest priority.
pub(super) fn stream_for_ticks() -> Result<sys::CUstream, CudaError> {
    stream(priorities()?.1)
}

fn stream(priority: i32) -> Result<sys::CUstream, CudaError> {
    result::stream::create_with_priority(result::stream::StreamKind::NonBlocking, priority)
        .call("cuStreamCreateWithPriority")
}

fn event() -> Result<sys::CUevent, CudaError> {
    result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).call("cuEventCreate")
}

/// Tells the default pool not to give every block back to the system at once.
fn keep_memory(handle: sys::CUdevice) -> Result<(), CudaError> {
    // SAFETY: a device; the attribute is a 64-bit number.
    unsafe {
        let pool =
            result::device::get_default_mem_pool(handle).call("cuDeviceGetDefaultMemPool")?;
        let mut keeps = POOL_KEEPS;
        result::mem_pool::set_attribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            std::ptr::from_mut(&mut keeps).cast(),
        )
        .call("cuMemPoolSetAttribute")
    }
}

/// Clears what lies between outputs: they come back in one copy, and no word of that is to be one that was never
/// written. The outputs themselves are left as they are, so that a kernel that forgets one is found.
pub(super) fn clear_gaps(
    stream: sys::CUstream,
    base: u64,
    layout: &Layout,
) -> Result<(), CudaError> {
    for (at, bytes) in layout.gaps() {
        // SAFETY: it lies in the memory at `base`, which is as long as the layout and was allocated for this stream
        // or before it.
        unsafe { result::memset_d8_async(base + at as u64, 0, bytes, stream) }
            .call("cuMemsetD8Async")?;
    }
    Ok(())
}

/// Loads the kernels: the cubin for exactly this device, else PTX.
fn load(capability: (i32, i32)) -> Result<sys::CUmodule, CudaError> {
    let cubin = CUBINS.iter().find(|(own, _)| *own == capability);
    let bytes = match cubin {
        Some((_, cubin)) => cubin,
        None if capability >= OLDEST => PTX,
        None => {
            return Err(CudaError::Driver {
                call: "cuModuleLoadData",
                name: "CUDA_ERROR_NO_BINARY_FOR_GPU".into(),
                text: format!("compute capability {capability:?} is older than {OLDEST:?}"),
            });
        }
    };
    // On an 8-byte boundary, as an ELF file wants, and with the zero that ends a text.
    let mut image = vec![0_u64; bytes.len() / 8 + 1];
    for (word, chunk) in image.iter_mut().zip(bytes.chunks(8)) {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(eight);
    }
    // SAFETY: a whole cubin, or a text that ends in zero; the driver copies it.
    unsafe { result::module::load_data(image.as_ptr().cast()) }.call("cuModuleLoadData")
}
