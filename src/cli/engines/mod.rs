//! `trackside engines ls|build|verify`: the models, what computes them here, and the engines built for this machine.

#[cfg_attr(not(feature = "tensorrt"), expect(dead_code))]
mod swaps;
mod timing;
mod together;
mod verify;

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde::Serialize;

#[cfg(feature = "tensorrt")]
use super::say::note;
use super::say::say;
use crate::config::Config;
use crate::engines::{self, Chosen};
use crate::inference::tensorrt::{self, Cache, Cached, Key, Machine, Precision, Unavailable};
use crate::inference::{self, Manifest, Model};

/// The models, what computes them here, and the engines built for this machine.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The models of the folder, what can compute them, and the engines that are kept.
    Ls(Common),
    /// Build TensorRT engines for this machine, or for another, and keep them.
    Build(Build),
    /// Load each model on each backend and compare its answers with the recorded ones.
    Verify(verify::Args),
}

#[derive(clap::Args)]
struct Common {
    /// The configuration file, which names both folders; without it, defaults and `TRACKSIDE__…` variables.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the models.
    #[arg(long, value_name = "DIR")]
    engines: Option<Chosen>,
    /// Folder of the engines that are kept; without it, `engines` of the data directory.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Only this model.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Write everything as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Build {
    #[command(flatten)]
    common: Common,
    /// What products are computed in: fp32 or fp16.
    #[arg(long, default_value = "fp32")]
    precision: Precision,
    /// Numbers of cars, such as 1,20,22,24; without it, those of the manifest.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    batches: Option<Vec<usize>>,
    /// A compute capability, such as sm_89, instead of this machine's GPU (TensorRT-RTX only).
    #[arg(long, value_name = "sm_NN", value_parser = target)]
    target: Option<(i32, i32)>,
    /// Build even what is kept already.
    #[arg(long)]
    again: bool,
    /// Let every other process go first, and end with the one that started this: as a daemon builds.
    #[arg(long, hide = true)]
    give_way: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Ls(common) => ls(common),
        What::Build(args) => build(args),
        What::Verify(args) => verify::run(args),
    }
}

impl Common {
    /// The folder of the models, those that are meant, and the engines that are kept.
    fn open(&self) -> anyhow::Result<(PathBuf, Vec<Model>, Cache)> {
        let config = Config::load(self.config.as_deref())?;
        let chosen = self.engines.clone().unwrap_or(config.engines.dir);
        let folder = chosen
            .folder()
            .context("there is no folder of models; name one with --engines DIR")?;
        let manifest = Manifest::read(&folder)?;
        let models = match &self.model {
            Some(name) => vec![manifest.model(name)?.clone()],
            None => manifest.models,
        };
        let cache = self.cache.clone();
        let cache = cache.unwrap_or_else(|| engines::cache(&config.data_dir));
        Ok((folder, models, Cache::new(&cache)))
    }
}

/// `sm_89`.
fn target(text: &str) -> Result<(i32, i32), String> {
    let number = text.strip_prefix("sm_").and_then(|n| n.parse::<i32>().ok());
    match number {
        Some(n @ 10..=999) => Ok((n / 10, n % 10)),
        _ => Err("a compute capability is written as sm_89".to_owned()),
    }
}

/// What TensorRT can do here.
#[derive(Serialize)]
struct Backend {
    available: bool,
    /// Release, GPU and compute capability; or what is missing.
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

impl Backend {
    fn of(machine: &Result<Machine, Unavailable>) -> Backend {
        match machine {
            Ok(machine) => Backend {
                available: true,
                what: machine.to_string(),
                remedy: None,
            },
            Err(e) => Backend {
                available: false,
                what: e.to_string(),
                remedy: Some(e.remedy()),
            },
        }
    }

