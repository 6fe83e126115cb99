//! onnxruntime on the same files, for comparison: a Python process that runs a round whenever it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::inference::Tensor;

const SCRIPT: &str = include_str!("../../../benches/onnxruntime.py");
/// Names the Python that has numpy and onnxruntime, where it is not `python3`.
const PYTHON: &str = "TRACKSIDE_PYTHON";

/// What it is to compute on.
#[derive(Clone, Copy)]
pub enum Provider {
    Cpu,
    /// The GPU where it has a way to it, else the CPU.
    Gpu,
}

/// A model as the script wants it.
#[derive(Serialize)]
pub struct Model<'a> {
    file: std::path::PathBuf,
    inputs: BTreeMap<&'a str, &'a [usize]>,
}

impl<'a> Model<'a> {
    /// The ONNX file, and inputs of these names and shapes.
    pub fn new(file: std::path::PathBuf, inputs: &'a [Tensor]) -> Model<'a> {
        let inputs = inputs.iter();
        Model {
            file,
            inputs: inputs.map(|t| (t.name.as_str(), &t.shape[..])).collect(),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Missing { missing: String },
    Ready { version: String, provider: String },
}

/// The process.
pub struct OnnxRuntime {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    pub version: String,
    /// What it computes on: `CPUExecutionProvider`.
    pub provider: String,
}

impl OnnxRuntime {
    /// Starts it with these models, on that many threads; why not, where it is not to be had.
    ///
    /// # Errors
    /// If it is there and fails.
    pub fn start(
        models: &[Model<'_>],
        threads: usize,
        provider: Provider,
    ) -> anyhow::Result<Result<Self, String>> {
        let python = std::env::var_os(PYTHON).unwrap_or_else(|| "python3".into());
        let mut command = Command::new(&python);
        command.arg("-c").arg(SCRIPT);
        command.arg(serde_json::to_string(models)?);
        command.arg(threads.to_string()).arg(match provider {
            Provider::Cpu => "cpu",
            Provider::Gpu => "gpu",
        });
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = match started {
            Ok(process) => process,
            Err(e) => return Ok(Err(format!("{}: {e}", Path::new(&python).display()))),
        };
        let (Some(to), Some(from)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("onnxruntime has no pipes");
        };
        let mut runtime = OnnxRuntime {
            process,
            to,
            from: BufReader::new(from),
            version: String::new(),
            provider: String::new(),
        };
        match runtime.hear()? {
            Said::Missing { missing } => Ok(Err(missing)),
            Said::Ready { version, provider } => {
                (runtime.version, runtime.provider) = (version, provider);
                Ok(Ok(runtime))
            }
        }
    }

    /// Milliseconds of every model in each of so many ticks.
    ///
    /// # Errors
    /// If it fails.
    pub fn round(&mut self, ticks: usize) -> anyhow::Result<Vec<Vec<f64>>> {
        writeln!(self.to, "{ticks}")?;
        self.hear()
    }

    fn hear<T: serde::de::DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        ensure!(
            !line.is_empty(),
            "onnxruntime ended: what it said stands above"
        );
        serde_json::from_str(&line).with_context(|| format!("onnxruntime said {line:?}"))
    }
}

impl Drop for OnnxRuntime {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
