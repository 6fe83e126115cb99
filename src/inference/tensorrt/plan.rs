//! A plan, made of an ONNX file: static shapes, one batch size, one precision, one kind of GPU.

use std::sync::Arc;
use std::time::Instant;

use tensorrt_rs::{
    BuilderConfig, Error, Library, Logger, Network, Parser, RELEASE, Typing, products_in_half,
};

use super::{Apart, BACKEND, Cache, Key, Machine, Precision, Unavailable};
use crate::inference::{EngineError, Model, TensorSpec};

/// Most memory of the GPU that one layer may work in, while it is measured and when it runs (bytes): the shipped models
/// need far less, and a Jetson's is everybody's.
const WORKSPACE: usize = 512 << 20;

/// What makes plans: TensorRT, and what it makes them for.
#[derive(Clone)]
pub struct Builder {
    pub(super) library: Library,
    pub(super) logger: Arc<Logger>,
    pub(super) machine: Machine,
    /// Who builds, if not this process.
    pub(super) apart: Option<Apart>,
}

/// What TensorRT says of a size that it does not know yet.
const UNKNOWN: i64 = -1;

/// How an engine came about.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Made {
    pub key: Key,
    /// Whether it was built, rather than read from the cache.
    pub built: bool,
    pub bytes: usize,
    pub seconds: f64,
}

impl Builder {
    /// For the GPU of this machine.
    ///
    /// # Errors
    /// [`Unavailable`], with what is missing.
    pub fn for_this_machine() -> Result<Builder, Unavailable> {
        super::Gpu::open().map(super::Gpu::builder)
    }

    /// For every GPU of that compute capability, without one.
    ///
    /// # Errors
    /// [`Unavailable`] where this release cannot, or is not here.
    pub fn for_target(capability: (i32, i32)) -> Result<Builder, Unavailable> {
        if !AHEAD_OF_TIME {
            return Err(Unavailable::Target(RELEASE));
        }
        let (library, logger) = open()?;
        Ok(Builder {
            library,
            logger,
            machine: Machine::any(version(library), capability),
            apart: None,
        })
    }

    /// What it builds for.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The plan of that model: kept, or built and kept. A file that is not believed is said and built anew; one that
    /// cannot be kept is said and used.
    ///
    /// # Errors
    /// [`EngineError::Load`] if TensorRT does not take it.
    pub fn plan(
        &self,
        model: &Model,
        onnx: &[u8],
        cache: &Cache,
        precision: Precision,
        batch: usize,
    ) -> Result<(Vec<u8>, Made), EngineError> {
        let key = Key::new(model, &self.machine, precision, batch);
        let make = || match &self.apart {
            Some(apart) => apart.build(&model.name, cache, &key),
            None => {
                let plan = self.build(model, onnx, cache, &key)?;
                if let Err(e) = cache.write(&key, &plan) {
                    tracing::warn!(folder = %cache.folder().display(), error = %e, "an engine is used, but not kept");
                }
                Ok(plan)
            }
        };
        kept_or_built(cache, &key, make).map_err(|why| EngineError::Load {
            model: model.id(),
            backend: BACKEND,
            why: format!("batch {batch}: {why}"),
        })
    }
}

