//! Compiles the shim and a program that drives it, with the address, leak and undefined-behaviour sanitizers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

/// A folder that is gone afterwards.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(of: &str) -> Self {
        let folder = env::temp_dir().join(format!("tensorrt-rs-{of}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// The program that `harness` of this folder is the main file of, compiled with the shim and `with`.
    pub fn program(&self, harness: &str, with: impl FnOnce(&mut Command)) -> PathBuf {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = self.0.join("harness");
        let mut compiler = Command::new(env::var("CXX").unwrap_or_else(|_| "g++".to_owned()));
        compiler
            .args(["-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer"])
            .args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
            .arg("-I")
            .arg(own.join("shim"))
            .args(["logger", "build", "run"].map(|f| own.join(format!("shim/{f}.cpp"))))
            .arg(own.join("tests/sanitized").join(harness));
        with(&mut compiler);
        let built = compiler.args(["-ldl", "-o"]).arg(&program).status();
        assert!(
            built.expect("a C++ compiler").success(),
            "{harness} did not compile"
        );
        program
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs it; what the sanitizers complain of fails the test. What it said.
pub fn run(program: &mut Command) -> String {
    let out: Output = program
        .env(
            "ASAN_OPTIONS",
            "detect_stack_use_after_return=1:alloc_dealloc_mismatch=0",
        )
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}: {said}", out.status);
    said
}
