//! An execution context: an engine at work.

use std::ffi::{CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::logger::{lacking, some};
use crate::tensor::{c_name, volume};
use crate::{DeviceBuffer, Engine, Error, Held, HostMemory, Tensor, ffi};

/// A CUDA stream, as the driver's handle (`CUstream`, or the runtime's `cudaStream_t`: they are one).
///
/// Making one is safe; enqueuing on it is not ([`ExecutionContext::enqueue`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(*mut c_void);

// SAFETY: a handle, which means something only to those who promise that it does.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// From the driver's handle.
    pub fn from_raw(handle: *mut c_void) -> Self {
        Self(handle)
    }
}

/// How a context is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContextOptions<'c> {
    /// TensorRT-RTX compiles kernels when a context first runs. With a cache, which may be empty (`Some(&[])`),
    /// it keeps what it has compiled; [`ExecutionContext::runtime_cache`] gives it out. The other releases
    /// have nothing to compile then, and refuse a cache.
    pub runtime_cache: Option<&'c [u8]>,
}

/// An engine at work: shapes, buffers, and the one thing that runs it.
///
/// A context is moved between threads, not shared. Several of one engine may run at the same time.
///
/// ## CUDA graphs
///
/// [`enqueue`](Self::enqueue) neither waits nor allocates on this side, so that it may be captured into a
/// graph. Run it once before capturing: after a change of shape or profile TensorRT prepares itself in the next
/// run, which a capture would record or forbid. The captured graph holds the buffers' addresses: bind others,
/// and it must be captured again.
#[derive(Debug)]
pub struct ExecutionContext<'e> {
    raw: NonNull<ffi::Context>,
    engine: Held<'e, Engine<'e>>,
    /// For each tensor of the engine, in its order: its name for TensorRT, and the bytes of its buffer.
    slots: Vec<(CString, Option<usize>)>,
    profile: usize,
    /// Nothing has changed since all shapes and buffers were found to be good.
    checked: bool,
    _not_sync: PhantomData<*mut ()>,
}

// SAFETY: TensorRT allows a context on any one thread at a time.
unsafe impl Send for ExecutionContext<'_> {}

impl<'e> ExecutionContext<'e> {
    /// A context that borrows or shares `engine`.
    pub fn new(
        engine: impl Into<Held<'e, Engine<'e>>>,
        options: ContextOptions<'_>,
    ) -> Result<Self, Error> {
        let engine = engine.into();
        let (logger, mut made) = (engine.runtime().logger(), ptr::null_mut());
        let mark = logger.mark();
        let cache = options.runtime_cache;
        let (bytes, length) = cache.map_or((ptr::null(), 0), |c| (c.as_ptr().cast(), c.len()));
        // SAFETY: a live engine; the cache is read during the call only.
        let status = unsafe {
            ffi::trt_context_create(
                engine.as_ptr(),
                i32::from(cache.is_some()),
                bytes,
                length,
                &mut made,
            )
        };
        if status == ffi::UNSUPPORTED {
            return Err(Error::Unsupported {
                what: "runtime cache",
                release: crate::RELEASE,
            });
        }
        logger.check("create an execution context", mark, status)?;
        let raw = some(made)?;
        let slots = engine
            .tensors()
            .iter()
            .map(|t| Ok((c_name(&t.name)?, None)))
            .collect::<Result<Vec<_>, Error>>();
        let mut context = Self {
            raw,
            engine,
            slots: Vec::new(),
            profile: 0,
            checked: false,
            _not_sync: PhantomData,
        };
        context.slots = slots?;
        Ok(context)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine<'e> {
        &self.engine
    }

    /// Chooses an optimisation profile; 0 is chosen at first. Shapes of dynamic inputs must be set again.
    ///
    /// # Safety
    ///
    /// `stream` is a live stream of the context that is current on this thread, and nothing of this context's is
    /// under way on another.
    pub unsafe fn set_profile(&mut self, profile: usize, stream: Stream) -> Result<(), Error> {
        if profile >= self.engine.profiles() {
            return Err(Error::Argument {
                what: "a profile",
                found: format!("{profile}; the engine has {}", self.engine.profiles()),
                allowed: "they are counted from 0",
            });
        }
        self.checked = false;
        // SAFETY: a live context, and the caller's promise.
        self.done("choose a profile", |raw| unsafe {
            ffi::trt_context_profile(raw, profile as i32, stream.0)
        })?;
        self.profile = profile;
        Ok(())
    }

