//! An engine: a model, built for one GPU, and loaded.

use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};

use crate::error::text;
use crate::logger::{plain, some};
use crate::network::find;
use crate::parser::push;
use crate::tensor::c_name;
use crate::{
    ContextOptions, DataType, Error, ExecutionContext, Held, HostMemory, Runtime, Tensor, ffi,
};

/// An engine on the device. Many contexts may run it at the same time.
#[derive(Debug)]
pub struct Engine<'r> {
    raw: NonNull<ffi::Engine>,
    runtime: Held<'r, Runtime<'r>>,
    tensors: Vec<Tensor>,
    profiles: usize,
    layers: usize,
}

// SAFETY: TensorRT allows an engine on any thread, and says that asking it and creating contexts from it is
// thread-safe. What changes it (`refit`) wants `&mut`.
unsafe impl Send for Engine<'_> {}
// SAFETY: as above.
unsafe impl Sync for Engine<'_> {}

/// The shapes that an input may take in a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileShapes {
    /// The smallest.
    pub min: Vec<i64>,
    /// What the engine was tuned for.
    pub opt: Vec<i64>,
    /// The largest.
    pub max: Vec<i64>,
}

impl<'r> Engine<'r> {
    /// Loads a serialised engine.
    ///
    /// One that was built by another release, for another GPU, or that is damaged where TensorRT looks, is
    /// refused with TensorRT's reason.
    ///
    /// # Safety
    ///
    /// `plan` is what TensorRT has written: a serialised engine is code for the GPU and tables for the CPU, and
    /// TensorRT does not check all of either. Keep a checksum beside an engine that is stored.
    pub unsafe fn new(
        runtime: impl Into<Held<'r, Runtime<'r>>>,
        plan: &[u8],
    ) -> Result<Self, Error> {
        let runtime = runtime.into();
        let (mark, mut made) = (runtime.logger().mark(), ptr::null_mut());
        // SAFETY: a live runtime; the plan is read during the call only.
        let status = unsafe {
            ffi::trt_runtime_deserialize(
                runtime.as_ptr(),
                plan.as_ptr().cast(),
                plan.len(),
                &mut made,
            )
        };
        runtime.logger().check("load the engine", mark, status)?;
        let raw = some(made)?;
        let mut engine = Self {
            raw,
            runtime,
            tensors: Vec::new(),
            profiles: 0,
            layers: 0,
        };
        engine.look()?;
        Ok(engine)
    }

    fn look(&mut self) -> Result<(), Error> {
        let (mut tensors, mut profiles, mut layers) = (0, 0, 0);
        // SAFETY: a live engine; three numbers are written.
        let status = unsafe {
            ffi::trt_engine_counts(self.raw.as_ptr(), &mut tensors, &mut profiles, &mut layers)
        };
        plain("look at the engine", status)?;
        self.profiles = usize::try_from(profiles).unwrap_or(0);
        self.layers = usize::try_from(layers).unwrap_or(0);
        self.tensors = (0..tensors)
            .map(|i| self.tensor_at(i))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    fn tensor_at(&self, i: i32) -> Result<Tensor, Error> {
        let dims = ffi::Dims::default();
        let mut found = ffi::Tensor {
            name: ptr::null(),
            kind: 0,
            is_input: 0,
            on_host: 0,
            dims,
        };
        // SAFETY: a live engine; the name that is written is the engine's, and copied at once.
        let name = unsafe {
            plain(
                "look at a tensor",
                ffi::trt_engine_tensor(self.raw.as_ptr(), i, &mut found),
            )?;
            text(found.name)
        };
        Ok(Tensor {
            name,
            holds: DataType::from_number(found.kind),
            shape: found.dims.to_shape(),
            is_input: found.is_input != 0,
            on_host: found.on_host != 0,
        })
    }

    /// Its inputs and outputs; −1 where a dimension is dynamic.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The input or output of that name.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, Error> {
        find("tensor", &self.tensors, name)
    }

    /// How many layers it has, after fusion.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// How many optimisation profiles it has.
    pub fn profiles(&self) -> usize {
        self.profiles
    }

