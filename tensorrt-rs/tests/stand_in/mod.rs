//! Compiles the stand-ins for TensorRT's runtime and CUDA's driver.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

/// The classes of the headers that the stand-in implements parts of.
const CLASSES: [&str; 7] = [
    "VHostMemory",
    "VEngineInspector",
    "VRuntimeCache",
    "VRuntimeConfig",
    "VExecutionContext",
    "VCudaEngine",
    "VRuntime",
];

/// The crate's features, by its release; and the names that its library and parser are looked for by.
fn release() -> (&'static str, [&'static str; 2]) {
    match tensorrt_rs::RELEASE {
        "TensorRT-RTX 1" => (
            "-DTRT_FEATURE_RTX",
            ["libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"],
        ),
        "TensorRT 11" => (
            "-DTRT_FEATURE_11",
            ["libnvinfer.so.11", "libnvonnxparser.so.11"],
        ),
        _ => (
            "-DTRT_FEATURE_10",
            ["libnvinfer.so.10", "libnvonnxparser.so.10"],
        ),
    }
}

/// This crate's folder, for tests of another one, too.
fn sources() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    match own.join("shim").is_dir() {
        true => own.to_owned(),
        false => own.join("tensorrt-rs"),
    }
}

/// A folder with the stand-ins, which is gone afterwards.
pub struct StandIn(pub PathBuf);

impl StandIn {
    /// Compiles them against the headers that this crate was compiled with.
    pub fn new() -> Self {
        // Tests of one process may each have one.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, nth) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let made = Self(env::temp_dir().join(format!("tensorrt-rs-stand-in-{process}-{nth}")));
        fs::create_dir_all(&made.0).unwrap();
        write_refusing(&made.0);
        made.compile("cuda.cpp", "libcuda.so.1");
        made.compile("runtime.cpp", "libstandin.so");
        made
    }

    /// The same under the names that the release has, with a parser beside it, for `TENSORRT_LIB`.
    #[allow(dead_code)]
    pub fn installed() -> Self {
        let made = Self::new();
        let [library, parser] = release().1;
        made.compile("parser.cpp", parser);
        fs::rename(made.library(), made.0.join(library)).unwrap();
        made
    }

    /// The runtime.
    pub fn library(&self) -> PathBuf {
        self.0.join("libstandin.so")
    }

    fn compile(&self, source: &str, library: &str) {
        let done = Command::new(compiler())
            .args(["-std=c++17", "-O1", "-fPIC", "-shared"])
            .args(against_the_headers())
            .arg("-I")
            .arg(&self.0)
            .arg(sources().join("tests/stand_in").join(source))
            .arg("-o")
            .arg(self.0.join(library))
            .arg("-ldl")
            .status()
            .expect("a C++ compiler");
        assert!(done.success(), "{source} did not compile");
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Puts the stand-in's runtime into what that compiler makes; `folder` is for what is made on the way.
#[allow(dead_code)]
pub fn runtime_into(compiler: &mut Command, folder: &Path) {
    write_refusing(folder);
    compiler
        .args(against_the_headers())
        .arg("-I")
        .arg(folder)
        .arg(sources().join("tests/stand_in/runtime.cpp"));
}

/// Which release, and where its headers are. A folder of the system's own comes last: before them, it would hide the
/// compiler's.
fn against_the_headers() -> [String; 5] {
    let headers = tensorrt_rs::HEADERS;
    let place = match headers.starts_with("/usr/include") {
        true => "-idirafter",
        false => "-isystem",
    };
    let shim = sources().join("shim").display().to_string();
    [release().0, place, headers, "-I", &shim].map(str::to_owned)
}

/// The headers as the compiler sees them, without comments and what is left out by an `#if`.
fn preprocessed() -> String {
    let out = Command::new(compiler())
        .args(["-std=c++17", "-E", "-P"])
        .args(against_the_headers())
        .args(["-x", "c++"])
        .arg(Path::new(tensorrt_rs::HEADERS).join("NvInfer.h"))
        .output()
        .expect("a C++ compiler");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "NvInfer.h: {said}");
    String::from_utf8(out.stdout).unwrap().replace('\n', " ")
}

fn compiler() -> String {
    env::var("CXX").unwrap_or_else(|_| "g++".to_owned())
}

fn write_refusing(folder: &Path) {
    fs::write(folder.join("refusing.hpp"), refusing(&preprocessed())).unwrap();
}

/// For each class one that implements everything by ending the process.
fn refusing(code: &str) -> String {
    let mut out = String::from(
        "#pragma once\n#include <NvInfer.h>\n#include <cstdio>\n#include <cstdlib>\n\
         namespace nvinfer1 { namespace apiv { namespace refusing {\n\
         [[noreturn]] inline void refuse(char const* what) noexcept\n\
         { std::fprintf(stderr, \"stand-in: %s was called\\n\", what); std::abort(); }\n",
    );
    for class in CLASSES {
        let Some((_, body)) = code.split_once(&format!("class {class} : public VRoot")) else {
            continue;
        };
        let body = body.split("};").next().unwrap();
        writeln!(out, "class {class} : public apiv::{class} {{ public:").unwrap();
        for statement in body.split(';').filter(|s| s.contains("= 0")) {
            let signature = statement
                .split_once("virtual ")
                .unwrap()
                .1
                .rsplit_once("= 0")
                .unwrap()
                .0
                .trim();
            writeln!(out, "{signature} override {{ refuse({signature:?}); }}").unwrap();
        }
        writeln!(out, "}};").unwrap();
    }
    out + "}}}\n"
}