/// The plan of that key, from the cache or from `build`.
fn kept_or_built(
    cache: &Cache,
    key: &Key,
    build: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<(Vec<u8>, Made), String> {
    let started = Instant::now();
    let kept = cache.read(key).unwrap_or_else(|fault| {
        tracing::warn!(file = %cache.path(key).display(), %fault, "an engine file is not used; it is built anew");
        None
    });
    let built = kept.is_none();
    let plan = match kept {
        Some(plan) => plan,
        None => build()?,
    };
    let made = Made {
        key: key.clone(),
        built,
        bytes: plan.len(),
        seconds: started.elapsed().as_secs_f64(),
    };
    Ok((plan, made))
}

/// The library, and what hears it.
pub(super) fn open() -> Result<(Library, Arc<Logger>), Unavailable> {
    let say = |e: Error| Unavailable::Library(e.to_string());
    let library = Library::open().map_err(say)?;
    Ok((library, Arc::new(Logger::new().map_err(say)?)))
}

/// How TensorRT calls itself, release and version.
pub fn version(library: Library) -> String {
    format!("{RELEASE} {}", library.version())
}

/// Whether this release makes plans for GPUs that it does not see, which then run on every GPU of that kind.
pub const AHEAD_OF_TIME: bool = cfg!(feature = "tensorrt-rtx");

/// Whether this release measures kernels while it builds, which is worth keeping.
const MEASURES: bool = !cfg!(feature = "tensorrt-rtx");

impl Builder {
    /// Makes the plan of that key.
    ///
    /// TF32 is off: fp32 means fp32. In fp16 the products alone are, in every release: left to choose, TensorRT 10 would
    /// compute logarithms and long sums in fp16, too. What this makes is [`super::key::RECIPE`].
    fn build(
        &self,
        model: &Model,
        onnx: &[u8],
        cache: &Cache,
        key: &Key,
    ) -> Result<Vec<u8>, String> {
        let say = |e: Error| e.to_string();
        let rewritten = match key.precision {
            Precision::Fp16 => Some(products_in_half(onnx).map_err(say)?),
            Precision::Fp32 => None,
        };
        let builder = tensorrt_rs::Builder::new(self.library, &*self.logger).map_err(say)?;
        let mut network = builder.network(Typing::Strong).map_err(say)?;
        let parser = Parser::new(&mut network).map_err(say)?;
        parser
            .parse(rewritten.as_deref().unwrap_or(onnx))
            .map_err(say)?;
        fix(&mut network, model, key.batch)?;
        let mut config = builder.config().map_err(say)?;
        config.tf32(false).map_err(say)?;
        config.workspace(WORKSPACE).map_err(say)?;
        // A captured graph is one chain.
        config.aux_streams(0).map_err(say)?;
        if AHEAD_OF_TIME {
            let (major, minor) = key.machine.capability;
            config
                .compute_capabilities(&[major * 10 + minor])
                .map_err(say)?;
        }
        if MEASURES {
            remember(&mut config, &cache.timings(&key.machine)).map_err(say)?;
        }
        let plan = builder.build(&mut network, &mut config).map_err(say)?;
        if MEASURES {
            match config.timing_cache() {
                Ok(timings) => cache.keep_timings(&key.machine, &timings),
                Err(e) => tracing::warn!(error = %e, "what was measured is not kept"),
            }
        }
        Ok(plan.to_vec())
    }
}

/// Starts from what was measured before, or from nothing if that is refused.
fn remember(config: &mut BuilderConfig<'_>, timings: &[u8]) -> Result<(), Error> {
    match config.set_timing_cache(timings) {
        Err(e) if !timings.is_empty() => {
            tracing::warn!(error = %e, "kept timings are not used; it is measured anew");
            config.set_timing_cache(&[])
        }
        set => set,
    }
}

/// Gives every input its shape for that batch, and compares inputs and outputs with the manifest's. An output's size may
/// be known only once the engine is built: a session looks again.
fn fix(network: &mut Network<'_>, model: &Model, batch: usize) -> Result<(), String> {
    for spec in &model.inputs {
        let shape = shape(spec, batch);
        network
            .set_input_shape(&spec.name, &shape)
            .map_err(|e| e.to_string())?;
    }
    let sides = [
        (network.inputs(), &model.inputs),
        (network.outputs(), &model.outputs),
    ];
    for (found, specs) in sides {
        let names = |t: &[tensorrt_rs::Tensor]| {
            let all: Vec<String> = t.iter().map(ToString::to_string).collect();
            all.join(", ")
        };
        let is = |spec: &TensorSpec| {
            let wanted = shape(spec, batch);
            found.iter().any(|t| {
                t.name == spec.name
                    && may_be(&t.shape, &wanted)
                    && t.holds == tensorrt_rs::DataType::F32
            })
        };
        if found.len() != specs.len() || !specs.iter().all(is) {
            return Err(format!(
                "the file has {}; the manifest says {specs:?}, for a batch of {batch}",
                names(&found)
            ));
        }
    }
    Ok(())
}

/// Whether a shape is that one, as far as it is known.
fn may_be(found: &[i64], wanted: &[i64]) -> bool {
    let pairs = found.iter().zip(wanted);
    found.len() == wanted.len() && pairs.into_iter().all(|(f, w)| f == w || *f == UNKNOWN)
}

/// For TensorRT.
pub(super) fn shape(spec: &TensorSpec, batch: usize) -> Vec<i64> {
    let fixed = spec.with_batch(batch).into_iter();
    fixed
        .map(|n| i64::try_from(n).unwrap_or(i64::MAX))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_is_not_known_yet_may_be_any() {
        assert!(may_be(&[1, 24, 24], &[1, 24, 24]));
        assert!(may_be(&[1, UNKNOWN, 24], &[1, 24, 24]));
        assert!(!may_be(&[1, UNKNOWN, 20], &[1, 24, 24]));
        assert!(!may_be(&[UNKNOWN], &[1, 24]));
    }
}
