//! The engine on the CPU: tract, one optimised plan a batch size.
//!
//! tract panics on some graphs that it does not know, so every call into it is caught; a panic is an error
//! that names the model. Plans are made when the model is loaded, never while a race waits.
//!
//! **Invariant:** the same inputs give the same bits on the same machine: one thread, no randomness.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::prelude::{
    Datum, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, OutletId,
    TVec, TractResult, TypedRunnableModel,
};

use super::{Engine, EngineError, Model, Tensor};

/// Its name in predictions.
pub const BACKEND: &str = "tract";

/// A model with its plans.
pub struct Tract {
    model: Model,
    /// By batch size, in the manifest's order.
    plans: Vec<(usize, Arc<TypedRunnableModel>)>,
}

impl Tract {
    /// Makes a plan for every batch size of the manifest from the ONNX file's bytes.
    ///
    /// # Errors
    /// [`EngineError::Load`] if tract does not understand the file, [`EngineError::Shape`] if its inputs and
    /// outputs are not those of the manifest.
    pub fn load(model: &Model, onnx: &[u8]) -> Result<Tract, EngineError> {
        let mut plans = Vec::with_capacity(model.batches.len());
        for batch in &model.batches {
            let made = guard(|| plan(model, onnx, *batch));
            let made = made.map_err(|why| EngineError::Load {
                model: model.id(),
                backend: BACKEND,
                why: format!("batch {batch}: {why}"),
            })?;
            plans.push((*batch, made?));
        }
        Ok(Tract {
            model: model.clone(),
            plans,
        })
    }
}

/// What `work` gives, or what it said when it failed or panicked.
fn guard<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(format!("{e:#}")),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("it panicked: {}", text.unwrap_or_default()))
        }
    }
}

type Planned = Result<Arc<TypedRunnableModel>, EngineError>;

fn plan(model: &Model, onnx: &[u8], batch: usize) -> TractResult<Planned> {
    let mut graph: InferenceModel = tract_onnx::onnx().model_for_read(&mut &onnx[..])?;
    let inputs = graph.input_outlets()?.to_vec();
    let named: Vec<String> = inputs
        .iter()
        .map(|i| graph.node(i.node).name.clone())
        .collect();
    let mut order = Vec::with_capacity(inputs.len());
    for spec in &model.inputs {
        let Some(at) = named.iter().position(|n| *n == spec.name) else {
            return Ok(Err(unlike(model, &spec.name, &named)));
        };
        order.push(inputs[at]);
        let shape = spec.with_batch(batch);
        graph.set_input_fact(at, InferenceFact::dt_shape(f32::datum_type(), shape))?;
    }
    if inputs.len() != model.inputs.len() {
        return Ok(Err(unlike(model, "", &named)));
    }
    graph.set_input_outlets(&order)?;
    if let Err(e) = choose_outputs(model, &mut graph)? {
        return Ok(Err(e));
    }
    let typed = graph.into_optimized()?;
    for (at, spec) in model.outputs.iter().enumerate() {
        let fact = typed.output_fact(at)?;
        let shape = fact.shape.as_concrete().map(<[usize]>::to_vec);
        let wanted = spec.with_batch(batch);
        if shape.as_ref() != Some(&wanted) || fact.datum_type != f32::datum_type() {
            return Ok(Err(EngineError::Shape {
                model: model.id(),
                tensor: spec.name.clone(),
                why: format!("the file gives {fact:?}, the manifest says {wanted:?} of f32"),
            }));
        }
    }
    Ok(Ok(typed.into_runnable()?))
}

/// The outputs that the manifest names, in its order.
fn choose_outputs(
    model: &Model,
    graph: &mut InferenceModel,
) -> TractResult<Result<(), EngineError>> {
    let outlets = graph.output_outlets()?.to_vec();
    let name = |outlet: &OutletId| -> String {
        let label = graph.outlet_label(*outlet).map(str::to_owned);
        label.unwrap_or_else(|| graph.node(outlet.node).name.clone())
    };
    let named: Vec<String> = outlets.iter().map(name).collect();
    let mut order = Vec::with_capacity(model.outputs.len());
    for spec in &model.outputs {
        let Some(at) = named.iter().position(|n| *n == spec.name) else {
            return Ok(Err(unlike(model, &spec.name, &named)));
        };
        order.push(outlets[at]);
    }
    graph.select_output_outlets(&order)?;
    Ok(Ok(()))
}

fn unlike(model: &Model, tensor: &str, found: &[String]) -> EngineError {
    EngineError::Shape {
        model: model.id(),
        tensor: tensor.to_owned(),
        why: format!("the file has {found:?}"),
    }
}

impl Engine for Tract {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        let batch = self.model.batch_of(inputs)?;
        let failed = |why: String| EngineError::Run {
            model: self.model.id(),
            backend: BACKEND,
            why,
        };
        let plan = self.plans.iter().find(|(size, _)| *size == batch);
        let Some((_, plan)) = plan else {
            return Err(failed(format!("no plan for a batch of {batch}")));
        };
        let outputs = guard(|| {
            let mut values = TVec::with_capacity(inputs.len());
            for input in inputs {
                let tensor = tract_onnx::prelude::Tensor::from_shape(&input.shape, &input.values)?;
                values.push(tensor.into());
            }
            let mut outputs = Vec::with_capacity(self.model.outputs.len());
            for (spec, value) in self.model.outputs.iter().zip(plan.run(values)?) {
                outputs.push(Tensor {
                    name: spec.name.clone(),
                    shape: value.shape().to_vec(),
                    values: value.try_as_plain_ram()?.as_slice::<f32>()?.to_vec(),
                });
            }
            Ok(outputs)
        });
        let outputs = outputs.map_err(failed)?;
        match outputs
            .iter()
            .find(|o| o.values.iter().any(|v| !v.is_finite()))
        {
            Some(bad) => Err(failed(format!("output {:?} is not finite", bad.name))),
            None => Ok(outputs),
        }
    }
}
