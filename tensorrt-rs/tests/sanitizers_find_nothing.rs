//! The shim under the address, leak and undefined-behaviour sanitizers: a program in C++ drives it through good
//! and broken models, as the Rust side does.

mod onnx;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use onnx::Kind;
use onnx::models::{dense, lstm_with_attention, transformer, unknown_operator, wrong_shapes};

/// A folder that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let folder = env::temp_dir().join(format!("tensorrt-rs-sanitized-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn compile(into: &Path, include: &str) {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiler = env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    let built = Command::new(compiler)
        // `vptr` would look for type information in NVIDIA's classes, which are compiled without.
        .args([
            "-std=c++17",
            "-O1",
            "-g",
            "-fsanitize=address,undefined",
            "-fno-sanitize=vptr",
        ])
        .args([
            "-fno-sanitize-recover=all",
            "-fno-omit-frame-pointer",
            "-DTRT_FEATURE_RTX",
        ])
        .arg("-I")
        .arg(crate_folder.join("shim"))
        .args(["-isystem", include])
        .args(["logger", "build", "run"].map(|f| crate_folder.join(format!("shim/{f}.cpp"))))
        .arg(crate_folder.join("tests/sanitized/harness.cpp"))
        .args(["-ldl", "-o"])
        .arg(into)
        .status()
        .expect("a C++ compiler");
    assert!(built.success(), "the harness did not compile");
}

#[test]
fn the_shim_is_clean() {
    if !cfg!(feature = "rtx") {
        return;
    }
    let include = env::var("TENSORRT_INCLUDE").expect("TENSORRT_INCLUDE=$(tensorrt-rs/headers)");
    let libraries =
        PathBuf::from(env::var_os("TENSORRT_LIB").expect("TENSORRT_LIB=$(tensorrt-rs/libs)"));
    let scratch = Scratch::new();
    let harness = scratch.0.join("harness");
    compile(&harness, &include);
    let whole = transformer(Kind::F32, 20);
    let models = [
        ("good", "dense", dense(Kind::F32)),
        ("good", "lstm16", lstm_with_attention(Kind::F16)),
        ("bad", "unknown", unknown_operator()),
        ("bad", "wrong", wrong_shapes()),
        ("bad", "cut", whole[..whole.len() / 3].to_vec()),
        ("bad", "junk", b"not a model".to_vec()),
        ("good", "transformer", whole),
    ];
    let mut run = Command::new(&harness);
    run.args(
        ["libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"].map(|l| libraries.join(l)),
    );
    for (verdict, name, bytes) in &models {
        let file = scratch.0.join(format!("{name}.onnx"));
        fs::write(&file, bytes).unwrap();
        run.arg(verdict).arg(file);
    }
    // What NVIDIA's library keeps for itself until the end is its own affair.
    let own_affair = scratch.0.join("suppressions");
    fs::write(
        &own_affair,
        "leak:libtensorrt_rtx\nleak:libtensorrt_onnxparser_rtx\n",
    )
    .unwrap();
    let out = run
        .env(
            "LSAN_OPTIONS",
            format!("suppressions={}", own_affair.display()),
        )
        .env(
            "ASAN_OPTIONS",
            "detect_stack_use_after_return=1:alloc_dealloc_mismatch=0",
        )
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
        .output()
        .unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{}: {said}{complained}", out.status);
    assert!(said.contains("reported by the parser"), "{said}");
    eprintln!("{said}{complained}");
}
