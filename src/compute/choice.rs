//! Which backend is asked for, and the one that there is.
//!
//! `auto` takes a GPU where one works and the CPU otherwise: both give the same bits, so that it changes nothing but
//! the time that an answer takes. `cuda` is a wish that is refused where it cannot be met.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[cfg(feature = "cuda")]
use super::cuda::{Cuda, CudaError, State, TickGraph};
use super::{Backend, By, Cpu, ShapeError, Task};

/// Which backend is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// A GPU where one works, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// A GPU, and nothing else will do.
    Cuda,
}

/// No backend has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no backend; auto, cpu and cuda are allowed")]
pub struct UnknownBackend(String);

impl FromStr for Choice {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Choice, UnknownBackend> {
        match text {
            "auto" => Ok(Choice::Auto),
            "cpu" => Ok(Choice::Cpu),
            "cuda" => Ok(Choice::Cuda),
            other => Err(UnknownBackend(other.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Choice, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Choice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Choice::Auto => "auto",
            Choice::Cpu => "cpu",
            Choice::Cuda => "cuda",
        })
    }
}

/// What is tried where a GPU is looked for.
pub const TRIED: &str = "to load libcuda.so and to open its first device";

/// There is no GPU to compute on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {remedy}")]
pub struct NoGpu {
    pub why: String,
    /// What to do about it.
    pub remedy: &'static str,
    /// Whether it may come by itself: a driver that is not installed will not.
    pub may_come: bool,
}

impl Choice {
    /// Opens what is asked for; beside the CPU that stands in under [`Choice::Auto`], why it does.
    ///
    /// # Errors
    /// [`NoGpu`] where [`Choice::Cuda`] cannot be had.
    pub fn open(self) -> Result<(Processor, Option<NoGpu>), NoGpu> {
        match (self, self.gpu()) {
            (_, None) => Ok((Processor::Cpu, None)),
            (_, Some(Ok(processor))) => Ok((processor, None)),
            (Choice::Cuda, Some(Err(none))) => Err(none),
            (_, Some(Err(none))) => Ok((Processor::Cpu, Some(none))),
        }
    }

    /// The GPU, if it is to be looked for.
    fn gpu(self) -> Option<Result<Processor, NoGpu>> {
        (self != Choice::Cpu).then(open_gpu)
    }
}

#[cfg(feature = "cuda")]
impl From<CudaError> for NoGpu {
    fn from(e: CudaError) -> NoGpu {
        NoGpu {
            remedy: match e {
                CudaError::NoDriver => {
                    "install NVIDIA's driver (JetPack has it; a container wants NVIDIA's runtime), or take the CPU"
                }
                CudaError::NoDevice => {
                    "see what `nvidia-smi` lists and CUDA_VISIBLE_DEVICES hides, or take the CPU"
                }
                _ => "look for NVRM lines in the kernel's log, or take the CPU",
            },
            may_come: !matches!(e, CudaError::NoDriver),
            why: e.to_string(),
        }
    }
}

#[cfg(feature = "cuda")]
fn open_gpu() -> Result<Processor, NoGpu> {
    Ok(Processor::Cuda(Cuda::open()?))
}

#[cfg(not(feature = "cuda"))]
fn open_gpu() -> Result<Processor, NoGpu> {
    Err(NoGpu {
        why: "this binary was built without CUDA".to_owned(),
        remedy: "build it with the feature `cuda`, or take the CPU",
        may_come: false,
    })
}

/// The backend that there is.
#[derive(Clone, Default)]
pub enum Processor {
    #[default]
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

impl Processor {
    /// The same for who has ticks to do: a GPU that does not answer within a few of them is not waited for.
    #[must_use]
    pub fn hurried(self) -> Processor {
        match self {
            Processor::Cpu => Processor::Cpu,
            #[cfg(feature = "cuda")]
            Processor::Cuda(cuda) => Processor::Cuda(cuda.hurried()),
        }
    }

