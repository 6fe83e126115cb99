//! The shim under the address, leak and undefined-behaviour sanitizers: a program in C++ drives it through good
//! and broken models, as the Rust side does. With TensorRT-RTX, which builds without a GPU.
#![cfg(feature = "rtx")]

mod onnx;
mod sanitized;

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use onnx::Kind;
use onnx::models::{dense, lstm_with_attention, transformer, unknown_operator, wrong_shapes};
use sanitized::Scratch;

#[test]
fn the_shim_is_clean() {
    let libraries =
        PathBuf::from(env::var_os("TENSORRT_LIB").expect("TENSORRT_LIB=$(tensorrt-rs/libs)"));
    let scratch = Scratch::new("sanitized");
    let program = scratch.program("build_harness.cpp", |compiler| {
        // `vptr` would look for type information in NVIDIA's classes, which are compiled without.
        compiler.args(["-fno-sanitize=vptr", "-DTRT_FEATURE_RTX"]);
        compiler.args(["-isystem", tensorrt_rs::HEADERS]);
    });
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
    let mut run = Command::new(program);
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
    run.env(
        "LSAN_OPTIONS",
        format!("suppressions={}", own_affair.display()),
    );
    let said = sanitized::run(&mut run);
    assert!(said.contains("reported by the parser"), "{said}");
    eprintln!("{said}");
}
