//! ONNX models, with their matrix products in fp16.
//!
//! TensorRT 11 and TensorRT-RTX compute in the types that the model has: there fp16 means another model.
//! [`products_in_half`] makes it. [`products_as_in_half`] makes one that computes in fp32 what that one computes,
//! all that goes into and comes out of a product rounded to fp16: it tells on any engine, a CPU's too, what fp16
//! costs.
//!
//! A model is taken apart as protocol buffers and put together again; every field that nobody asked for stays as
//! it was. No ONNX library is needed.

mod float;
mod wire;

use std::collections::{HashMap, HashSet};

use float::{LARGEST, half, single};
use wire::{Field, Message, fields};

/// ONNX's numbers for what a tensor holds.
const FLOAT: u64 = 1;
const FLOAT16: u64 = 10;
/// The operators that are matrix products.
const PRODUCTS: [&str; 2] = ["MatMul", "Gemm"];

/// Why a model cannot be rewritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model: {found}; {allowed}")]
pub struct Error {
    /// What was found.
    pub found: String,
    /// What may be given.
    pub allowed: &'static str,
}

/// Rewrites an fp32 ONNX model so that its matrix products (`MatMul`, `Gemm`) are computed in fp16, their weights
/// stored so; all else, inputs and outputs among it, stays fp32.
///
/// The products are where the work and the weights are; sums over many terms, logarithms, exponentials and the
/// masks before a softmax lose most in fp16, and keep their precision. Weights that are stored in fp16 and cast
/// to fp32 before their use are taken as they are stored.
///
/// A product stays as it is if one of its weights is beyond fp16's largest number, 65,504. What is inside loops and
/// conditionals, and weights in other files, stay too.
///
/// # Errors
/// For bytes that are no ONNX file, and for a model that computes in fp16 already.
pub fn products_in_half(model: &[u8]) -> Result<Vec<u8>, Error> {
    rewrite(model, Product::Half)
}

/// Rewrites an fp32 ONNX model so that it computes in fp32 what [`products_in_half`] would make it compute: what
/// goes into a product is rounded to fp16 first, and what comes out of it too; the product itself is summed in
/// fp32, as tensor cores sum.
///
/// # Errors
/// Those of [`products_in_half`].
pub fn products_as_in_half(model: &[u8]) -> Result<Vec<u8>, Error> {
    rewrite(model, Product::Rounded)
}

/// What becomes of a product.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Product {
    Half,
    Rounded,
}

fn rewrite(model: &[u8], product: Product) -> Result<Vec<u8>, Error> {
    let mut out = Message::default();
    for field in fields(model)? {
        match field.number {
            7 => out.bytes(7, &Graph::read(field.bytes)?.rewritten(product)),
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

    fn is(&self, operators: &[&str]) -> bool {
        self.texts(7).all(str::is_empty)
            && self.texts(4).any(|operator| operators.contains(&operator))
    }

    /// What a cast to fp32 casts, and what comes of it.
    fn to_single(&self) -> Option<(&'a str, &'a str)> {
        let to = |f: &&Field<'_>| {
            let parts = fields(f.bytes).unwrap_or_default();
            parts.iter().any(|p| p.number == 1 && p.text() == "to")
                && parts.iter().any(|p| p.number == 3 && p.value == FLOAT)
        };
        let casts =
            self.is(&["Cast"]) && self.parts.iter().filter(|f| f.number == 5).any(|f| to(&f));
        casts.then(|| Some((self.texts(1).next()?, self.texts(2).next()?)))?
    }
}

struct Graph<'a> {
    nodes: Vec<Node<'a>>,
    weights: Vec<(&'a str, Weight<'a>)>,
    others: Vec<Field<'a>>,
    outputs: HashSet<&'a str>,
    /// What the cast of a weight that is stored in fp16 gives, and that weight.
    stored: HashMap<&'a str, &'a str>,
}

