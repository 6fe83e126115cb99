//! Several models in one call: one CUDA graph that assembles their inputs and runs their engines.
//!
//! ```text
//!   rows, and which of them there are ─▶ assemble_inputs ─▶ engine's own input ─▶ engine ─▶ outputs ┐
//!   rows, …                           ─▶ assemble_inputs ─▶ …                  ─▶ engine ─▶ outputs ┴▶ read once
//! ```
//!
//! A tensor goes over as rows, its last dimension wide, and the kernel puts each row in its place, zeros where there is
//! none. An input called [`MASK`] does not go over at all: it says which rows of the one before it are there, and the
//! kernel writes both from a count for each row. So the device sees, bit for bit, what the CPU's engine is fed, in the
//! same order; a row that is not there cannot be mistaken for one, whatever lies in it. (The kernel would put the
//! newest row of a ring last. Which lap's entry stands where means nothing to the models, but sums of floats do depend
//! on it, and a comparison with the CPU is worth more when both add up in one order.)
//!
//! What it saves is calls: of three engines asked one after another each is sent, waited for and fetched on its own;
//! here the thread of the device is woken once, one copy goes each way, and the engines, none of which fills a GPU with
//! the row of one car, run beside each other. Engines here have contexts and weights of their own: those that answer
//! alone stay as they are, and take over where this fails.
//!
//! **Invariant:** it answers only once it has answered the recorded inputs of each model as the CPU does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use zerocopy::IntoBytes;

use super::engine::Prepared;
use super::session::numbers;
use super::{BACKEND, Cache, Gpu, Precision};
use crate::compute::assemble_inputs::{self, AssembleInputs};
use crate::compute::cuda::{Array, Assembled, CudaError, Maker, Scene, Staged};
use crate::compute::launch::{Data, Geometry};
use crate::inference::{Engine, EngineError, Model, Parity, Tensor, TensorSpec, parity};

/// An input of this name tells with 1 and 0 which rows of the input before it are there.
const MASK: &str = "mask";
/// Rows of a run: cars cross the line one after another.
const BATCH: usize = 1;
/// Most runs that are compared for each choice of models.
const MAX_RUNS: usize = 16;

/// Models that answer together.
pub struct Together {
    members: Vec<Member>,
    /// Which members each play of the scene has.
    plays: Vec<Vec<usize>>,
    staged: Staged,
    failed: AtomicBool,
    answered: AtomicU64,
}

