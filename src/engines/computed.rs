//! What computes the models, where it is to be chosen: to see what a precision costs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::Chosen;
use crate::inference::tensorrt::{self, Precision};
use crate::inference::{Engine, EngineError, tract};
use crate::predict::Models;

/// What computes the models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Computed {
    /// The CPU, in fp32.
    #[default]
    Cpu,
    /// The CPU, in fp32, with everything that goes into and comes out of a matrix product rounded to fp16: what a GPU
    /// computes in fp16, but for the order of its sums.
    CpuFp16,
    /// TensorRT on this machine's GPU.
    TensorRt(Precision),
}

impl FromStr for Computed {
    type Err = String;

    fn from_str(text: &str) -> Result<Computed, String> {
        match text {
            "cpu" => Ok(Computed::Cpu),
            "cpu-fp16" => Ok(Computed::CpuFp16),
            "tensorrt" => Ok(Computed::TensorRt(Precision::Fp32)),
            "tensorrt-fp16" => Ok(Computed::TensorRt(Precision::Fp16)),
            _ => Err("cpu, cpu-fp16, tensorrt and tensorrt-fp16 are allowed".to_owned()),
        }
    }
}

impl fmt::Display for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Computed::Cpu => "cpu",
            Computed::CpuFp16 => "cpu-fp16",
            Computed::TensorRt(Precision::Fp32) => "tensorrt",
            Computed::TensorRt(Precision::Fp16) => "tensorrt-fp16",
        })
    }
}

impl Computed {
    /// What its engines call themselves.
    pub fn backend(self) -> &'static str {
        match self {
            Computed::Cpu | Computed::CpuFp16 => tract::BACKEND,
            Computed::TensorRt(_) => tensorrt::BACKEND,
        }
    }

    /// Whether it computes that engine's answers still: one whose GPU has failed is answered for by the CPU.
    ///
    /// # Errors
    /// [`EngineError::Run`] if it does not.
    pub fn answers_for(self, engine: &dyn Engine) -> Result<(), EngineError> {
        match engine.backend() {
            own if own == self.backend() => Ok(()),
            other => Err(EngineError::Run {
                model: engine.model().id(),
                backend: self.backend(),
                why: format!("{other} has answered instead: what was computed is not {self}'s"),
            }),
        }
    }
}

impl Chosen {
    /// Loads the models, on what is to compute them; nothing else takes its place.
    ///
    /// # Errors
    /// If a model cannot be used, or not there.
    pub fn load_on(&self, computed: Computed) -> Result<Models, EngineError> {
        let models = self.load()?;
        match self.folder() {
            Some(folder) => {
                let mover = Mover::new(computed, &folder)?;
                models.on(|engine| mover.take(engine))
            }
            None => Ok(models),
        }
    }
}

/// Brings engines to what is to compute them.
pub struct Mover {
    computed: Computed,
    folder: PathBuf,
    #[cfg(feature = "tensorrt")]
    gpu: Option<(tensorrt::Gpu, tempfile::TempDir)>,
}

impl Mover {
    /// For models of that folder.
    ///
    /// # Errors
    /// [`EngineError::Load`] if it is not here.
    pub fn new(computed: Computed, folder: &Path) -> Result<Mover, EngineError> {
        #[cfg(feature = "tensorrt")]
        let gpu = match computed {
            Computed::TensorRt(_) => {
                let gpu = tensorrt::Gpu::open();
                let gpu = gpu.map_err(|e| absent(format!("{e}; {}", e.remedy())))?;
                // Nobody else's to write to.
                let cache = tempfile::tempdir().map_err(|e| absent(e.to_string()))?;
                Some((gpu, cache))
            }
            _ => None,
        };
        #[cfg(not(feature = "tensorrt"))]
        if let Computed::TensorRt(_) = computed {
            let none = tensorrt::Unavailable::NotBuilt;
            return Err(absent(format!("{none}; {}", none.remedy())));
        }
        Ok(Mover {
            computed,
            folder: folder.to_owned(),
            #[cfg(feature = "tensorrt")]
            gpu,
        })
    }

