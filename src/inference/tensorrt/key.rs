//! What a plan was made from and for. Another value of any part is another plan.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Precision;
use crate::inference::Model;

/// What stands for the GPU's name where a plan runs on every GPU of its compute capability.
const ANY: &str = "any";
/// How plans are made of models, by number: raised when the builder makes other plans of the same parts.
pub const RECIPE: u32 = 2;
const GIB: u64 = 1 << 30;

/// The part of a key that is the machine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Release and version of TensorRT: `TensorRT 10 10.3.0`.
    pub tensorrt: String,
    /// The GPU's name; `any` where its name does not matter.
    pub gpu: String,
    /// Compute capability: major, minor.
    pub capability: (i32, i32),
    /// Every module of a Jetson's family has the same name, and another number of these; 0 where it does not matter.
    pub multiprocessors: u32,
    /// Of the GPU, in whole GiB, since a kernel's update moves the rest; 0 where it does not matter.
    pub memory_gib: u64,
}

impl Machine {
    /// That GPU alone.
    pub fn of(
        tensorrt: String,
        (gpu, capability): (&str, (i32, i32)),
        (multiprocessors, memory_bytes): (u32, u64),
    ) -> Machine {
        Machine {
            tensorrt,
            gpu: gpu.to_owned(),
            capability,
            multiprocessors,
            memory_gib: (memory_bytes + GIB / 2) / GIB,
        }
    }

    /// One whose plans run on every GPU of that compute capability: TensorRT-RTX's do.
    pub fn any(tensorrt: String, capability: (i32, i32)) -> Machine {
        Machine {
            tensorrt,
            gpu: ANY.to_owned(),
            capability,
            multiprocessors: 0,
            memory_gib: 0,
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
    /// [`RECIPE`] of then.
    pub recipe: u32,
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
            recipe: RECIPE,
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
        let size = |m: &Machine| (m.multiprocessors, m.memory_gib);
        let (own, here) = (size(&self.machine), size(&wanted.machine));
        if own != here {
            let told = |(sm, gib)| format!("{sm} multiprocessors and {gib} GiB");
            return Some(format!("made for {}, here are {}", told(own), told(here)));
        }
        if self.recipe != wanted.recipe {
            return Some("made in another way, by another version of trackside".to_owned());
        }
        (self != wanted).then(|| "of another precision or batch".to_owned())
    }
}
