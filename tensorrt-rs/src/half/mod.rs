//! An fp32 ONNX model, with its matrix products in fp16.

mod float;
mod wire;

use std::collections::{HashMap, HashSet};

use float::{LARGEST, half};
use wire::{Field, Message, fields};

use crate::Error;

/// ONNX's numbers for what a tensor holds.
const FLOAT: u64 = 1;
const FLOAT16: u64 = 10;
/// The operators that are matrix products.
const PRODUCTS: [&str; 2] = ["MatMul", "Gemm"];

/// Rewrites an fp32 ONNX model so that its matrix products (`MatMul`, `Gemm`) are computed in fp16, their weights
/// stored so; all else, inputs and outputs among it, stays fp32.
///
/// For TensorRT 11 and TensorRT-RTX, which compute in the types that the model has
/// ([`HAS_FP16_FLAG`](crate::HAS_FP16_FLAG)). The products are where the work and the weights are; sums over many
/// terms, logarithms, exponentials and the masks before a softmax lose most in fp16, and keep their precision.
///
/// A product stays as it is if one of its weights is beyond fp16's largest number, 65,504. What is inside loops and
/// conditionals, and weights in other files, stay too. A model that has fp16 in it already is refused.
pub fn products_in_half(model: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Message::default();
    for field in fields(model)? {
        match field.number {
            7 => out.bytes(7, &Graph::read(field.bytes)?.halved()?),
            _ => out.copy(&field),
        }
    }
    Ok(out.0)
}

/// A weight.
struct Weight<'a> {
    field: Field<'a>,
    kind: u64,
    dims: Vec<u64>,
    /// Little-endian; nothing where it is not in this file, or not fp32.
    values: Option<&'a [u8]>,
}

struct Node<'a> {
    field: Field<'a>,
    parts: Vec<Field<'a>>,
}

impl<'a> Node<'a> {
    fn texts(&self, number: u64) -> impl Iterator<Item = &'a str> {
        self.parts
            .iter()
            .filter(move |f| f.number == number)
            .map(Field::text)
    }

    fn is_product(&self) -> bool {
        self.texts(7).all(str::is_empty)
            && self.texts(4).any(|operator| PRODUCTS.contains(&operator))
    }
}

struct Graph<'a> {
    nodes: Vec<Node<'a>>,
    weights: Vec<(&'a str, Weight<'a>)>,
    others: Vec<Field<'a>>,
    outputs: HashSet<&'a str>,
}

impl<'a> Graph<'a> {
    fn read(graph: &'a [u8]) -> Result<Self, Error> {
        let mut read = Self {
            nodes: Vec::new(),
            weights: Vec::new(),
            others: Vec::new(),
            outputs: HashSet::new(),
        };
        for field in fields(graph)? {
            match field.number {
                1 => read.nodes.push(Node {
                    field,
                    parts: fields(field.bytes)?,
                }),
                5 => read.weights.push(weight(field)?),
                _ => read.others.push(field),
            }
            if field.number == 11 && element(&field)? == Some(FLOAT16) {
                return Err(has_half());
            }
            if field.number == 12 {
                read.outputs.extend(
                    fields(field.bytes)?
                        .iter()
                        .filter(|f| f.number == 1)
                        .map(Field::text),
                );
            }
        }
        match read.weights.iter().any(|(_, w)| w.kind == FLOAT16) {
            true => Err(has_half()),
            false => Ok(read),
        }
    }

    fn halved(&self) -> Result<Vec<u8>, Error> {
        let weights: HashMap<&str, &Weight<'_>> =
            self.weights.iter().map(|(name, w)| (*name, w)).collect();
        let mut names = Names::of(self);
        let (mut nodes, mut halves) = (Message::default(), Message::default());
        // The fp16 twin of a tensor, once it has one; and who still needs the original.
        let (mut twins, mut needed) = (HashMap::<&str, String>::new(), self.outputs.clone());
        for node in &self.nodes {
            if !node.is_product() || !node.texts(1).all(|input| fits(weights.get(input).copied())) {
                needed.extend(node.texts(1));
                nodes.copy(&node.field);
                continue;
            }
            let mut inputs = Vec::new();
            for input in node.texts(1) {
                if !input.is_empty() && !twins.contains_key(input) {
                    let twin = names.fresh(input);
                    match weights.get(input) {
                        Some(weight) => halves.bytes(5, &weight.halved(&twin)),
                        None => nodes.bytes(1, &cast(input, &twin, FLOAT16)),
                    }
                    twins.insert(input, twin);
                }
                inputs.push(twins.get(input).cloned().unwrap_or_default());
            }
            let outputs: Vec<(&str, String)> = node
                .texts(2)
                .map(|name| (name, names.fresh(name)))
                .collect();
            let mut product = Message::default();
            inputs
                .iter()
                .for_each(|name| product.bytes(1, name.as_bytes()));
            outputs
                .iter()
                .for_each(|(_, twin)| product.bytes(2, twin.as_bytes()));
            node.parts
                .iter()
                .filter(|f| f.number > 2)
                .for_each(|f| product.copy(f));
            nodes.bytes(1, &product.0);
            outputs
                .iter()
                .for_each(|(name, twin)| nodes.bytes(1, &cast(twin, name, FLOAT)));
        }
        // A loop's body may use any weight, by name.
        let keep_all = self
            .nodes
            .iter()
            .any(|node| has_graph(node).unwrap_or(true));
        let mut out = nodes;
        for (name, weight) in &self.weights {
            if keep_all || needed.contains(name) || !twins.contains_key(name) {
                out.copy(&weight.field);
            }
        }
        out.0.extend(halves.0);
        self.others.iter().for_each(|field| out.copy(field));
        Ok(out.0)
    }
}