    /// The same model on what is to compute it; `engine` is the CPU's.
    ///
    /// # Errors
    /// If it does not take the model.
    pub fn take(&self, engine: &Arc<dyn Engine>) -> Result<Arc<dyn Engine>, EngineError> {
        match self.computed {
            Computed::Cpu => Ok(Arc::clone(engine)),
            Computed::CpuFp16 => {
                let model = engine.model();
                let onnx = model.onnx(&self.folder)?;
                let rounded = onnx_half::products_as_in_half(&onnx);
                let rounded = rounded.map_err(|e| EngineError::Load {
                    model: model.id(),
                    backend: tract::BACKEND,
                    why: e.to_string(),
                })?;
                Ok(Arc::new(tract::Tract::load(model, &rounded)?))
            }
            #[cfg(feature = "tensorrt")]
            Computed::TensorRt(precision) => {
                let (gpu, cache) = self.gpu.as_ref().ok_or_else(|| absent(String::new()))?;
                let (cpu, cache) = (Arc::clone(engine), tensorrt::Cache::new(cache.path()));
                let engine = tensorrt::TensorRt::load(gpu, cpu, &self.folder, &cache, precision)?;
                Ok(Arc::new(engine))
            }
            #[cfg(not(feature = "tensorrt"))]
            Computed::TensorRt(_) => Err(absent(tensorrt::Unavailable::NotBuilt.to_string())),
        }
    }
}

fn absent(why: String) -> EngineError {
    EngineError::Load {
        model: "of the folder".to_owned(),
        backend: tensorrt::BACKEND,
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::parity;

    /// Small, but not nothing: every shipped model, on its recorded inputs.
    #[test]
    fn fp16_moves_answers_a_little() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
        let chosen = Chosen::Folder(folder.clone());
        let models = chosen.load_on(Computed::CpuFp16).unwrap();
        assert_eq!(models.engines().count(), 3);
        let plain = chosen.load().unwrap();
        for (engine, plain) in models.engines().zip(plain.engines()) {
            let (model, mut worst) = (plain.model(), 0.0_f64);
            let fixture = model.fixture(&folder).unwrap().unwrap();
            for inputs in fixture.at_batch(model, model.batches[0]) {
                let off = parity(&engine.run(&inputs).unwrap(), &plain.run(&inputs).unwrap());
                worst = off.iter().map(|p| p.max).fold(worst, f64::max);
            }
            println!("{}: off by {worst:.1e}", model.id());
            let allowed = Precision::Fp16.tolerance(model);
            assert!(worst > 1e-6 && worst < allowed, "{}: {worst}", model.id());
        }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_no_cpu() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
        let computed = "tensorrt".parse().unwrap();
        match Chosen::Folder(folder).load_on(computed) {
            Ok(models) => assert!(models.engines().all(|e| e.backend() == "tensorrt")),
            Err(e) => assert!(e.to_string().contains("tensorrt"), "{e}"),
        }
        assert!("gpu".parse::<Computed>().is_err());
    }

    #[test]
    fn who_answers_is_who_was_asked() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
        let engine = crate::inference::load_batches(&folder, "pit", &[1]).unwrap();
        for name in ["cpu", "cpu-fp16", "tensorrt", "tensorrt-fp16"] {
            let computed: Computed = name.parse().unwrap();
            assert_eq!(computed.to_string(), name);
            let answered = computed.answers_for(&*engine);
            assert_eq!(answered.is_ok(), computed.backend() == "tract", "{name}");
            if let Err(e) = answered {
                let e = e.to_string();
                assert!(
                    e.contains("pit-1") && e.contains("tract has answered"),
                    "{e}"
                );
            }
        }
    }
}