    /// The shapes that `input` may take in a profile.
    pub fn profile_shapes(&self, input: &str, profile: usize) -> Result<ProfileShapes, Error> {
        let tensor = self.tensor(input)?;
        if !tensor.is_input || profile >= self.profiles {
            return Err(Error::Argument {
                what: "a profile's input",
                found: format!("{input:?}, profile {profile}"),
                allowed: "it must be an input, and a profile that the engine has",
            });
        }
        let (name, index) = (c_name(input)?, profile as i32);
        let [mut min, mut opt, mut max] = [ffi::Dims::default(); 3];
        let mark = self.logger_mark();
        // SAFETY: a live engine; three shapes are written.
        let status = unsafe {
            ffi::trt_engine_profile_dims(
                self.raw.as_ptr(),
                name.as_ptr(),
                index,
                &mut min,
                &mut opt,
                &mut max,
            )
        };
        self.runtime
            .logger()
            .check("look at a profile", mark, status)?;
        Ok(ProfileShapes {
            min: min.to_shape(),
            opt: opt.to_shape(),
            max: max.to_shape(),
        })
    }

    /// The device memory that a context of it takes (bytes).
    pub fn device_memory(&self) -> Result<usize, Error> {
        Ok(usize::try_from(self.facts()?.0).unwrap_or(0))
    }

    /// Whether its weights can be changed.
    pub fn is_refittable(&self) -> Result<bool, Error> {
        Ok(self.facts()?.1)
    }

    fn facts(&self) -> Result<(i64, bool), Error> {
        let (mut device_memory, mut refittable) = (0, 0);
        // SAFETY: a live engine; two numbers are written.
        let status = unsafe {
            ffi::trt_engine_facts(self.raw.as_ptr(), &mut device_memory, &mut refittable)
        };
        plain("look at the engine", status)?;
        Ok((device_memory, refittable != 0))
    }

    /// A context that borrows this engine; [`ExecutionContext::new`] has a form that shares it.
    pub fn context(&self) -> Result<ExecutionContext<'_>, Error> {
        ExecutionContext::new(self, ContextOptions::default())
    }

    /// The engine, serialised again; with refitted weights if it was refitted.
    pub fn serialize(&self) -> Result<HostMemory, Error> {
        let (mark, mut plan) = (self.logger_mark(), ptr::null_mut());
        // SAFETY: a live engine.
        let status = unsafe { ffi::trt_engine_serialize(self.raw.as_ptr(), &mut plan) };
        self.runtime
            .logger()
            .check("serialise the engine", mark, status)?;
        // SAFETY: fresh, and ours.
        unsafe { HostMemory::owned(plan) }
    }

    /// What TensorRT made of the model, as JSON: its layers, and their details if the engine was built with
    /// [`BuilderConfig::detailed_layers`](crate::BuilderConfig::detailed_layers).
    pub fn inspect(&self) -> Result<String, Error> {
        let (mark, mut json) = (self.logger_mark(), String::new());
        // SAFETY: a live engine; `json` is what `keep` wants.
        let status =
            unsafe { ffi::trt_engine_inspect(self.raw.as_ptr(), keep, (&raw mut json).cast()) };
        self.runtime
            .logger()
            .check("inspect the engine", mark, status)?;
        Ok(json)
    }

    /// Puts the weights of another ONNX model of the same shape into the engine. It must have been built as
    /// [`refittable`](crate::BuilderConfig::refittable), and no context of it may be alive: this wants it alone.
    pub fn refit(&mut self, model: &[u8]) -> Result<(), Error> {
        let (refitter, parser) = self.runtime.library().refitters()?;
        let (logger, mut errors) = (self.runtime.logger(), Vec::new());
        let mark = logger.mark();
        // SAFETY: the libraries' entry points and a live engine that nobody else uses; the model is read during
        // the call only; `errors` is what `push` wants.
        let status = unsafe {
            ffi::trt_engine_refit(
                self.raw.as_ptr(),
                refitter,
                parser,
                logger.as_ptr(),
                model.as_ptr().cast(),
                model.len(),
                push,
                (&raw mut errors).cast(),
            )
        };
        match status {
            ffi::REFUSED if !errors.is_empty() => Err(Error::Parse {
                errors,
                log: logger.since(mark),
            }),
            other => logger.check("refit the engine", mark, other),
        }
    }

    /// The runtime.
    pub fn runtime(&self) -> &Runtime<'r> {
        &self.runtime
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::Engine {
        self.raw.as_ptr()
    }

    fn logger_mark(&self) -> crate::logger::Mark {
        self.runtime.logger().mark()
    }
}

/// # Safety
///
/// `user` is a `String`, `json` a string or null.
unsafe extern "C" fn keep(user: *mut c_void, json: *const c_char) {
    // SAFETY: the caller's promise.
    unsafe { *user.cast::<String>() = text(json) };
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once; no context of it is left.
        unsafe { ffi::trt_engine_destroy(self.raw.as_ptr()) };
    }
}
