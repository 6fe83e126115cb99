//! `models.toml`: what models there are and how to know them.
//!
//! ```toml
//! [[model]]
//! name = "laptime"
//! version = "1"
//! file = "laptime-1.onnx"
//! sha256 = "…64 hex digits…"
//! features = 1                    # definition of its inputs; another one is refused by who feeds it
//! trained_on = "2018-2023"
//! normalisation = "in the graph"
//! batches = [1, 24]               # batch sizes that it is prepared for
//! fixture = "laptime-1.json"      # recorded inputs and outputs
//! tolerance = 1e-3                # how far an answer may be off the recorded one
//! inputs = [{ name = "x", shape = [-1, 89] }]     # -1: the batch
//! outputs = [{ name = "y", shape = [-1, 3] }]
//! [model.calibration]             # lists of numbers, by name
//! widen = [1.02, 1.01]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{EngineError, Fixture};

/// Name of the file.
pub const FILE: &str = "models.toml";
/// Most bytes of a model.
pub const MAX_MODEL_BYTES: u64 = 256 * 1024 * 1024;
/// Most batch sizes of a model: each is a plan of its own.
pub const MAX_BATCHES: usize = 8;
/// Largest batch.
pub const MAX_BATCH: usize = 4_096;
/// Most values of a tensor without its batch.
pub const MAX_VALUES: usize = 16 * 1024 * 1024;

/// All models of a folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    #[serde(skip)]
    path: PathBuf,
    #[serde(default, rename = "model")]
    pub models: Vec<Model>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub name: String,
    pub version: String,
    /// The ONNX file, beside the manifest.
    pub file: String,
    /// Of the ONNX file, lower-case hex.
    pub sha256: String,
    /// Version of the definition of its inputs.
    pub features: u32,
    /// Seasons.
    pub trained_on: String,
    /// How inputs are brought to scale: `in the graph`, or what the caller does.
    #[serde(default)]
    pub normalisation: String,
    /// Batch sizes that plans are made for, ascending.
    pub batches: Vec<usize>,
    /// Recorded inputs and outputs, beside the manifest.
    #[serde(default)]
    pub fixture: Option<String>,
    /// How far an output may be off the recorded one (relative to 1, or to the value where larger).
    #[serde(default = "tolerance")]
    pub tolerance: f64,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// Lists of numbers that whoever reads the outputs applies to them.
    #[serde(default)]
    pub calibration: BTreeMap<String, Vec<f64>>,
}

fn tolerance() -> f64 {
    1e-3
}

/// Name and shape of an input or output; −1 is the batch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    pub name: String,
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// The shape with that batch.
    pub fn with_batch(&self, batch: usize) -> Vec<usize> {
        let fixed = |d: &i64| usize::try_from(*d).unwrap_or(batch);
        self.shape.iter().map(fixed).collect()
    }

    /// The batch that a tensor of that shape has; `None` if it is not of this kind, `Some(None)` if the
    /// tensor has no batch.
    fn batch_of(&self, shape: &[usize]) -> Option<Option<usize>> {
        if shape.len() != self.shape.len() {
            return None;
        }
        let mut batch = None;
        for (have, want) in shape.iter().zip(&self.shape) {
            match usize::try_from(*want) {
                Ok(want) if want != *have => return None,
                Ok(_) => {}
                Err(_) => batch = Some(*have),
            }
        }
        Some(batch)
    }
}

impl Manifest {
    /// Reads and checks `folder/models.toml`.
    ///
    /// # Errors
    /// [`EngineError::Manifest`], with the line or the value that is wrong.
    pub fn read(folder: &Path) -> Result<Manifest, EngineError> {
        let path = folder.join(FILE);
        let wrong = |why: String| EngineError::Manifest {
            path: path.clone(),
            why,
        };
        let text = std::fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
        let mut manifest: Manifest =
            toml::from_str(&text).map_err(|e| wrong(e.to_string().trim_end().to_owned()))?;
        manifest.path.clone_from(&path);
        let mut names = BTreeSet::new();
        for model in &manifest.models {
            model.validate().map_err(wrong)?;
            if !names.insert(&model.name) {
                return Err(wrong(format!("two models are called {:?}", model.name)));
            }
        }
        Ok(manifest)
    }

