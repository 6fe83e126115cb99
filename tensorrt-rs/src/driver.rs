//! The CUDA driver: whether there is one.

use std::ffi::{CStr, c_char, c_int};
use std::sync::Mutex;

use libloading::Library;

use crate::Error;

const NAME: &str = "libcuda.so.1";

/// Kept open for good once it was there: a driver is not unloaded under a program that uses it.
static OPEN: Mutex<Option<&'static Library>> = Mutex::new(None);

/// A CUDA driver that has been initialised, with at least one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA that it knows: major · 1,000 + minor · 10.
    pub cuda: i32,
    /// How many GPUs there are.
    pub devices: i32,
}

impl Driver {
    /// Initialises the driver, or says why not. Cheap once it has been.
    ///
    /// Everything in this crate that needs a driver asks this first: some TensorRT libraries hand out pointers to
    /// nothing where there is none.
    pub fn find() -> Result<Self, Error> {
        let library = open()?;
        type Init = unsafe extern "C" fn(u32) -> c_int;
        type Number = unsafe extern "C" fn(*mut c_int) -> c_int;
        let missing = |e: libloading::Error| Error::NoDriver {
            reason: e.to_string(),
        };
        // SAFETY: the functions' types are those of CUDA's driver API.
        let (init, count, version) = unsafe {
            (
                library.get::<Init>(b"cuInit").map_err(missing)?,
                library
                    .get::<Number>(b"cuDeviceGetCount")
                    .map_err(missing)?,
                library
                    .get::<Number>(b"cuDriverGetVersion")
                    .map_err(missing)?,
            )
        };
        let (mut devices, mut cuda) = (0, 0);
        // SAFETY: as the driver API wants it: first `cuInit` with no flags, then questions that write one number.
        unsafe {
            said(library, "cuInit", init(0))?;
            said(library, "cuDeviceGetCount", count(&mut devices))?;
            said(library, "cuDriverGetVersion", version(&mut cuda))?;
        }
        match devices {
            1.. => Ok(Self { cuda, devices }),
            _ => Err(Error::NoDriver {
                reason: "the driver sees no GPU".to_owned(),
            }),
        }
    }
}

fn open() -> Result<&'static Library, Error> {
    let mut open = OPEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(library) = *open {
        return Ok(library);
    }
    // SAFETY: loading NVIDIA's driver library runs its initialisers, which is what it is for.
    let library = unsafe { Library::new(NAME) }.map_err(|e| Error::NoDriver {
        reason: e.to_string(),
    })?;
    Ok(*open.insert(Box::leak(Box::new(library))))
}

/// Turns a result of the driver's into an error with the driver's own text.
fn said(library: &Library, call: &str, result: c_int) -> Result<(), Error> {
    if result == 0 {
        return Ok(());
    }
    type Name = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
    let mut text = std::ptr::null();
    // SAFETY: the function's type is that of CUDA's driver API; it writes a pointer to a constant string or null.
    let text = unsafe {
        if let Ok(name) = library.get::<Name>(b"cuGetErrorString") {
            name(result, &mut text);
        }
        if text.is_null() {
            "unknown error".into()
        } else {
            CStr::from_ptr(text).to_string_lossy()
        }
    };
    Err(Error::NoDriver {
        reason: format!("{call} returned {result}: {text}"),
    })
}
