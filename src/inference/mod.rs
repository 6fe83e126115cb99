//! Inference: trained networks, from an ONNX file to numbers.
//!
//! A folder of engines holds `models.toml` ([`Manifest`]), the ONNX files that it names, and for each a
//! fixture of recorded inputs and outputs. [`load`] checks a model against all three before anyone asks it:
//! the file's SHA-256, the names and shapes of its tensors, and its answers on the recorded inputs. So a file
//! that was swapped, truncated or built for other features is refused by name and never answers.
//!
//! | file | noun |
//! |---|---|
//! | [`manifest`] | `models.toml`, parsed and checked |
//! | [`fixture`] | recorded inputs and outputs |
//! | [`parity`](mod@parity) | how far two engines' answers are apart |
//! | [`tract`] | the engine on the CPU |
//! | [`trees`] | boosted trees in a graph, walked as trees |
//! | [`tensorrt`] | the engine on an NVIDIA GPU |
//!
//! **Invariant:** it knows tensors, not racing. A model that fails to load or to answer is an error that
//! names it; it never ends the process.

pub mod fixture;
mod heap;
pub mod manifest;
pub mod parity;
pub mod tensorrt;
pub mod tract;
pub mod trees;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use fixture::Fixture;
pub use manifest::{Manifest, Model, TensorSpec};
pub use parity::{Parity, parity, runs};

/// A named tensor: values in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Tensor {
    /// A tensor of that shape.
    pub fn new(name: &str, shape: &[usize], values: Vec<f32>) -> Tensor {
        Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values,
        }
    }
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{path}: {why}")]
    Manifest { path: PathBuf, why: String },
    #[error("no model is called {name:?} in {path}; there are: {found}")]
    Unknown {
        name: String,
        path: PathBuf,
        found: String,
    },
    #[error("model {model}: {path} cannot be read: {source}")]
    Unreadable {
        model: String,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "model {model}: {path} has the SHA-256 {found}, models.toml says {expected}; the file was changed \
         or cut short: bring both again, together"
    )]
    Digest {
        model: String,
        path: PathBuf,
        expected: String,
        found: String,
    },
    #[error("model {model} does not load on {backend}: {why}")]
    Load {
        model: String,
        backend: &'static str,
        why: String,
    },
    #[error("model {model}: input or output {tensor:?}: {why}")]
    Shape {
        model: String,
        tensor: String,
        why: String,
    },
    #[error("model {model} failed on {backend}: {why}")]
    Run {
        model: String,
        backend: &'static str,
        why: String,
    },
    #[error(
        "model {model} on {backend}: output {tensor:?} is off its recorded answer by {off:e} (at most \
         {tolerance:e}); it is not used"
    )]
    Parity {
        model: String,
        backend: &'static str,
        tensor: String,
        off: f64,
        tolerance: f64,
    },
}

/// A model that is ready to answer. Shapes are fixed but for the batch, which is one of those that the
/// manifest lists.
pub trait Engine: Send + Sync {
    /// What computes it: `tract`, `tensorrt`.
    fn backend(&self) -> &'static str;

    /// What it is, by its manifest.
    fn model(&self) -> &Model;

    /// The outputs, in the order of the manifest. `inputs` are in the order of the manifest, all with the same
    /// batch size, which the model has.
    ///
    /// # Errors
    /// [`EngineError`] if names, shapes or batch are not the model's, or it fails.
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError>;
}

/// Reads the manifest in `folder` and loads the model of that name on the CPU, checked against its digest,
/// its shapes and its recorded answers.
///
/// # Errors
/// [`EngineError`], naming the model and what is wrong with it.
pub fn load(folder: &Path, name: &str) -> Result<Box<dyn Engine>, EngineError> {
    load_batches(folder, name, &[])
}

/// As [`load`], prepared for these of its batch sizes alone; for all of them where none is named, or it has none
/// of these. Each costs its share of the time and the memory.
///
/// # Errors
/// As [`load`].
pub fn load_batches(
    folder: &Path,
    name: &str,
    batches: &[usize],
) -> Result<Box<dyn Engine>, EngineError> {
    let manifest = Manifest::read(folder)?;
    let whole = manifest.model(name)?;
    let onnx = whole.onnx(folder)?;
    let mut model = whole.clone();
    if model.batches.iter().any(|b| batches.contains(b)) {
        model.batches.retain(|b| batches.contains(b));
    }
    let engine: Box<dyn Engine> = Box::new(tract::Tract::load(&model, &onnx)?);
    let left_out = |case: &fixture::Case| {
        whole.batch_of(&case.inputs).is_ok() && model.batch_of(&case.inputs).is_err()
    };
    check_but(engine.as_ref(), folder, left_out)?;
    Ok(engine)
}

/// Whether the engine gives its recorded answers, for the batch sizes that the fixture has.
///
/// # Errors
/// [`EngineError::Parity`] if an answer is off by more than the model's tolerance; others if it fails.
pub fn check(engine: &dyn Engine, folder: &Path) -> Result<(), EngineError> {
    check_but(engine, folder, |_| false)
}

fn check_but(
    engine: &dyn Engine,
    folder: &Path,
    left_out: impl Fn(&fixture::Case) -> bool,
) -> Result<(), EngineError> {
    let model = engine.model();
    let Some(fixture) = model.fixture(folder)? else {
        return Ok(());
    };
    for case in fixture.cases.iter().filter(|c| !left_out(c)) {
        let answers = engine.run(&case.inputs)?;
        for expected in &case.outputs {
            let answer = answers.iter().find(|a| a.name == expected.name);
            let off = answer.map_or(f64::INFINITY, |a| distance(a, expected));
            if off > model.tolerance {
                return Err(EngineError::Parity {
                    model: model.id(),
                    backend: engine.backend(),
                    tensor: expected.name.clone(),
                    off,
                    tolerance: model.tolerance,
                });
            }
        }
    }
    Ok(())
}

/// The largest difference, relative to 1 or to the value where that is larger; infinite if shapes differ or
/// anything is not a number.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    if a.shape != b.shape || a.values.len() != b.values.len() {
        return f64::INFINITY;
    }
    let pairs = a.values.iter().zip(&b.values);
    pairs.fold(0.0, |worst, (x, y)| {
        let off = f64::from((x - y).abs()) / f64::from(y.abs()).max(1.0);
        if off.is_nan() {
            f64::INFINITY
        } else {
            worst.max(off)
        }
    })
}