/// A model of them.
struct Member {
    model: Model,
    /// The array in which each input is given.
    inputs: Vec<Input>,
    /// The array in which each output comes back.
    outputs: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Input {
    /// Its values, as they are.
    Rows(usize),
    /// A count for each row of the input before it.
    Mask(usize),
}

impl Together {
    /// Puts these models, which `cpus` compute on the CPU, on the GPU together. `plays` are the choices of them that
    /// can be asked, each by their numbers.
    ///
    /// # Errors
    /// [`EngineError::Load`] if TensorRT or the device does not take them; [`EngineError::Parity`] if an answer to the
    /// recorded inputs is further off the CPU's than the precision allows.
    pub fn load(
        gpu: &Gpu,
        cpus: &[Arc<dyn Engine>],
        plays: &[&[usize]],
        folder: &Path,
        (cache, precision): (&Cache, Precision),
    ) -> Result<Together, EngineError> {
        let mut scene = Scene::default();
        let geometry = gpu.cuda().properties().geometry();
        let (mut members, mut plans) = (Vec::new(), Vec::new());
        for cpu in cpus {
            let model = cpu.model();
            members.push(member(&mut scene, model, &geometry)?);
            let onnx = model.onnx(folder)?;
            plans.push(gpu.plan(model, &onnx, cache, precision, BATCH)?);
        }
        for play in plays {
            scene.play(play.to_vec());
        }
        let prepared: Vec<_> = (cpus.iter().zip(&plans))
            .map(|(cpu, (plan, made))| gpu.prepared(cache, cpu.model(), plan, &made.key))
            .collect();
        let makers = prepared.iter().map(|p| Box::new(|| p.make()) as Maker<'_>);
        let staged = gpu.cuda().stage(scene, makers.collect());
        prepared.into_iter().for_each(Prepared::keep);
        let together = Together {
            staged: staged.map_err(|e| EngineError::Load {
                model: names(members.iter().map(|m| &m.model)),
                backend: BACKEND,
                why: e.to_string(),
            })?,
            members,
            plays: plays.iter().map(|play| play.to_vec()).collect(),
            failed: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        };
        together.compare(cpus, folder, precision)?;
        tracing::info!(
            models = together.name(),
            captured = together.is_captured(),
            "engines answer together"
        );
        Ok(together)
    }

    /// The models' names.
    pub fn name(&self) -> String {
        names(self.members.iter().map(|m| &m.model))
    }

    /// Whether each choice of models is one graph.
    pub fn is_captured(&self) -> bool {
        self.staged.is_captured()
    }

    /// Whether it has not failed.
    pub fn works(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    /// Answers that it has given since it was loaded.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// The outputs of each model that is asked, by its number and with its inputs, in the order of one of the plays.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs are not the model's, or the GPU is busy or fails; after a failure it is not asked
    /// again.
    pub fn run(&self, asked: &[(usize, &[Tensor])]) -> Result<Vec<Vec<Tensor>>, EngineError> {
        let answers = self.answers(asked)?.map_err(|e| {
            // Others keep the device busy: the next crossing may find it idle.
            if !matches!(e, CudaError::Busy) {
                self.failed.store(true, Ordering::Relaxed);
                tracing::error!(error = %e, models = self.name(), "the GPU failed; engines answer one by one");
                metrics::counter!("trackside_engine_gpu_failures_total", "model" => "together")
                    .increment(1);
            }
            self.said(&e)
        })?;
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(answers)
    }

    fn said(&self, e: &CudaError) -> EngineError {
        EngineError::Run {
            model: self.name(),
            backend: BACKEND,
            why: e.to_string(),
        }
    }

    /// The answers; or what the asker has done wrong, or what the device said.
    fn answers(
        &self,
        asked: &[(usize, &[Tensor])],
    ) -> Result<Result<Vec<Vec<Tensor>>, CudaError>, EngineError> {
        let members = asked.iter().map(|(member, _)| *member);
        let play = self
            .plays
            .iter()
            .position(|p| members.clone().eq(p.iter().copied()));
        let Some(play) = play else {
            let why = "these models are not asked together".to_owned();
            return Ok(Err(CudaError::Guest(why)));
        };
        let mut counts = Vec::new();
        for (member, inputs) in asked {
            counts.push(self.members[*member].counts(inputs)?);
        }
        let mut outputs: Vec<Vec<Tensor>> = (asked.iter())
            .map(|(member, _)| self.members[*member].blank())
            .collect();
        let mut data = Vec::new();
        for (((member, inputs), counts), outputs) in asked.iter().zip(&counts).zip(&mut outputs) {
            let member = &self.members[*member];
            let mut counts = counts.iter();
            for (input, tensor) in member.inputs.iter().zip(*inputs) {
                data.push(match input {
                    Input::Rows(array) => (*array, Data::In(tensor.values.as_bytes())),
                    Input::Mask(array) => {
                        let count = counts.next().map_or(&[][..], Vec::as_slice);
                        (*array, Data::In(count.as_bytes()))
                    }
                });
            }
            let back = member.outputs.iter().zip(outputs);
            data.extend(back.map(|(array, out)| (*array, Data::output(&mut out.values))));
        }
        let ran = self.staged.run(play, &mut data);
        drop(data);
        let finite = |t: &Tensor| t.values.iter().all(|v| v.is_finite());
        Ok(match (ran, outputs.iter().flatten().find(|t| !finite(t))) {
            (Err(e), _) => Err(e),
            (Ok(()), Some(bad)) => Err(CudaError::Guest(format!(
                "output {:?} is not finite",
                bad.name
            ))),
            (Ok(()), None) => Ok(outputs),
        })
    }

    /// Compares its answers with the CPU's, in every play.
    fn compare(
        &self,
        cpus: &[Arc<dyn Engine>],
        folder: &Path,
        precision: Precision,
    ) -> Result<(), EngineError> {
        let off = self.parity(cpus, folder)?;
        for (member, off) in self.members.iter().zip(off) {
            let tolerance = precision.tolerance(&member.model);
            if let Some(worst) = off.into_iter().find(|p| p.max > tolerance) {
                let Parity { tensor, max, .. } = worst;
                return Err(EngineError::Parity {
                    model: member.model.id(),
                    backend: BACKEND,
                    tensor,
                    off: max,
                    tolerance,
                });
            }
        }
        Ok(())
    }

    /// How far its answers to the recorded inputs are off the CPU's, by model and output, over all plays.
    ///
    /// # Errors
    /// [`EngineError`] if a model has no recorded inputs, or either side fails.
    pub fn parity(
        &self,
        cpus: &[Arc<dyn Engine>],
        folder: &Path,
    ) -> Result<Vec<Vec<Parity>>, EngineError> {
        let recorded = self.recorded(folder)?;
        let most = recorded
            .iter()
            .map(Vec::len)
            .max()
            .unwrap_or(0)
            .min(MAX_RUNS);
        let mut off: Vec<Vec<Parity>> = vec![Vec::new(); self.members.len()];
        let mut runs = vec![0; self.members.len()];
        for (play, run) in self
            .plays
            .iter()
            .flat_map(|p| (0..most).map(move |r| (p, r)))
        {
            let inputs = |member: usize| &recorded[member][run % recorded[member].len()];
            let asked: Vec<(usize, &[Tensor])> =
                play.iter().map(|m| (*m, inputs(*m).as_slice())).collect();
            let answers = self.answers(&asked)?.map_err(|e| self.said(&e))?;
            for (member, ours) in play.iter().zip(answers) {
                let own = parity(&ours, &cpus[*member].run(inputs(*member))?);
                match off[*member].is_empty() {
                    true => off[*member] = own,
                    false => (off[*member].iter_mut().zip(&own))
                        .for_each(|(all, own)| all.merge(own, runs[*member])),
                }
                runs[*member] += 1;
            }
        }
        Ok(off)
    }

    /// Inputs that were recorded of each model.
    ///
    /// # Errors
    /// [`EngineError`] if there are none.
    pub fn recorded(&self, folder: &Path) -> Result<Vec<Vec<Vec<Tensor>>>, EngineError> {
        let of = |member: &Member| {
            let model = &member.model;
            let fixture = model.fixture(folder)?;
            let runs = fixture.map_or(Vec::new(), |f| f.at_batch(model, BATCH));
            match runs.is_empty() {
                true => Err(EngineError::Load {
                    model: model.id(),
                    backend: BACKEND,
                    why: "no inputs are recorded to compare it by".to_owned(),
                }),
                false => Ok(runs),
            }
        };
        self.members.iter().map(of).collect()
    }
}

impl Member {
    /// Whether these are its inputs; and of each mask a count for each row.
    fn counts(&self, inputs: &[Tensor]) -> Result<Vec<Vec<u32>>, EngineError> {
        let batch = self.model.batch_of(inputs)?;
        if batch != BATCH {
            let why = format!("a batch of {batch}; engines that answer together take {BATCH}");
            return Err(self.model.misfit("", why));
        }
        let masks = self.inputs.iter().zip(inputs);
        let masks = masks.filter(|(input, _)| matches!(input, Input::Mask(_)));
        let mut counts = Vec::new();
        for (_, mask) in masks {
            if !mask.values.iter().all(|v| *v == 0.0 || *v == 1.0) {
                return Err(self.model.misfit(&mask.name, "a mask is of 0 and 1"));
            }
            counts.push(mask.values.iter().map(|v| u32::from(*v == 1.0)).collect());
        }
        Ok(counts)
    }

    /// Outputs that nothing was written to.
    fn blank(&self) -> Vec<Tensor> {
        let outputs = self.model.outputs.iter();
        let tensor = |spec: &TensorSpec| {
            let values = vec![0.0; numbers(spec, BATCH)];
            Tensor::new(&spec.name, &spec.with_batch(BATCH), values)
        };
        outputs.map(tensor).collect()
    }
}

fn names<'a>(models: impl Iterator<Item = &'a Model>) -> String {
    models.map(Model::id).collect::<Vec<_>>().join(" + ")
}

/// Adds a part for that model: an assembly for each of its inputs that is no mask, and the engine.
fn member(scene: &mut Scene, model: &Model, geometry: &Geometry) -> Result<Member, EngineError> {
    scene.part();
    let (mut inputs, mut tensors) = (Vec::new(), Vec::new());
    let mut specs = model.inputs.iter().peekable();
    while let Some(spec) = specs.next() {
        let mask = specs.next_if(|next| next.name == MASK);
        let rows = Rows::of(spec);
        if mask.is_some_and(|mask| numbers(mask, BATCH) != rows.rows) {
            return Err(model.misfit(MASK, format!("{:?} has {} rows", spec.name, rows.rows)));
        }
        let at = rows
            .assemble(scene, mask.is_some(), geometry)
            .map_err(|e| model.misfit(&spec.name, e.to_string()))?;
        inputs.push(Input::Rows(at.history));
        tensors.push(at.tensor);
        if mask.is_some() {
            inputs.push(Input::Mask(at.count));
            tensors.push(at.mask);
        }
    }
    let back = |spec: &TensorSpec| Array::Back(numbers(spec, BATCH) * size_of::<f32>());
    let outputs: Vec<usize> = (model.outputs.iter())
        .map(|spec| scene.array(back(spec)))
        .collect();
    scene.guest(tensors.into_iter().chain(outputs.iter().copied()).collect());
    Ok(Member {
        model: model.clone(),
        inputs,
        outputs,
    })
}

/// A tensor as the kernel sees it: each row a car of one slot.
struct Rows {
    rows: usize,
    columns: usize,
}

impl Rows {
    fn of(spec: &TensorSpec) -> Rows {
        let columns = spec.with_batch(BATCH).last().copied().unwrap_or(1).max(1);
        Rows {
            rows: numbers(spec, BATCH) / columns,
            columns,
        }
    }

