//! The folder of models: where it lies, loading what is in it, and a new version while a race runs.
//!
//! Without a word, models are looked for beside the program, in `../share/trackside/engines` of it, and in
//! `engines/` of the working directory; `none` is the statistical floor alone. A daemon loads them beside its
//! start, and looks again every [`LOOK_AGAIN`]: a folder whose manifest has changed is loaded beside the one in
//! use (digests, shapes and recorded answers are checked), and handed to the fold, which takes it between two
//! records. A folder that cannot be used changes nothing and is named in the log.
//!
//! Where TensorRT and a GPU are, models are given to them in the background (`accelerate`) and come the same way.
//!
//! **Invariant:** no model is no error; a broken model never replaces a working one.

#[cfg(feature = "tensorrt")]
pub mod accelerate;

pub mod computed;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::inference::tensorrt::Precision;
use crate::inference::{Engine, EngineError, manifest};
use crate::predict::Models;

/// How often a daemon looks for a new version.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Which models are to be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Chosen {
    /// What lies where models lie, if anything does.
    #[default]
    Found,
    /// The floor alone.
    None,
    Folder(PathBuf),
}

/// Whether models are given to a GPU where TensorRT is, and what their products are computed in there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    Off,
    #[default]
    Fp32,
    Fp16,
}

impl Acceleration {
    pub fn precision(self) -> Option<Precision> {
        match self {
            Acceleration::Off => None,
            Acceleration::Fp32 => Some(Precision::Fp32),
            Acceleration::Fp16 => Some(Precision::Fp16),
        }
    }
}

impl FromStr for Chosen {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Chosen, Self::Err> {
        Ok(match text {
            "" => Chosen::Found,
            "none" => Chosen::None,
            folder => Chosen::Folder(PathBuf::from(folder)),
        })
    }
}

impl<'de> Deserialize<'de> for Chosen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Chosen, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Chosen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Chosen::Found => serializer.serialize_str(""),
            Chosen::None => serializer.serialize_str("none"),
            Chosen::Folder(folder) => folder.serialize(serializer),
        }
    }
}

impl Chosen {
    /// The folder that is meant; `None` for the floor alone.
    pub fn folder(&self) -> Option<PathBuf> {
        match self {
            Chosen::None => None,
            Chosen::Folder(folder) => Some(folder.clone()),
            Chosen::Found => {
                let program = std::env::current_exe().ok();
                let beside = program.as_deref().and_then(Path::parent);
                let places = [
                    beside.map(|d| d.join("engines")),
                    beside.map(|d| d.join("../share/trackside/engines")),
                    // Of a build that lies in target/release of its sources.
                    beside.map(|d| d.join("../../engines")),
                    Some(PathBuf::from("engines")),
                ];
                let has = |d: &PathBuf| d.join(manifest::FILE).is_file();
                places.into_iter().flatten().find(has)
            }
        }
    }

    /// Loads them.
    ///
    /// # Errors
    /// If a model is there and cannot be used: it is named.
    pub fn load(&self) -> Result<Models, EngineError> {
        self.folder()
            .map_or_else(|| Ok(Models::none()), |folder| Models::load(&folder))
    }
}

/// Where engines that were built for this machine are kept.
pub fn cache(data_dir: &Path) -> PathBuf {
    data_dir.join("engines")
}

/// A new version on its way to the fold: the latest counts.
#[derive(Clone, Default)]
pub struct Slot {
    waiting: Arc<Mutex<Option<Models>>>,
    /// Whether the first look is over.
    settled: Arc<watch::Sender<bool>>,
}

impl Slot {
    /// Puts a version there.
    pub fn put(&self, models: Models) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(models);
    }

    /// Takes it away, if there is one.
    pub fn take(&self) -> Option<Models> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.take()
    }

    /// Waits until the first models are there, or are known not to come.
    pub async fn settled(&self) {
        // An error would be a sender that is gone: it is here.
        let _ = self.settled.subscribe().wait_for(|s| *s).await;
    }
}

