//! The shim's running side (runtime, engine, context, caches) under the sanitizers, against the stand-in for TensorRT's
//! runtime: every call goes through the tables of the headers that this crate was compiled with.

mod sanitized;
mod stand_in;

use std::process::Command;

use sanitized::Scratch;

#[test]
fn running_is_clean() {
    let scratch = Scratch::new("running");
    let program = scratch.program("run_harness.cpp", |compiler| {
        stand_in::runtime_into(compiler, &scratch.0);
    });
    sanitized::run(&mut Command::new(program));
}
