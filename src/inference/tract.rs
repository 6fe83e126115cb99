//! The engine on the CPU: tract, one optimised plan a batch size.
//!
//! tract panics on some graphs that it does not know, so every call into it is caught; a panic is an error
//! that names the model. Plans are made when the model is loaded, never while a race waits. Boosted trees, which
//! stand in the graph as products, are walked as trees ([`super::trees`]).
//!
//! **Invariant:** the same inputs give the same bits on the same machine: one thread, no randomness.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{
    Datum, DatumExt, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable,
    OutletId, SpecialOps, TVec, TractResult, TypedRunnableModel,
};
use tract_onnx::tract_hir::internal::{
    DimLike, EvalContext, EvalOp, Expansion, InferenceResult, InletId, IntoTValue, Op, Solver,
    StaticName, TValue, TensorProxy, TypedFact, TypedModel, TypedOp, args_1, as_op, bail, expand,
    op_as_typed_op, op_out_of_plan, tensor1, tvec,
};

use super::trees::{self, Found, Trees};
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
        Tract::with_plans(model, onnx, true)
    }

    /// As [`Tract::load`]; `walks`: whether trees are walked as trees.
    pub(super) fn with_plans(
        model: &Model,
        onnx: &[u8],
        walks: bool,
    ) -> Result<Tract, EngineError> {
        let failed = |why| EngineError::Load {
            model: model.id(),
            backend: BACKEND,
            why,
        };
        super::heap::keep_buffers();
        let proto = guard(|| tract_onnx::onnx().proto_model_for_read(&mut &onnx[..]));
        let proto = proto.map_err(failed)?;
        let trees = match &proto.graph {
            Some(graph) if walks => trees::find(graph),
            _ => Vec::new(),
        };
        let mut plans = Vec::with_capacity(model.batches.len());
        for batch in &model.batches {
            let made = guard(|| plan(model, &proto, &trees, *batch));
            plans.push((
                *batch,
                made.map_err(|why| failed(format!("batch {batch}: {why}")))??,
            ));
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

fn plan(model: &Model, proto: &ModelProto, trees: &[Found], batch: usize) -> TractResult<Planned> {
    let mut graph: InferenceModel = tract_onnx::onnx().model_for_proto_model(proto)?;
    for found in trees {
        walk(&mut graph, found)?;
    }
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

/// Puts the trees in the place of their products, which nobody asks for any more.
fn walk(graph: &mut InferenceModel, found: &Found) -> TractResult<()> {
    let outlet = |name: &str| {
        let node = || Some(OutletId::new(graph.node_id_by_name(name).ok()?, 0));
        graph.find_outlet_label(name).or_else(node)
    };
    let (Some(from), Some(to)) = (outlet(&found.input), outlet(&found.output)) else {
        bail!(
            "the trees' {:?} and {:?} are not in the graph",
            found.input,
            found.output
        );
    };
    if graph.output_outlets()?.contains(&to) {
        return Ok(());
    }
    let name = format!("{}.walked", found.output);
    let op = expand(Walk(Arc::new(found.trees.clone())));
    let node = graph.add_node(name, op, tvec!(InferenceFact::default()))?;
    graph.add_edge(from, InletId::new(node, 0))?;
    let readers = graph.node(to.node).outputs[to.slot].successors.clone();
    for reader in readers {
        graph.add_edge(OutletId::new(node, 0), reader)?;
    }
    Ok(())
}

/// Rows in, the sum of the trees for each of them out.
#[derive(Clone, Debug)]
struct Walk(Arc<Trees>);

impl PartialEq for Walk {
    fn eq(&self, other: &Walk) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Walk {}

impl Expansion for Walk {
    fn name(&self) -> StaticName {
        "Trees".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        solver.equals(&inputs[0].rank, 2)?;
        solver.equals(&inputs[0].datum_type, f32::datum_type())?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.equals(&outputs[0].rank, 1)?;
        solver.equals(&outputs[0].shape[0], &inputs[0].shape[0])
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Walk {
    fn name(&self) -> StaticName {
        "Trees".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Walk {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let rows = args_1!(inputs);
        let &[_, width] = rows.shape() else {
            bail!("rows of shape {:?}", rows.shape());
        };
        let sums = self
            .0
            .sums(rows.try_as_plain_ram()?.as_slice::<f32>()?, width);
        Ok(tvec!(tensor1(&sums).into_tvalue()))
    }
}

impl TypedOp for Walk {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = &inputs[0].shape;
        let width = shape.get(1).map(|d| d.to_usize()).transpose()?;
        if width.is_none_or(|w| w < self.0.columns()) {
            bail!(
                "the trees ask for {} columns, the rows have {shape:?}",
                self.0.columns()
            );
        }
        Ok(tvec!(f32::fact(&[shape[0].clone()])))
    }

    as_op!();
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