impl<'a> Graph<'a> {
    fn read(graph: &'a [u8]) -> Result<Self, Error> {
        let mut read = Self {
            nodes: Vec::new(),
            weights: Vec::new(),
            others: Vec::new(),
            outputs: HashSet::new(),
            stored: HashMap::new(),
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
        read.find_stored()?;
        Ok(read)
    }

    /// Weights in fp16 are stored so, if all that uses them is a cast to fp32.
    fn find_stored(&mut self) -> Result<(), Error> {
        let half = |w: &&(&'a str, Weight<'a>)| w.1.kind == FLOAT16;
        let halves: HashSet<&str> = self
            .weights
            .iter()
            .filter(half)
            .map(|(name, _)| *name)
            .collect();
        for node in &self.nodes {
            if !node.texts(1).any(|input| halves.contains(input)) {
                continue;
            }
            let (from, to) = node.to_single().ok_or_else(has_half)?;
            self.stored.insert(to, from);
        }
        Ok(())
    }

    /// Whether it is a product whose weights can be in fp16.
    fn changes(&self, node: &Node<'_>, weights: &HashMap<&str, &Weight<'_>>) -> bool {
        node.is(&PRODUCTS) && node.texts(1).all(|input| fits(weights.get(input).copied()))
    }

    fn rewritten(&self, product: Product) -> Vec<u8> {
        let weights: HashMap<&str, &Weight<'_>> =
            self.weights.iter().map(|(name, w)| (*name, w)).collect();
        let changed: Vec<bool> = self
            .nodes
            .iter()
            .map(|n| self.changes(n, &weights))
            .collect();
        // A loop's body may use any weight, by name.
        let keep_all = self
            .nodes
            .iter()
            .any(|node| has_graph(node).unwrap_or(true));
        // Who needs what as it was.
        let mut needed = self.outputs.clone();
        for (node, changed) in self.nodes.iter().zip(&changed) {
            let unpacks = node
                .to_single()
                .is_some_and(|(_, to)| self.stored.contains_key(to));
            if !changed && !unpacks {
                needed.extend(node.texts(1));
            }
        }
        let is_needed = |name: &str| keep_all || needed.contains(name);

        let mut out = Rewritten::new(self, product);
        for (node, changed) in self.nodes.iter().zip(&changed) {
            if *changed {
                out.product(node, &weights, &self.stored);
                continue;
            }
            let unpacked = node
                .to_single()
                .filter(|(_, to)| self.stored.contains_key(to));
            // In fp32 the weight's cast gives what is wanted: a number that fp16 has.
            if unpacked.is_none_or(|(_, to)| product == Product::Rounded || is_needed(to)) {
                out.nodes.copy(&node.field);
            }
        }
        let Rewritten {
            nodes,
            weights: twins,
            twin_of,
            ..
        } = out;
        let mut out = nodes;
        for (name, weight) in &self.weights {
            if is_needed(name) || weight.kind == FLOAT16 || !twin_of.contains_key(name) {
                out.copy(&weight.field);
            }
        }
        out.0.extend(twins.0);
        self.others.iter().for_each(|field| out.copy(field));
        out.0
    }
}

/// A graph, being written.
struct Rewritten<'a> {
    product: Product,
    names: Names,
    nodes: Message,
    weights: Message,
    /// The twin of a tensor, rounded, once it has one.
    twin_of: HashMap<&'a str, String>,
}

impl<'a> Rewritten<'a> {
    fn new(graph: &Graph<'a>, product: Product) -> Self {
        Self {
            product,
            names: Names::of(graph),
            nodes: Message::default(),
            weights: Message::default(),
            twin_of: HashMap::new(),
        }
    }

    fn product(
        &mut self,
        node: &Node<'a>,
        weights: &HashMap<&str, &Weight<'_>>,
        stored: &HashMap<&'a str, &'a str>,
    ) {
        let mut inputs = Vec::new();
        for input in node.texts(1) {
            if !input.is_empty() && !self.twin_of.contains_key(input) {
                let twin = self.twin(
                    input,
                    weights.get(input).copied(),
                    stored.get(input).copied(),
                );
                self.twin_of.insert(input, twin);
            }
            inputs.push(self.twin_of.get(input).cloned().unwrap_or_default());
        }
        let outputs: Vec<(&str, String)> = node
            .texts(2)
            .map(|name| (name, self.names.fresh(name)))
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
        self.nodes.bytes(1, &product.0);
        for (name, twin) in outputs {
            match self.product {
                Product::Half => self.nodes.bytes(1, &cast(&twin, name, FLOAT)),
                Product::Rounded => {
                    let rounded = self.names.fresh(name);
                    self.nodes.bytes(1, &cast(&twin, &rounded, FLOAT16));
                    self.nodes.bytes(1, &cast(&rounded, name, FLOAT));
                }
            }
        }
    }

    /// Makes the twin of a product's input; gives its name.
    fn twin(&mut self, input: &str, weight: Option<&Weight<'_>>, stored: Option<&str>) -> String {
        match (self.product, stored) {
            (Product::Half, Some(stored)) => return stored.to_owned(),
            (Product::Rounded, Some(_)) => return input.to_owned(),
            _ => {}
        }
        let twin = self.names.fresh(input);
        match (self.product, weight) {
            (product, Some(weight)) => self.weights.bytes(5, &weight.twin(&twin, product)),
            (Product::Half, None) => self.nodes.bytes(1, &cast(input, &twin, FLOAT16)),
            (Product::Rounded, None) => {
                let between = self.names.fresh(input);
                self.nodes.bytes(1, &cast(input, &between, FLOAT16));
                self.nodes.bytes(1, &cast(&between, &twin, FLOAT));
            }
        }
        twin
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
    fn twin(&self, name: &str, product: Product) -> Vec<u8> {
        let values = floats(self.values.unwrap_or_default()).map(half);
        let (kind, raw): (u64, Vec<u8>) = match product {
            Product::Half => (FLOAT16, values.flat_map(u16::to_le_bytes).collect()),
            Product::Rounded => (
                FLOAT,
                values.flat_map(|h| single(h).to_le_bytes()).collect(),
            ),
        };
        let mut out = Message::default();
        self.dims.iter().for_each(|&n| out.number(1, n));
        out.number(2, kind);
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
    Error {
        found: "one that computes in fp16".to_owned(),
        allowed: "it must compute in fp32 throughout",
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
