//! What makes other bindings crash does not compile with this one.
//!
//! Each file in `tests/misuse` says in its first line which error the compiler must give, or that it compiles;
//! the latter show that the others fail for that reason and no other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// This crate, compiled: the newest of what cargo has left beside this test.
fn library() -> PathBuf {
    let folder = env::current_exe().unwrap().parent().unwrap().to_owned();
    let is_ours = |name: &str| name.starts_with("libtensorrt_rs-") && name.ends_with(".rlib");
    fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(is_ours))
        .max_by_key(|p| fs::metadata(p).unwrap().modified().unwrap())
        .expect("the library, beside this test")
}

/// The codes of the errors that the compiler gives.
fn errors(file: &Path, library: &Path, out_dir: &Path) -> Vec<String> {
    let out = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--emit=metadata", "--error-format=short"])
        // A folder of its own: what compiles leaves a file, which takes the place of whatever is named.
        .arg("--out-dir")
        .arg(out_dir)
        .arg("-L")
        .arg(format!(
            "dependency={}",
            library.parent().unwrap().display()
        ))
        .arg(format!("--extern=tensorrt_rs={}", library.display()))
        .arg(file)
        .output()
        .expect("rustc");
    let said = String::from_utf8_lossy(&out.stderr);
    let mut codes: Vec<String> = said
        .lines()
        .filter_map(|line| {
            line.split_once("error[")?
                .1
                .split_once(']')
                .map(|(code, _)| code.to_owned())
        })
        .collect();
    // One mistake may be seen in several places.
    codes.dedup();
    assert_eq!(
        out.status.success(),
        codes.is_empty(),
        "{}: {said}",
        file.display()
    );
    codes
}

#[test]
fn every_misuse_is_a_compile_error() {
    let library = library();
    let out_dir = env::temp_dir().join(format!("tensorrt-rs-misuse-{}", std::process::id()));
    fs::create_dir_all(&out_dir).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 15, "{} files", files.len());
    for file in files {
        let wanted = fs::read_to_string(&file).unwrap();
        let wanted = wanted.lines().next().unwrap().trim_start_matches("//! ");
        let found = errors(&file, &library, &out_dir);
        match wanted {
            "compiles" => assert!(found.is_empty(), "{}: {found:?}", file.display()),
            code => assert_eq!(found, [code], "{}", file.display()),
        }
    }
    fs::remove_dir_all(&out_dir).unwrap();
}
