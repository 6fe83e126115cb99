//! What a plan was made from and for. Another value of any part is another plan.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Precision;
use crate::inference::Model;

/// What stands for the GPU's name where a plan runs on every GPU of its compute capability.
const ANY: &str = "any";

/// The part of a key that is the machine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Release and version of TensorRT: `TensorRT 10 10.3.0`.
    pub tensorrt: String,
    /// The GPU's name; `any` where its name does not matter.
    pub gpu: String,
    /// Compute capability: major, minor.
    pub capability: (i32, i32),
}

impl Machine {
    /// One whose plans run on every GPU of that compute capability: TensorRT-RTX's do.
    pub fn any(tensorrt: String, capability: (i32, i32)) -> Machine {
        Machine {
            tensorrt,
            gpu: ANY.to_owned(),
            capability,
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = self.capability;
        let gpu = if self.gpu == ANY {
            "any GPU"
        } else {
            &self.gpu
        };
        write!(f, "{}, {gpu} of sm_{major}{minor}", self.tensorrt)
    }
}

/// What a plan was made from and for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Name and version of the model: `laptime-1`.
    pub model: String,
    /// Of its ONNX file.
    pub onnx_sha256: String,
    pub machine: Machine,
    pub precision: Precision,
    /// Rows of a run: the plan's shapes are fixed.
    pub batch: usize,
}

impl Key {
    /// Of that model on that machine.
    pub fn new(model: &Model, machine: &Machine, precision: Precision, batch: usize) -> Key {
        Key {
            model: model.id(),
            onnx_sha256: model.sha256.clone(),
            machine: machine.clone(),
            precision,
            batch,
        }
    }

    /// Name of its file: what a person wants to see, and a digest of all parts.
    pub fn file(&self) -> String {
        let digest = Sha256::digest(self.text());
        let short: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        format!(
            "{}-x{}-{}-{short}.engine",
            self.model,
            self.batch,
            self.precision.name()
        )
    }

    /// As it stands in the file.
    pub fn text(&self) -> String {
        // Strings and numbers: writing them as JSON cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Why a plan of this key is not the one that is wanted; `None` if it is.
    pub fn differs(&self, wanted: &Key) -> Option<String> {
        let parts = [
            (&self.model, &wanted.model, "model"),
            (&self.onnx_sha256, &wanted.onnx_sha256, "ONNX file"),
            (&self.machine.tensorrt, &wanted.machine.tensorrt, "TensorRT"),
            (&self.machine.gpu, &wanted.machine.gpu, "GPU"),
        ];
        let other = parts.iter().find(|(own, wanted, _)| own != wanted);
        if let Some((own, wanted, what)) = other {
            return Some(format!("made for the {what} {own}, here it is {wanted}"));
        }
        let (own, here) = (self.machine.capability, wanted.machine.capability);
        if own != here {
            let sm = |(major, minor)| format!("sm_{major}{minor}");
            return Some(format!("made for {}, here it is {}", sm(own), sm(here)));
        }
        (self != wanted).then(|| "of another precision or batch".to_owned())
    }
}