    /// Gives a dynamic input its shape: within the profile's.
    pub fn set_input_shape(&mut self, input: &str, shape: &[i64]) -> Result<(), Error> {
        let (slot, tensor) = self.slot(input)?;
        let wrong = |allowed| Error::WrongShape {
            name: input.to_owned(),
            found: shape.to_vec(),
            allowed,
        };
        if !tensor.is_input {
            return Err(wrong("it is an output".to_owned()));
        }
        let known = tensor.shape.clone();
        if known.len() != shape.len()
            || known
                .iter()
                .zip(shape)
                .any(|(&is, &new)| is >= 0 && is != new)
        {
            return Err(wrong(format!("the engine has {known:?}")));
        }
        if tensor.is_dynamic() {
            let may = self.engine.profile_shapes(input, self.profile)?;
            let within = may
                .min
                .iter()
                .zip(shape)
                .zip(&may.max)
                .all(|((min, n), max)| min <= n && n <= max);
            if !within {
                return Err(wrong(format!(
                    "profile {} goes from {:?} to {:?}",
                    self.profile, may.min, may.max
                )));
            }
        }
        let dims = ffi::Dims::from_shape(input, shape)?;
        self.checked = false;
        let name = self.slots[slot].0.as_ptr();
        // SAFETY: a live context, a string of ours and dimensions.
        self.done("set an input's shape", |raw| unsafe {
            ffi::trt_context_set_dims(raw, name, &dims)
        })
    }

    /// A tensor's shape as things stand; −1 where it is not known yet.
    pub fn shape(&self, tensor: &str) -> Result<Vec<i64>, Error> {
        let (slot, _) = self.slot(tensor)?;
        self.shape_at(slot)
    }

    /// Has a tensor read from or written to a buffer from now on.
    ///
    /// # Safety
    ///
    /// From the next [`enqueue`](Self::enqueue) until the work of the last one that used it is done, the buffer
    /// is memory that the device may access (or host memory, if the tensor is [`on_host`](Tensor::on_host)), as
    /// large as it says, aligned for its type, and used by nobody else in a way that conflicts; the same goes for
    /// replays of a graph into which that work was captured.
    pub unsafe fn bind(&mut self, tensor: &str, buffer: DeviceBuffer) -> Result<(), Error> {
        let (slot, known) = self.slot(tensor)?;
        if known.holds != buffer.holds {
            let (name, expected) = (tensor.to_owned(), known.holds);
            return Err(Error::WrongType {
                name,
                expected,
                found: buffer.holds,
            });
        }
        if buffer.address.is_null() && buffer.bytes > 0 {
            return Err(Error::Argument {
                what: "a buffer's address",
                found: format!("0 for {tensor:?}"),
                allowed: "it must be memory",
            });
        }
        if let Some(needed) = self.needed(slot)?.filter(|&needed| needed > buffer.bytes) {
            return Err(Error::TooSmall {
                name: tensor.to_owned(),
                needed,
                found: buffer.bytes,
            });
        }
        self.checked = false;
        let name = self.slots[slot].0.as_ptr();
        // SAFETY: a live context, a string of ours, and the caller's promise.
        self.done("bind a tensor", |raw| unsafe {
            ffi::trt_context_bind(raw, name, buffer.address)
        })?;
        self.slots[slot].1 = Some(buffer.bytes);
        Ok(())
    }

    /// Whether a run on `stream` could be captured into a CUDA graph. Only TensorRT-RTX from 1.5 can be asked;
    /// it refuses for shapes that depend on data, and for models that branch.
    ///
    /// # Safety
    ///
    /// `stream` is a live stream of the context that is current on this thread.
    pub unsafe fn is_capturable(&self, stream: Stream) -> Result<bool, Error> {
        let mut capturable = 0;
        // SAFETY: a live context, and the caller's promise.
        let done = self.done("ask whether a run can be captured", |raw| unsafe {
            ffi::trt_context_capturable(raw, stream.0, &mut capturable)
        });
        lacking(done, "answer to whether a run can be captured")?;
        Ok(capturable != 0)
    }

