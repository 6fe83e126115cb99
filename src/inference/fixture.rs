//! Recorded inputs and outputs of a model: JSON, made by its training when it is exported.
//!
//! `{"cases": [{"inputs": [{"name", "shape", "values"}…], "outputs": […]}…]}`

use std::path::Path;

use serde::Deserialize;

use super::Tensor;

/// Most bytes of a fixture.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Cases that a model must answer as recorded.
#[derive(Clone, Debug)]
pub struct Fixture {
    pub cases: Vec<Case>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Case {
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct File {
    cases: Vec<FileCase>,
}

#[derive(Deserialize)]
struct FileCase {
    inputs: Vec<FileTensor>,
    outputs: Vec<FileTensor>,
}

#[derive(Deserialize)]
struct FileTensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Fixture {
    /// Reads a fixture.
    ///
    /// # Errors
    /// If it cannot be read, is no fixture, or has no case.
    pub fn read(path: &Path) -> std::io::Result<Fixture> {
        let size = std::fs::metadata(path)?.len();
        if size > MAX_BYTES {
            let why = format!("{size} bytes; at most {MAX_BYTES} are read");
            return Err(std::io::Error::other(why));
        }
        let file: File = serde_json::from_slice(&std::fs::read(path)?)?;
        let tensors = |list: Vec<FileTensor>| -> Vec<Tensor> {
            list.into_iter()
                .map(|t| Tensor {
                    name: t.name,
                    shape: t.shape,
                    values: t.values,
                })
                .collect()
        };
        let cases: Vec<Case> = file
            .cases
            .into_iter()
            .map(|c| Case {
                inputs: tensors(c.inputs),
                outputs: tensors(c.outputs),
            })
            .collect();
        if cases.is_empty() || cases.iter().any(|c| c.outputs.is_empty()) {
            return Err(std::io::Error::other("a fixture needs cases with outputs"));
        }
        Ok(Fixture { cases })
    }
}
