//! Without a driver everything that needs one says so and nothing crashes, whatever library is loaded; and a
//! library of another release is refused before anything of it is called.

mod onnx;

use std::path::{Path, PathBuf};
use std::{env, fs};

use tensorrt_rs::{Driver, Error, Library, Logger, Runtime, Version};

/// A lean runtime and its version: TensorRT 10.16's for that release, TensorRT 11.4's for the others.
const LEAN: (&str, Version) = if cfg!(feature = "tensorrt-10") {
    ("libnvinfer_lean.so.10", version(10, 16, 1))
} else {
    ("libnvinfer_lean.so.11", version(11, 4, 0))
};

const fn version(major: u32, minor: u32, patch: u32) -> Version {
    Version {
        major,
        minor,
        patch,
    }
}

/// TensorRT's lean runtime, whose runtime is a pointer to nothing where there is no driver.
#[allow(clippy::print_stderr)]
fn lean() -> Option<PathBuf> {
    const HOW: &str =
        "set TENSORRT_LEAN=$(tensorrt-rs/libs lean), for tensorrt-10 $(tensorrt-rs/libs lean-10)";
    let folder = env::var_os("TENSORRT_LEAN").map(PathBuf::from);
    assert!(folder.is_some() || env::var_os("CI").is_none(), "{HOW}");
    if folder.is_none() {
        eprintln!("skipped: {HOW}");
    }
    Some(folder?.join(LEAN.0))
}

fn no_driver(library: Library) {
    let logger = Logger::new().unwrap();
    match (Driver::find(), Runtime::new(library, &logger)) {
        (Ok(driver), made) => {
            assert!(driver.devices > 0 && driver.cuda > 0, "{driver:?}");
            made.unwrap();
        }
        (Err(found), made) => {
            let error = made.unwrap_err();
            assert_eq!(error, found);
            assert!(matches!(error, Error::NoDriver { .. }), "{error:?}");
            assert!(
                error.to_string().contains("libcuda") || error.to_string().contains("cuInit"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_runtime_without_a_driver() {
    if cfg!(feature = "rtx") {
        no_driver(Library::open().expect("TensorRT, from TENSORRT_LIB=$(tensorrt-rs/libs)"));
    } else {
        let Some(lean) = lean() else { return };
        let library = Library::open_files(&lean, None).unwrap();
        assert_eq!(library.version(), LEAN.1);
        no_driver(library);
    }
}

#[test]
fn a_lean_library_builds_nothing() {
    if cfg!(feature = "rtx") {
        return;
    }
    let Some(lean) = lean() else { return };
    let library = Library::open_files(&lean, None).unwrap();
    assert!(!library.can_build());
    let logger = Logger::new().unwrap();
    let error = tensorrt_rs::Builder::new(library, &logger).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
}

#[test]
fn a_library_of_another_release_is_refused() {
    let (other, has, wants) = if cfg!(feature = "rtx") {
        let Some(lean) = lean() else { return };
        (lean, "TensorRT 11.4.0", "headers of 1.7")
    } else {
        let Some(folder) = env::var_os("TENSORRT_LIB") else {
            return;
        };
        (
            Path::new(&folder).join("libtensorrt_rtx.so.1"),
            "TensorRT-RTX 1.7.1",
            "headers of 1",
        )
    };
    let error = Library::open_files(&other, None).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::VersionMismatch { .. }), "{error:?}");
    assert!(
        text.contains(has) && text.contains(wants) && text.contains("TENSORRT_INCLUDE"),
        "{text}"
    );
    // What it has started or registered meanwhile still has its code.
    let mapped = fs::read_to_string("/proc/self/maps").unwrap();
    let name = other.file_name().and_then(|n| n.to_str()).unwrap();
    assert!(mapped.contains(name), "{name} was closed");
}

#[test]
fn a_library_that_is_not_there_or_is_none_is_named() {
    let error = Library::open_in(Path::new("/nowhere"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nowhere/lib") && error.contains("TENSORRT_LIB"),
        "{error}"
    );
    let junk = env::temp_dir().join(format!("tensorrt-rs-junk-{}.so", std::process::id()));
    fs::write(&junk, b"no library").unwrap();
    let junk_error = Library::open_files(&junk, None).unwrap_err().to_string();
    fs::remove_file(&junk).unwrap();
    assert!(junk_error.contains("tensorrt-rs-junk"), "{junk_error}");
    // A library, but not TensorRT.
    let error = Library::open_files(Path::new("libm.so.6"), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("getInferLibVersion"), "{error}");
}

#[test]
fn a_library_is_loaded_once() {
    if !cfg!(feature = "rtx") {
        return;
    }
    let (one, two) = (Library::open().unwrap(), Library::open().unwrap());
    assert!(std::ptr::eq(one.path(), two.path()));
    assert_eq!(one.version(), version(1, 7, 1));
    assert!(one.can_build());
}