    /// Puts a run onto a stream, and does not wait for it.
    ///
    /// Every shape must be known and every tensor bound to a buffer that is large enough; that is checked here,
    /// once after each change.
    ///
    /// # Safety
    ///
    /// `stream` is a live stream of the context that is current on this thread, that of the GPU that the engine
    /// was loaded on. The promises of [`bind`](Self::bind) hold, and this context's last run is done or was put
    /// onto the same stream. The context and its engine outlive the run, and every replay of a graph into which
    /// it was captured.
    pub unsafe fn enqueue(&mut self, stream: Stream) -> Result<(), Error> {
        if !self.checked {
            self.check_ready()?;
            self.checked = true;
        }
        // SAFETY: a live context, and the caller's promise.
        self.done("run the engine", |raw| unsafe {
            ffi::trt_context_enqueue(raw, stream.0)
        })
    }

    /// What TensorRT-RTX has compiled, for [`ContextOptions::runtime_cache`] of another time.
    pub fn runtime_cache(&self) -> Result<HostMemory, Error> {
        let mut blob = ptr::null_mut();
        // SAFETY: a live context.
        let done = self.done("serialise the runtime cache", |raw| unsafe {
            ffi::trt_context_cache(raw, &mut blob)
        });
        lacking(done, "runtime cache in this context")?;
        // SAFETY: fresh, and ours.
        unsafe { HostMemory::owned(blob) }
    }

    fn check_ready(&self) -> Result<(), Error> {
        for (slot, tensor) in self.engine.tensors().iter().enumerate() {
            let missing = |missing| Error::NotReady {
                name: tensor.name.clone(),
                missing,
            };
            let bytes = self.slots[slot].1.ok_or_else(|| missing("buffer"))?;
            match self.needed(slot)? {
                Some(needed) if needed > bytes => {
                    return Err(Error::TooSmall {
                        name: tensor.name.clone(),
                        needed,
                        found: bytes,
                    });
                }
                None if tensor.is_input && tensor.holds.bytes().is_some() => {
                    return Err(missing("shape"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The bytes that a tensor needs as things stand; nothing where that is not known yet.
    fn needed(&self, slot: usize) -> Result<Option<usize>, Error> {
        let tensor = &self.engine.tensors()[slot];
        let elements = volume(&self.shape_at(slot)?);
        if let (Some(elements), Some(bytes)) = (elements, tensor.holds.bytes()) {
            return Ok(elements.checked_mul(bytes));
        }
        if tensor.is_input {
            return Ok(None);
        }
        let mut most = 0;
        let name = self.slots[slot].0.as_ptr();
        // SAFETY: a live context and a string of ours.
        let status =
            unsafe { ffi::trt_context_max_output_bytes(self.raw.as_ptr(), name, &mut most) };
        Ok((status == ffi::OK)
            .then(|| usize::try_from(most).ok())
            .flatten())
    }

    fn shape_at(&self, slot: usize) -> Result<Vec<i64>, Error> {
        let mut dims = ffi::Dims::default();
        let name = self.slots[slot].0.as_ptr();
        // SAFETY: a live context and a string of ours.
        self.done("look at a shape", |raw| unsafe {
            ffi::trt_context_dims(raw, name, &mut dims)
        })?;
        Ok(match dims.rank {
            ..0 => vec![-1],
            _ => dims.to_shape(),
        })
    }

    fn slot(&self, name: &str) -> Result<(usize, &Tensor), Error> {
        let tensor = self.engine.tensor(name)?;
        let slot = self
            .engine
            .tensors()
            .iter()
            .position(|t| t.name == name)
            .unwrap_or(0);
        Ok((slot, tensor))
    }

    fn done(
        &self,
        operation: &'static str,
        call: impl FnOnce(*mut ffi::Context) -> i32,
    ) -> Result<(), Error> {
        let logger = self.engine.runtime().logger();
        let mark = logger.mark();
        logger.check(operation, mark, call(self.raw.as_ptr()))
    }
}

impl Drop for ExecutionContext<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once.
        unsafe { ffi::trt_context_destroy(self.raw.as_ptr()) };
    }
}