    /// What does the work now: while a GPU that failed rests, the CPU stands in.
    pub fn at_work(&self) -> By {
        match self {
            Processor::Cpu => By::Cpu,
            #[cfg(feature = "cuda")]
            Processor::Cuda(cuda) if cuda.state() != State::Open => By::Cpu,
            #[cfg(feature = "cuda")]
            Processor::Cuda(_) => By::Cuda,
        }
    }

    /// For what is to be done again and again.
    pub fn ticker(&self) -> Ticker {
        Ticker {
            processor: self.clone(),
            #[cfg(feature = "cuda")]
            graph: TickGraph::default(),
        }
    }
}

impl Backend for Processor {
    fn name(&self) -> &'static str {
        match self {
            Processor::Cpu => Cpu.name(),
            #[cfg(feature = "cuda")]
            Processor::Cuda(cuda) => cuda.name(),
        }
    }

    fn run(&self, task: &mut dyn Task) -> Result<By, ShapeError> {
        match self {
            Processor::Cpu => Cpu.run(task),
            #[cfg(feature = "cuda")]
            Processor::Cuda(cuda) => cuda.run(task),
        }
    }
}

/// A processor, and whether all that was asked of it was done on what it is.
pub struct Witness<'a> {
    processor: &'a Processor,
    fell_back: AtomicBool,
}

impl Witness<'_> {
    /// Of work that is about to begin.
    pub fn of(processor: &Processor) -> Witness<'_> {
        Witness {
            processor,
            fell_back: AtomicBool::new(false),
        }
    }

    /// What has done the work since then; the CPU, if it did any of it.
    pub fn by(&self) -> By {
        match self.processor {
            Processor::Cpu => By::Cpu,
            #[cfg(feature = "cuda")]
            Processor::Cuda(_) if self.fell_back.load(Ordering::Relaxed) => By::Cpu,
            #[cfg(feature = "cuda")]
            Processor::Cuda(_) => By::Cuda,
        }
    }
}

impl Backend for Witness<'_> {
    fn name(&self) -> &'static str {
        self.processor.name()
    }

    fn run(&self, task: &mut dyn Task) -> Result<By, ShapeError> {
        let by = self.processor.run(task)?;
        if by == By::Cpu {
            self.fell_back.store(true, Ordering::Relaxed);
        }
        Ok(by)
    }
}

/// Carries out tasks of the same shapes again and again: on a GPU as one captured graph.
pub struct Ticker {
    processor: Processor,
    #[cfg(feature = "cuda")]
    graph: TickGraph,
}

impl Ticker {
    /// Carries out the tasks, none of which reads what another writes. Other shapes than last time cost a capture,
    /// while which the CPU does them.
    ///
    /// # Errors
    /// [`ShapeError`] if the arrays do not fit each other.
    pub fn run(&mut self, tasks: &mut [Box<dyn Task + '_>]) -> Result<By, ShapeError> {
        match &self.processor {
            #[cfg(feature = "cuda")]
            Processor::Cuda(cuda) => cuda.tick(&mut self.graph, tasks),
            Processor::Cpu => {
                tasks.iter().try_for_each(|task| task.check())?;
                tasks.iter_mut().for_each(|task| task.run_on_cpu());
                Ok(By::Cpu)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_backend_is_named_with_what_is_allowed() {
        let said = "opencl".parse::<Choice>().unwrap_err().to_string();
        for part in ["opencl", "auto", "cpu", "cuda"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert!(matches!(Choice::Cpu.open(), Ok((Processor::Cpu, None))));
    }

    #[test]
    fn without_a_gpu_a_wish_is_refused_and_auto_says_why() {
        if let Ok((processor, None)) = Choice::Auto.open() {
            // There is one; `tests/gpu` has its say.
            assert_eq!(processor.name(), "cuda");
            return;
        }
        let (processor, why) = Choice::Auto.open().unwrap();
        assert_eq!((processor.name(), processor.at_work()), ("cpu", By::Cpu));
        let refused = Choice::Cuda.open().err().unwrap();
        assert_eq!(Some(&refused), why.as_ref());
        assert!(!refused.why.is_empty() && refused.to_string().contains("or take the CPU"));
    }
}