    /// The model of that name.
    ///
    /// # Errors
    /// [`EngineError::Unknown`], with the names that there are.
    pub fn model(&self, name: &str) -> Result<&Model, EngineError> {
        let names: Vec<&str> = self.models.iter().map(|m| m.name.as_str()).collect();
        self.models
            .iter()
            .find(|m| m.name == name)
            .ok_or_else(|| EngineError::Unknown {
                name: name.to_owned(),
                path: self.path.clone(),
                found: names.join(", "),
            })
    }
}

impl Model {
    /// `laptime-1`.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// A list of the calibration.
    pub fn calibration(&self, name: &str) -> Option<&[f64]> {
        self.calibration.get(name).map(Vec::as_slice)
    }

    /// The bytes of its ONNX file, checked against the digest.
    ///
    /// # Errors
    /// [`EngineError::Unreadable`] or [`EngineError::Digest`].
    pub fn onnx(&self, folder: &Path) -> Result<Vec<u8>, EngineError> {
        let path = folder.join(&self.file);
        let unreadable = |source| EngineError::Unreadable {
            model: self.id(),
            path: path.clone(),
            source,
        };
        let size = std::fs::metadata(&path).map_err(unreadable)?.len();
        if size > MAX_MODEL_BYTES {
            let why = format!("{size} bytes; at most {MAX_MODEL_BYTES} are read");
            return Err(unreadable(std::io::Error::other(why)));
        }
        let bytes = std::fs::read(&path).map_err(unreadable)?;
        let found: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if found != self.sha256 {
            return Err(EngineError::Digest {
                model: self.id(),
                expected: self.sha256.clone(),
                path,
                found,
            });
        }
        Ok(bytes)
    }

    /// Its recorded inputs and outputs; `None` where the manifest names none.
    ///
    /// # Errors
    /// [`EngineError::Unreadable`].
    pub fn fixture(&self, folder: &Path) -> Result<Option<Fixture>, EngineError> {
        let Some(file) = &self.fixture else {
            return Ok(None);
        };
        let path = folder.join(file);
        Fixture::read(&path)
            .map(Some)
            .map_err(|source| EngineError::Unreadable {
                model: self.id(),
                path,
                source,
            })
    }

    /// The batch size of these inputs, if they are what the model takes.
    ///
    /// # Errors
    /// [`EngineError::Shape`], naming the tensor.
    pub fn batch_of(&self, inputs: &[super::Tensor]) -> Result<usize, EngineError> {
        let wrong = |tensor: &str, why: String| self.misfit(tensor, why);
        if inputs.len() != self.inputs.len() {
            let why = format!(
                "{} inputs given, {} wanted",
                inputs.len(),
                self.inputs.len()
            );
            return Err(wrong("", why));
        }
        let mut batch: Option<usize> = None;
        for (spec, input) in self.inputs.iter().zip(inputs) {
            let shape = &input.shape;
            let own = spec.batch_of(shape).filter(|_| spec.name == input.name);
            let Some(own) = own.filter(|_| shape.iter().product::<usize>() == input.values.len())
            else {
                let why = format!(
                    "{:?} of shape {shape:?} with {} values given, shape {:?} wanted",
                    input.name,
                    input.values.len(),
                    spec.shape
                );
                return Err(wrong(&spec.name, why));
            };
            match (own, batch) {
                (Some(a), Some(b)) if a != b => {
                    return Err(wrong(
                        &spec.name,
                        format!("a batch of {a} beside one of {b}"),
                    ));
                }
                _ => batch = own.or(batch),
            }
        }
        let batch = batch.unwrap_or(1);
        if !self.batches.contains(&batch) {
            let why = format!("a batch of {batch}; there are plans for {:?}", self.batches);
            return Err(wrong("", why));
        }
        Ok(batch)
    }

