//! Compiles the shim against the headers of the chosen release.

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

const SOURCES: [&str; 3] = ["shim/logger.cpp", "shim/build.cpp", "shim/run.cpp"];
const OUR_HEADERS: [&str; 3] = ["shim/shim.h", "shim/shim.hpp", "shim/cuda_runtime_api.h"];

/// Where JetPack and the Debian packages of TensorRT put the headers.
fn system_folders() -> Vec<PathBuf> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    vec![
        PathBuf::from(format!("/usr/include/{arch}-linux-gnu")),
        PathBuf::from("/usr/include"),
        PathBuf::from("/usr/local/tensorrt/include"),
    ]
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1);
}

/// The folder with `NvInfer.h`.
fn headers(release: &str) -> PathBuf {
    println!("cargo::rerun-if-env-changed=TENSORRT_INCLUDE");
    let is_there = |folder: &Path| folder.join("NvInfer.h").is_file();
    if let Some(folder) = env::var_os("TENSORRT_INCLUDE")
        .filter(|f| !f.is_empty())
        .map(PathBuf::from)
    {
        if !is_there(&folder) {
            fail(&format!(
                "TENSORRT_INCLUDE is {}, which has no NvInfer.h",
                folder.display()
            ));
        }
        return folder;
    }
    system_folders().into_iter().find(|f| is_there(f)).unwrap_or_else(|| {
        fail(&format!(
            "no NvInfer.h found: set TENSORRT_INCLUDE to the folder with the headers of {release} \
             (tensorrt-rs/headers fetches them)"
        ))
    })
}

/// As a system's folder, so that its warnings are not ours; and one that is the system's own comes last, since before
/// the compiler's folders it would hide their `stdlib.h`.
fn place(include: &Path) -> &'static str {
    match include.starts_with("/usr/include") {
        true => "-idirafter",
        false => "-isystem",
    }
}

fn main() {
    let chosen: Vec<(&str, &str)> = [
        ("RTX", "TensorRT-RTX 1.x"),
        ("TENSORRT_11", "TensorRT 11"),
        ("TENSORRT_10", "TensorRT 10"),
    ]
    .into_iter()
    .filter(|(feature, _)| env::var_os(format!("CARGO_FEATURE_{feature}")).is_some())
    .collect();
    let [(feature, release)] = chosen[..] else {
        fail("choose exactly one of the features rtx, tensorrt-11 and tensorrt-10");
    };
    let include = headers(release);
    let whole = std::path::absolute(&include).unwrap_or_else(|_| include.clone());
    println!("cargo::rustc-env=TENSORRT_RS_HEADERS={}", whole.display());
    for file in SOURCES.iter().chain(&OUR_HEADERS) {
        println!("cargo::rerun-if-changed={file}");
    }
    println!(
        "cargo::rerun-if-changed={}",
        include.join("NvInferVersion.h").display()
    );
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .files(SOURCES)
        .include("shim")
        .flag(place(&include))
        .flag(&*include.to_string_lossy())
        .define(
            &format!("TRT_FEATURE_{}", feature.trim_start_matches("TENSORRT_")),
            None,
        )
        .flag("-fvisibility=hidden")
        .extra_warnings(true)
        .compile("tensorrt_shim");
}