/// Watches the folder for a new version of the models that are in use.
pub struct Watch {
    chosen: Chosen,
    current: Models,
    /// Engines that have been handed over, for as long as somebody may use them: whoever lets go of one last takes it
    /// apart, which an engine on a GPU makes long, and which must not be the fold.
    handed_over: Vec<Arc<dyn Engine>>,
    /// Date and size of the manifest that was looked at last.
    looked_at: Option<(SystemTime, u64)>,
    slot: Slot,
    #[cfg(feature = "tensorrt")]
    accelerator: Option<Accelerated>,
}

/// What gives the models to a GPU, and what it gave.
#[cfg(feature = "tensorrt")]
struct Accelerated {
    accelerator: accelerate::Accelerator,
    in_use: Models,
}

impl Watch {
    /// Begins with no models: the first look loads what `chosen` names.
    pub fn new(chosen: Chosen, slot: Slot) -> Watch {
        Watch {
            chosen,
            current: Models::none(),
            handed_over: Vec::new(),
            looked_at: None,
            slot,
            #[cfg(feature = "tensorrt")]
            accelerator: None,
        }
    }

    /// Gives the models to a GPU, too.
    #[cfg(feature = "tensorrt")]
    #[must_use]
    pub fn with_accelerator(mut self, accelerator: accelerate::Accelerator) -> Watch {
        let in_use = self.current.clone();
        self.accelerator = Some(Accelerated {
            accelerator,
            in_use,
        });
        self
    }

    /// Gives the models that are in use to a GPU, if they are not there; whether they were handed over. It may take
    /// minutes, where engines are to be built.
    #[cfg(feature = "tensorrt")]
    pub fn accelerate(&mut self) -> bool {
        let (Some(own), Some(folder)) = (&mut self.accelerator, self.chosen.folder()) else {
            return false;
        };
        if !own.in_use.same_as(&self.current) {
            own.in_use = self.current.clone();
            own.accelerator.others();
        }
        let models = own.accelerator.look(&folder, &self.current, &own.in_use);
        let Some(models) = models else { return false };
        own.in_use = models.clone();
        self.hand_over(models);
        true
    }

    /// Puts models into the slot.
    fn hand_over(&mut self, models: Models) {
        for engine in models.engines() {
            if !self.handed_over.iter().any(|e| Arc::ptr_eq(e, engine)) {
                self.handed_over.push(Arc::clone(engine));
            }
        }
        self.slot.put(models);
    }

    /// Takes engines apart that nobody else has any more.
    fn clear_away(&mut self) {
        self.handed_over.retain(|e| Arc::strong_count(e) > 1);
    }

    /// Looks once; whether a new version was handed over.
    pub fn look(&mut self) -> bool {
        self.clear_away();
        let now = stamp(&self.chosen);
        let changed = now != self.looked_at && self.load();
        self.looked_at = now;
        self.slot.settled.send_replace(true);
        changed
    }

    fn load(&mut self) -> bool {
        match self.chosen.load() {
            Ok(models) if models.same_as(&self.current) => false,
            Ok(models) => {
                tracing::info!(?models, "models: checked, taken from the next record on");
                self.current = models.clone();
                self.hand_over(models);
                true
            }
            Err(e) => {
                tracing::error!(
                    error = %e,
                    "the models cannot be used; what answered before them, or the floor, does so still"
                );
                false
            }
        }
    }

    /// Looks every [`LOOK_AGAIN`] until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let slot = self.slot.clone();
        loop {
            // Loading takes a moment and blocks.
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                #[cfg(feature = "tensorrt")]
                self.accelerate();
                self
            });
            match looked.await {
                Ok(watch) => self = watch,
                Err(_) => {
                    tracing::error!("looking for models has ended badly; nobody looks any more");
                    slot.settled.send_replace(true);
                    return;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

/// Date and size of the manifest, and of nothing else: it is to be written last.
fn stamp(chosen: &Chosen) -> Option<(SystemTime, u64)> {
    let file = chosen.folder()?.join(manifest::FILE);
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

#[cfg(test)]
pub(crate) mod tests;
