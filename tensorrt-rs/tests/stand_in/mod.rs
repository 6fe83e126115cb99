//! Compiles the stand-ins for TensorRT's runtime and CUDA's driver.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
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

const FEATURE: &str = if cfg!(feature = "rtx") {
    "-DTRT_FEATURE_RTX"
} else if cfg!(feature = "tensorrt-11") {
    "-DTRT_FEATURE_11"
} else {
    "-DTRT_FEATURE_10"
};

/// A folder with the stand-ins, which is gone afterwards.
pub struct StandIn(pub PathBuf);

impl StandIn {
    /// Compiles them against the headers that this crate was compiled with.
    pub fn new() -> Self {
        let include =
            env::var("TENSORRT_INCLUDE").expect("TENSORRT_INCLUDE=$(tensorrt-rs/headers)");
        let made =
            Self(env::temp_dir().join(format!("tensorrt-rs-stand-in-{}", std::process::id())));
        fs::create_dir_all(&made.0).unwrap();
        let headers = fs::read_to_string(Path::new(&include).join("NvInferImpl.h")).unwrap();
        fs::write(made.0.join("refusing.hpp"), refusing(&headers)).unwrap();
        made.compile("cuda.cpp", "libcuda.so.1", &include);
        made.compile("runtime.cpp", "libstandin.so", &include);
        made
    }

    /// The runtime.
    pub fn library(&self) -> PathBuf {
        self.0.join("libstandin.so")
    }

    fn compile(&self, source: &str, library: &str, include: &str) {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let done = Command::new(env::var("CXX").unwrap_or_else(|_| "g++".to_owned()))
            .args([
                "-std=c++17",
                "-O1",
                "-fPIC",
                "-shared",
                FEATURE,
                "-isystem",
                include,
            ])
            .arg("-I")
            .arg(sources.join("shim"))
            .arg("-I")
            .arg(&self.0)
            .arg(sources.join("tests/stand_in").join(source))
            .arg("-o")
            .arg(self.0.join(library))
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

/// For each class one that implements everything by ending the process.
fn refusing(headers: &str) -> String {
    let code: Vec<&str> = headers
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect();
    let code = code.join(" ");
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
