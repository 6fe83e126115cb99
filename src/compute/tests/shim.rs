//! Launches on the host: `kernels/host/shim.cpp`, built once with g++ and fed over a pipe.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::compute::Launch;
use crate::compute::launch::{Arg, Data};

/// The order in which a block's threads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    FirstComeFirst,
    LastComeFirst,
    Random,
}

/// The program, built from the sources as they are now.
fn program() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &BUILT
        .get_or_init(|| {
            let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
            let dir = tempfile::tempdir().unwrap();
            let program = dir.path().join("shim");
            let built = Command::new("g++")
                .args([
                    "-std=c++17",
                    "-O1",
                    "-ffp-contract=off",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                ])
                // An address that is not on its type's boundary ends the run, as on a device.
                .args(["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"])
                .args(["-Wno-unknown-pragmas", "-I"])
                .arg(&kernels)
                .arg(kernels.join("host/shim.cpp"))
                .arg("-o")
                .arg(&program)
                .status()
                .expect("g++ builds the kernels for the host; install build-essential");
            assert!(built.success(), "the kernels do not compile for the host");
            (dir, program)
        })
        .1
}

/// Runs a launch on the host, and writes its outputs where it says.
///
/// # Errors
/// What the shim said, if the kernel misbehaved.
pub fn run(launch: &mut Launch<'_>, schedule: Schedule, seed: u64) -> Result<(), String> {
    let request = request(launch, schedule, seed);
    let mut child = Command::new(program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || stdin.write_all(&request));
    let mut answer = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut answer)
        .unwrap();
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    let status = child.wait().unwrap();
    let fed = feeder.join().unwrap();
    if !status.success() {
        return Err(format!("{}: {status}: {said}", launch.step.kernel.name()));
    }
    fed.unwrap();
    let mut rest = &answer[..];
    for data in &mut launch.data {
        if let Data::Out(bytes) | Data::InOut(bytes) = data {
            let (own, after) = rest.split_at(bytes.len());
            bytes.copy_from_slice(own);
            rest = after;
        }
    }
    assert!(rest.is_empty());
    Ok(())
}

fn request(launch: &Launch<'_>, schedule: Schedule, seed: u64) -> Vec<u8> {
    let step = &launch.step;
    let mut out = b"TSHM".to_vec();
    let name = step.kernel.name();
    out.extend((name.len() as u32).to_le_bytes());
    out.extend(name.as_bytes());
    for word in [step.grid, step.block, step.shared, schedule as u32] {
        out.extend(word.to_le_bytes());
    }
    out.extend(seed.to_le_bytes());
    out.extend((step.args.len() as u32).to_le_bytes());
    let mut argument = |kind: u32, bytes: &[u8], length: usize| {
        out.extend(kind.to_le_bytes());
        out.extend((length as u64).to_le_bytes());
        out.extend(bytes);
    };
    for arg in &step.args {
        match *arg {
            Arg::Array(i) => match &launch.data[i] {
                Data::In(bytes) => argument(0, bytes, bytes.len()),
                Data::Out(bytes) => argument(1, &[], bytes.len()),
                Data::InOut(bytes) => argument(2, bytes, bytes.len()),
            },
            Arg::U32(v) => argument(3, &v.to_le_bytes(), 4),
            Arg::I32(v) => argument(3, &v.to_le_bytes(), 4),
            Arg::F32(v) => argument(3, &v.to_le_bytes(), 4),
        }
    }
    out
}
