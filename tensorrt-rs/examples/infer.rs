//! Runs an engine on zeros, and times it.
//!
//! ```sh
//! cargo run --release -p tensorrt-rs --example infer -- model.engine [--shape INPUT=22x50x24]…
//! ```
//!
//! It needs a GPU. Memory and streams come from CUDA's driver, called by hand, to show that any binding of CUDA
//! goes with this crate.

use std::env;
use std::error::Error;
use std::ffi::{c_int, c_uint, c_void};
use std::fs;
use std::ptr;
use std::time::Instant;

use libloading::Library as Loaded;
use tensorrt_rs::{DeviceBuffer, Driver, Library, Logger, Runtime, Stream};

/// What of CUDA's driver is needed.
struct Cuda(Loaded);

impl Cuda {
    /// The driver, with the first GPU's primary context made current.
    fn first_gpu() -> Result<Self, Box<dyn Error>> {
        Driver::find()?;
        // SAFETY: it is loaded already.
        let cuda = Self(unsafe { Loaded::new("libcuda.so.1")? });
        let (mut device, mut context) = (0, ptr::null_mut::<c_void>());
        // SAFETY: the functions' types are those of CUDA's driver API, and the calls in its order.
        unsafe {
            let get = cuda
                .0
                .get::<unsafe extern "C" fn(*mut c_int, c_int) -> c_int>(b"cuDeviceGet")?;
            done("cuDeviceGet", get(&mut device, 0))?;
            let retain = cuda
                .0
                .get::<unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int>(
                    b"cuDevicePrimaryCtxRetain",
                )?;
            done("cuDevicePrimaryCtxRetain", retain(&mut context, device))?;
            let current = cuda
                .0
                .get::<unsafe extern "C" fn(*mut c_void) -> c_int>(b"cuCtxSetCurrent")?;
            done("cuCtxSetCurrent", current(context))?;
        }
        Ok(cuda)
    }

    fn stream(&self) -> Result<*mut c_void, Box<dyn Error>> {
        let mut stream = ptr::null_mut();
        // SAFETY: the type is that of CUDA's driver API.
        unsafe {
            let create = self
                .0
                .get::<unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int>(
                    b"cuStreamCreate",
                )?;
            done("cuStreamCreate", create(&mut stream, 1))?;
        }
        Ok(stream)
    }

    /// Memory, zeroed; freed with the process.
    fn zeroed(&self, bytes: usize) -> Result<u64, Box<dyn Error>> {
        let mut address = 0;
        // SAFETY: the types are those of CUDA's driver API.
        unsafe {
            let allocate = self
                .0
                .get::<unsafe extern "C" fn(*mut u64, usize) -> c_int>(b"cuMemAlloc_v2")?;
            done("cuMemAlloc", allocate(&mut address, bytes.max(1)))?;
            let set = self
                .0
                .get::<unsafe extern "C" fn(u64, u8, usize) -> c_int>(b"cuMemsetD8_v2")?;
            done("cuMemsetD8", set(address, 0, bytes))?;
        }
        Ok(address)
    }

    fn wait(&self, stream: *mut c_void) -> Result<(), Box<dyn Error>> {
        // SAFETY: the type is that of CUDA's driver API, the stream is alive.
        unsafe {
            let wait = self
                .0
                .get::<unsafe extern "C" fn(*mut c_void) -> c_int>(b"cuStreamSynchronize")?;
            done("cuStreamSynchronize", wait(stream))
        }
    }
}

fn done(call: &str, result: c_int) -> Result<(), Box<dyn Error>> {
    match result {
        0 => Ok(()),
        _ => Err(format!("{call} returned {result}").into()),
    }
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    const RUNS: u32 = 1000;
    let mut arguments = env::args().skip(1);
    let file = arguments
        .next()
        .ok_or("usage: infer ENGINE [--shape INPUT=22x50x24]…")?;
    let logger = Logger::new()?;
    let runtime = Runtime::new(Library::open()?, &logger)?;
    let cuda = Cuda::first_gpu()?;
    let handle = cuda.stream()?;
    // SAFETY: the user says that this is an engine.
    let engine = unsafe { runtime.deserialize(&fs::read(file)?)? };
    let mut context = engine.context()?;
    while let (Some(flag), Some(text)) = (arguments.next(), arguments.next()) {
        let (input, shape) = text.split_once('=').ok_or("a shape is INPUT=22x50x24")?;
        let shape: Vec<i64> = shape.split('x').map(str::parse).collect::<Result<_, _>>()?;
        println!("{flag} {input} {shape:?}");
        context.set_input_shape(input, &shape)?;
    }
    for tensor in engine.tensors() {
        let shape = context.shape(&tensor.name)?;
        let elements = shape.iter().product::<i64>().try_into()?;
        let bytes =
            tensor.holds.bytes().ok_or("a tensor of a packed type")? * usize::max(elements, 1);
        println!(
            "{} {tensor}: now {shape:?}, {bytes} bytes",
            if tensor.is_input { "in " } else { "out" }
        );
        let buffer = DeviceBuffer::of(cuda.zeroed(bytes)?, tensor.holds, bytes);
        // SAFETY: memory of the device's, as large as said, for good.
        unsafe { context.bind(&tensor.name, buffer)? };
    }
    let stream = Stream::from_raw(handle);
    // SAFETY: a live stream of the current context; waited for below.
    unsafe { context.enqueue(stream)? };
    cuda.wait(handle)?;
    let started = Instant::now();
    for _ in 0..RUNS {
        // SAFETY: as above.
        unsafe { context.enqueue(stream)? };
    }
    cuda.wait(handle)?;
    println!(
        "{RUNS} runs, {:.1} µs each",
        started.elapsed().as_secs_f64() * 1e6 / f64::from(RUNS)
    );
    Ok(())
}