    /// What is wrong with that input or output; with no tensor's name, with all of them.
    pub fn misfit(&self, tensor: &str, why: impl Into<String>) -> EngineError {
        EngineError::Shape {
            model: self.id(),
            tensor: tensor.to_owned(),
            why: why.into(),
        }
    }

    /// Whether its inputs are those that this program computes.
    ///
    /// # Errors
    /// [`EngineError::Shape`], with both versions.
    pub fn made_for(&self, features: u32) -> Result<(), EngineError> {
        if self.features == features {
            return Ok(());
        }
        let why = format!(
            "made for features {}, this program computes {features}",
            self.features
        );
        Err(self.misfit("", why))
    }

    /// Whether these are its inputs, then its outputs, in this order: names, and shapes for a batch of one.
    ///
    /// # Errors
    /// [`EngineError::Shape`], naming the first that is not.
    pub fn has(
        &self,
        inputs: &[(&str, &[usize])],
        outputs: &[(&str, &[usize])],
    ) -> Result<(), EngineError> {
        for (specs, wanted) in [(&self.inputs, inputs), (&self.outputs, outputs)] {
            for (at, (name, shape)) in wanted.iter().enumerate() {
                let fits = |s: &TensorSpec| s.name == *name && s.with_batch(1) == *shape;
                if !specs.get(at).is_some_and(fits) {
                    let why = format!("shape {shape:?} is wanted, as number {}", at + 1);
                    return Err(self.misfit(name, why));
                }
            }
            if let Some(more) = specs.get(wanted.len()) {
                return Err(self.misfit(&more.name, "nobody knows what it is"));
            }
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        let wrong = |why: String| Err(format!("model {:?}: {why}", self.name));
        let plain = |s: &str| {
            let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            !s.is_empty() && s.bytes().all(known) && !s.starts_with('.')
        };
        let texts = [&self.name, &self.version, &self.file];
        if let Some(text) = texts.into_iter().chain(&self.fixture).find(|t| !plain(t)) {
            return wrong(format!(
                "{text:?} is not allowed: letters, digits, '-', '_' and '.' are, and no folders"
            ));
        }
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(hex) {
            return wrong("sha256 is not 64 lower-case hex digits".to_owned());
        }
        let sizes = &self.batches;
        let allowed = (1..=MAX_BATCHES).contains(&sizes.len())
            && sizes.iter().all(|b| (1..=MAX_BATCH).contains(b))
            && sizes.windows(2).all(|w| w[0] < w[1]);
        if !allowed {
            return wrong(format!(
                "batches = {sizes:?}: 1 to {MAX_BATCHES} ascending sizes of 1 to {MAX_BATCH} are allowed"
            ));
        }
        if !(self.tolerance.is_finite() && self.tolerance > 0.0) {
            return wrong(format!("tolerance = {} is not above 0", self.tolerance));
        }
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return wrong("it needs at least one input and one output".to_owned());
        }
        for spec in self.inputs.iter().chain(&self.outputs) {
            let batches = spec.shape.iter().filter(|d| **d == -1).count();
            let sound = spec.shape.iter().all(|d| *d == -1 || *d > 0);
            let values: i64 = spec.shape.iter().filter(|d| **d > 0).product();
            if batches > 1 || !sound || values > MAX_VALUES as i64 || spec.shape.len() > 8 {
                return wrong(format!(
                    "{:?} has the shape {:?}: sizes above 0, at most one −1 and {MAX_VALUES} values are allowed",
                    spec.name, spec.shape
                ));
            }
        }
        if self.calibration.values().flatten().any(|v| !v.is_finite()) {
            return wrong("calibration holds something that is not a number".to_owned());
        }
        Ok(())
    }
}