/// Whether an input may be fp16: it is no weight, or one that is fp32 and not too large.
fn fits(weight: Option<&Weight<'_>>) -> bool {
    weight.is_none_or(|w| {
        w.values
            .is_some_and(|v| floats(v).all(|f| f.abs() <= LARGEST))
    })
}

fn floats(values: &[u8]) -> impl Iterator<Item = f32> {
    values
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
}

impl Weight<'_> {
    fn halved(&self, name: &str) -> Vec<u8> {
        let raw: Vec<u8> = floats(self.values.unwrap_or_default())
            .flat_map(|f| half(f).to_le_bytes())
            .collect();
        let mut out = Message::default();
        self.dims.iter().for_each(|&n| out.number(1, n));
        out.number(2, FLOAT16);
        out.bytes(8, name.as_bytes());
        out.bytes(9, &raw);
        out.0
    }
}

fn weight(field: Field<'_>) -> Result<(&str, Weight<'_>), Error> {
    let (mut name, mut weight) = (
        "",
        Weight {
            field,
            kind: 0,
            dims: Vec::new(),
            values: None,
        },
    );
    for part in fields(field.bytes)? {
        match part.number {
            1 => weight.dims.extend(part.numbers()?),
            2 => weight.kind = part.value,
            8 => name = part.text(),
            // As raw bytes, or as packed numbers, which are the same bytes.
            4 | 9 => weight.values = Some(part.bytes),
            _ => {}
        }
    }
    let count = weight.dims.iter().try_fold(4_u64, |n, &d| n.checked_mul(d));
    weight.values = weight
        .values
        .filter(|v| weight.kind == FLOAT && count.is_some_and(|c| v.len() as u64 == c));
    Ok((name, weight))
}

/// What a graph's input holds, if it is a tensor.
fn element(input: &Field<'_>) -> Result<Option<u64>, Error> {
    let first =
        |message, number| Ok::<_, Error>(fields(message)?.into_iter().find(|f| f.number == number));
    let Some(kind) = first(input.bytes, 2)? else {
        return Ok(None);
    };
    let Some(tensor) = first(kind.bytes, 1)? else {
        return Ok(None);
    };
    Ok(first(tensor.bytes, 1)?.map(|f| f.value))
}

/// Whether a node has a graph of its own: a loop, a condition.
fn has_graph(node: &Node<'_>) -> Result<bool, Error> {
    for attribute in node.parts.iter().filter(|f| f.number == 5) {
        if fields(attribute.bytes)?
            .iter()
            .any(|f| f.number == 6 || f.number == 11)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn cast(from: &str, to: &str, kind: u64) -> Vec<u8> {
    let (mut attribute, mut node) = (Message::default(), Message::default());
    attribute.bytes(1, b"to");
    attribute.number(3, kind);
    attribute.number(20, 2);
    node.bytes(1, from.as_bytes());
    node.bytes(2, to.as_bytes());
    node.bytes(3, format!("cast {from} to {to}").as_bytes());
    node.bytes(4, b"Cast");
    node.bytes(5, &attribute.0);
    node.0
}

fn has_half() -> Error {
    Error::Argument {
        what: "the model",
        found: "one that has fp16 in it".to_owned(),
        allowed: "it must be in fp32 throughout",
    }
}

/// Names that are taken.
struct Names(HashSet<String>);

impl Names {
    fn of(graph: &Graph<'_>) -> Self {
        let tensors = graph
            .nodes
            .iter()
            .flat_map(|n| n.texts(1).chain(n.texts(2)));
        let weights = graph.weights.iter().map(|(name, _)| *name);
        Self(tensors.chain(weights).map(str::to_owned).collect())
    }

    fn fresh(&mut self, of: &str) -> String {
        let mut name = format!("{of} in half");
        while !self.0.insert(name.clone()) {
            name.push('\'');
        }
        name
    }
}