    fn say(&self) {
        say!("tract      on the CPU");
        say!("tensorrt   {}", self.what);
        if let Some(remedy) = self.remedy {
            say!("           → {remedy}");
        }
    }
}

/// A model of the folder.
#[derive(Serialize)]
struct Listed {
    model: String,
    file: String,
    sha256: String,
    bytes: Option<u64>,
    batches: Vec<usize>,
    trained_on: String,
    backends: Vec<&'static str>,
}

/// An engine file.
#[derive(Serialize)]
struct Kept {
    file: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
    /// Whether this machine would use it; nothing where it is not known what it is.
    fits: Option<bool>,
    /// Why not, or why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

fn ls(args: &Common) -> anyhow::Result<()> {
    let (folder, models, cache) = args.open()?;
    let machine = tensorrt::machine();
    let backend = Backend::of(&machine);
    let backends = match backend.available {
        true => vec![inference::tract::BACKEND, tensorrt::BACKEND],
        false => vec![inference::tract::BACKEND],
    };
    let listed: Vec<Listed> = models
        .iter()
        .map(|m| Listed {
            model: m.id(),
            file: m.file.clone(),
            sha256: m.sha256.clone(),
            bytes: std::fs::metadata(folder.join(&m.file))
                .ok()
                .map(|m| m.len()),
            batches: m.batches.clone(),
            trained_on: m.trained_on.clone(),
            backends: backends.clone(),
        })
        .collect();
    let kept: Vec<Kept> = cache
        .list()
        .with_context(|| format!("{} cannot be read", cache.folder().display()))?
        .into_iter()
        .map(|c| Kept::of(c, &models, &machine))
        .collect();
    if args.json {
        let all = serde_json::json!({
            "folder": folder, "cache": cache.folder(), "tensorrt": backend, "models": listed, "engines": kept,
        });
        say!("{all:#}");
        return Ok(());
    }
    say!("models in {}", folder.display());
    for m in &listed {
        let size = m.bytes.map_or("missing".to_owned(), |b| {
            format!("{:.1} MB", b as f64 / 1e6)
        });
        let (digest, trained) = (&m.sha256[..12], &m.trained_on);
        say!(
            "  {:<16} {digest}  {size:>9}  cars {:?}  trained on {trained}",
            m.model,
            m.batches
        );
    }
    backend.say();
    say!("engines in {}: {}", cache.folder().display(), kept.len());
    for e in &kept {
        let fits = match (e.fits, &e.why) {
            (Some(true), _) => "fits".to_owned(),
            (_, why) => why.clone().unwrap_or_default(),
        };
        say!("  {:<48} {:>8.1} MB  {fits}", e.file, e.bytes as f64 / 1e6);
    }
    Ok(())
}

impl Kept {
    fn of(cached: Cached, models: &[Model], machine: &Result<Machine, Unavailable>) -> Kept {
        let name = cached
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let (file, bytes) = (name.into_owned(), cached.bytes);
        let key = match cached.key {
            Ok(key) => key,
            Err(fault) => {
                return Kept {
                    file,
                    bytes,
                    key: None,
                    fits: Some(false),
                    why: Some(fault.to_string()),
                };
            }
        };
        let model = models.iter().find(|m| m.id() == key.model);
        let (fits, why) = match (model, machine) {
            (None, _) => (Some(false), Some("no model of the folder is it".to_owned())),
            (Some(_), Err(e)) => (None, Some(format!("not known here: {e}"))),
            (Some(model), Ok(machine)) => {
                let wanted = Key::new(model, machine, key.precision, key.batch);
                let why = key.differs(&wanted);
                (Some(why.is_none()), why)
            }
        };
        Kept {
            file,
            bytes,
            key: Some(key),
            fits,
            why,
        }
    }
}

#[cfg(not(feature = "tensorrt"))]
fn build(args: &Build) -> anyhow::Result<()> {
    // A wrong folder is told first.
    args.common.open()?;
    let (why, _) = (
        Unavailable::NotBuilt,
        (
            args.precision,
            &args.batches,
            args.target,
            args.again,
            args.give_way,
        ),
    );
    anyhow::bail!("{why}; {}", why.remedy())
}

#[cfg(feature = "tensorrt")]
fn build(args: &Build) -> anyhow::Result<()> {
    use crate::inference::tensorrt::{Builder, Made, give_way};
    if args.give_way {
        give_way();
    }
    let (folder, models, cache) = args.common.open()?;
    let builder = match args.target {
        Some(capability) => Builder::for_target(capability),
        None => Builder::for_this_machine(),
    };
    let builder = builder.map_err(|e| anyhow::anyhow!("{e}; {}", e.remedy()))?;
    note!("building for {}", builder.machine());
    let mut made: Vec<Made> = Vec::new();
    for model in &models {
        let onnx = model.onnx(&folder)?;
        // One that sees all cars at once has one shape, however many there are.
        let chosen = args.batches.as_ref().filter(|_| model.batches != [1]);
        for batch in chosen.unwrap_or(&model.batches) {
            if args.again {
                let key = Key::new(model, builder.machine(), args.precision, *batch);
                cache.remove(&key)?;
            }
            let (_, one) = builder.plan(model, &onnx, &cache, args.precision, *batch)?;
            let how = if one.built { "built" } else { "kept already" };
            note!(
                "{} for {batch} in {}: {how}, {:.1} MB, {:.1} s",
                model.id(),
                args.precision.name(),
                one.bytes as f64 / 1e6,
                one.seconds
            );
            made.push(one);
        }
    }
    if args.common.json {
        say!(
            "{:#}",
            serde_json::json!({ "cache": cache.folder(), "engines": made })
        );
    } else {
        say!("{} engines in {}", made.len(), cache.folder().display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_compute_capability() {
        assert_eq!(target("sm_87"), Ok((8, 7)));
        assert_eq!(target("sm_120"), Ok((12, 0)));
        for wrong in ["87", "sm_", "sm_8", "orin", "sm_-87"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