    /// Adds the arrays and the kernel. Without a mask every row is there, always.
    fn assemble(
        &self,
        scene: &mut Scene,
        masked: bool,
        geometry: &Geometry,
    ) -> Result<Assembled, crate::compute::ShapeError> {
        let (rows, values) = (self.rows, self.rows * self.columns);
        let choice: Vec<u32> = (0..self.columns as u32).collect();
        let (mean, scale) = (vec![0.0_f32; self.columns], vec![1.0_f32; self.columns]);
        let (newest, every) = (vec![0_u32; rows], vec![1_u32; rows]);
        let bytes = size_of::<f32>();
        let mut array = |array| scene.array(array);
        let at = Assembled {
            history: array(Array::Given(values * bytes)),
            newest: array(Array::Kept(newest.as_bytes().to_vec())),
            count: array(match masked {
                true => Array::Given(rows * bytes),
                false => Array::Kept(every.as_bytes().to_vec()),
            }),
            choice: array(Array::Kept(choice.as_bytes().to_vec())),
            mean: array(Array::Kept(mean.as_bytes().to_vec())),
            scale: array(Array::Kept(scale.as_bytes().to_vec())),
            tensor: array(Array::Between(values * bytes)),
            mask: array(Array::Between(rows * bytes)),
        };
        let (history, mut tensor, mut mask) =
            (vec![0.0; values], vec![0.0; values], vec![0.0; rows]);
        let mut task = AssembleInputs {
            history: &history,
            slots: 1,
            features: self.columns,
            newest: &newest,
            count: &every,
            steps: 1,
            choice: &choice,
            mean: &mean,
            scale: &scale,
            limit: f32::MAX,
            tensor: assemble_inputs::Tensor::F32(&mut tensor),
            mask: &mut mask,
        };
        scene.assemble(&mut task, geometry, at)?;
        Ok(at)
    }
}
