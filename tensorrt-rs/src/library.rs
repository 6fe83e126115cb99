//! TensorRT's libraries, loaded at run time.

use std::env;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use libloading::os::unix::{Library as Loaded, RTLD_LOCAL, RTLD_NOW};

use crate::version::{self, RELEASE};
use crate::{Error, Version};

/// The library and its ONNX parser, by the names that every installation gives them.
const NAMES: (&str, &str) = if cfg!(feature = "rtx") {
    ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")
} else if cfg!(feature = "tensorrt-11") {
    ("libnvinfer.so.11", "libnvonnxparser.so.11")
} else {
    ("libnvinfer.so.10", "libnvonnxparser.so.10")
};

/// Libraries that were opened, in that order. A second opening gives the first one's handle.
static OPEN: Mutex<Vec<&'static Entries>> = Mutex::new(Vec::new());

/// Addresses of the functions that make objects.
#[derive(Debug)]
struct Entries {
    path: PathBuf,
    parser_path: Option<PathBuf>,
    version: Version,
    builder: Option<Entry>,
    runtime: Option<Entry>,
    refitter: Option<Entry>,
    parser: Option<Entry>,
    parser_refitter: Option<Entry>,
}

/// An address in a library that stays loaded.
#[derive(Clone, Copy, Debug)]
struct Entry(*mut c_void);

// SAFETY: a number; the functions behind it may be called from any thread.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

/// TensorRT, loaded. A handle: copy it freely. Libraries stay loaded until the program ends.
#[derive(Clone, Copy, Debug)]
pub struct Library(&'static Entries);

impl Library {
    /// Loads TensorRT and its ONNX parser from the folder in `TENSORRT_LIB`, or else from where the system's
    /// loader finds them.
    ///
    /// Fails if they are not there, or not of the release whose headers this was compiled with: same major and
    /// minor version, since the interface is a table of functions that grows with every release.
    pub fn open() -> Result<Self, Error> {
        match env::var_os("TENSORRT_LIB").filter(|folder| !folder.is_empty()) {
            Some(folder) => Self::open_in(Path::new(&folder)),
            None => Self::open_files(Path::new(NAMES.0), Some(Path::new(NAMES.1))),
        }
    }

    /// Loads TensorRT and its ONNX parser from a folder.
    pub fn open_in(folder: &Path) -> Result<Self, Error> {
        Self::open_files(&folder.join(NAMES.0), Some(&folder.join(NAMES.1)))
    }

    /// Loads these files: TensorRT, or its lean runtime, and perhaps the ONNX parser.
    pub fn open_files(library: &Path, parser: Option<&Path>) -> Result<Self, Error> {
        let mut open = OPEN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let same = |e: &&&Entries| e.path == library && e.parser_path.as_deref() == parser;
        if let Some(entries) = open.iter().find(same) {
            return Ok(Self(entries));
        }
        let entries: &'static Entries = Box::leak(Box::new(load(library, parser)?));
        open.push(entries);
        Ok(Self(entries))
    }

    /// The library's version.
    pub fn version(self) -> Version {
        self.0.version
    }

    /// The file or name that it was loaded by.
    pub fn path(self) -> &'static Path {
        &self.0.path
    }

    /// Whether it can build engines. A lean runtime cannot.
    pub fn can_build(self) -> bool {
        self.0.builder.is_some()
    }

    pub(crate) fn builder(self) -> Result<*mut c_void, Error> {
        entry(self.0.builder, "builder in this library")
    }

    pub(crate) fn runtime(self) -> Result<*mut c_void, Error> {
        entry(self.0.runtime, "runtime in this library")
    }

    pub(crate) fn parser(self) -> Result<*mut c_void, Error> {
        entry(self.0.parser, "ONNX parser loaded")
    }

    pub(crate) fn refitters(self) -> Result<(*mut c_void, *mut c_void), Error> {
        Ok((
            entry(self.0.refitter, "refitter in this library")?,
            entry(self.0.parser_refitter, "ONNX parser loaded")?,
        ))
    }
}

fn entry(entry: Option<Entry>, what: &'static str) -> Result<*mut c_void, Error> {
    entry.map(|e| e.0).ok_or(Error::Unsupported {
        what,
        release: RELEASE,
    })
}

fn load(path: &Path, parser_path: Option<&Path>) -> Result<Entries, Error> {
    let (headers, parser_headers) = version::headers();
    let library = dlopen(path)?;
    let version = Version::from_number(number(&library, path, b"getInferLibVersion")?);
    if (version.major, version.minor) != (headers.major, headers.minor) {
        return Err(Error::VersionMismatch {
            library: path.to_owned(),
            // TensorRT-RTX counts from 1 anew.
            what: if version.major < 5 {
                "TensorRT-RTX"
            } else {
                "TensorRT"
            },
            found: version,
            headers,
        });
    }
    let mut entries = Entries {
        path: path.to_owned(),
        parser_path: parser_path.map(Path::to_owned),
        version,
        builder: find(&library, b"createInferBuilder_INTERNAL"),
        runtime: find(&library, b"createInferRuntime_INTERNAL"),
        refitter: find(&library, b"createInferRefitter_INTERNAL"),
        parser: None,
        parser_refitter: None,
    };
    if let Some(path) = parser_path {
        let library = dlopen(path)?;
        let found = number(&library, path, b"getNvOnnxParserVersion")?;
        if found != parser_headers {
            return Err(Error::VersionMismatch {
                library: path.to_owned(),
                what: "ONNX parser",
                found: Version::from_number(found),
                headers: Version::from_number(parser_headers),
            });
        }
        entries.parser = find(&library, b"createNvOnnxParser_INTERNAL");
        entries.parser_refitter = find(&library, b"createNvOnnxParserRefitter_INTERNAL");
    }
    Ok(entries)
}

fn failed(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Load {
        library: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// Opens a library for good, also one that is then refused: they start threads and register destructors, whose code
/// must stay.
fn dlopen(path: &Path) -> Result<ManuallyDrop<Loaded>, Error> {
    // SAFETY: loading runs the library's initialisers. That the file is TensorRT is the caller's word, as for
    // every library that a program is told to load.
    unsafe { Loaded::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
        .map(ManuallyDrop::new)
        .map_err(|e| failed(path, &e))
}

/// Calls a function that takes nothing and returns a number.
fn number(library: &Loaded, path: &Path, name: &[u8]) -> Result<i32, Error> {
    // SAFETY: both functions that this is called for are of this type in every release.
    unsafe {
        let function = library
            .get::<unsafe extern "C" fn() -> c_int>(name)
            .map_err(|e| failed(path, &e))?;
        Ok(function())
    }
}

fn find(library: &Loaded, name: &[u8]) -> Option<Entry> {
    // SAFETY: only the address is taken; the shim knows the type.
    let symbol = unsafe { library.get::<*mut c_void>(name) }.ok()?;
    Some(Entry(symbol.into_raw())).filter(|e| !e.0.is_null())
}
