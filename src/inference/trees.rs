//! Boosted trees, found in an ONNX graph and walked as trees.
//!
//! ONNX has no trees that every engine knows, so training writes them as products: every row is compared with
//! every node of every tree, and a matrix of −1, 0 and 1 tells which leaf has all of its path agree. That is
//! nodes × leaves multiplications a tree where its depth in comparisons would do: of laptime-1 on a CPU more work
//! than all its networks. [`find`] knows that shape of graph, [`Trees`] answers as it does:
//!
//! ```text
//! rows ─ Gather(columns) ─ Greater(edges) ─ Cast ─ Sub(1, ·) ─ Reshape ─ Transpose ─ MatMul(side) ─ Sub(need)
//!        ─ Relu ─ Mul(value) ─ ReduceSum
//! rows ─ Gather(columns) ─ LessOrEqual(edges) ─ Cast ─ Reshape ─ MatMul(side) ─ Reshape ─ Greater(need) ─ Cast
//!        ─ Mul(value) ─ ReduceSum
//! ```
//!
//! Each node holds two sets of leaves as bits: those that are still possible where the row goes left, and right.
//! What all nodes of a tree agree on is the leaf. There is no branch that depends on a row, so that several rows
//! go side by side through vector registers.
//!
//! **Invariant:** what is not exactly one of these shapes, down to every number of `side` and `need`, is left as it
//! is. Leaves are those of the products; only their sum is added up in another order, and in double precision.

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, tensor_proto::DataType};

/// Most leaves of a tree: the bits of a set.
pub const MAX_LEAVES: usize = 32;
/// Rows that go through a tree side by side.
const LANES: usize = 8;

/// A node: rows with more than `edge` in `column` go right.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    column: u32,
    edge: f32,
    /// Leaves that are still possible on either side.
    left: u32,
    right: u32,
}

/// Trees whose answers are added up.
#[derive(Clone, Debug, PartialEq)]
pub struct Trees {
    nodes: Vec<Node>,
    /// Of each tree: how many nodes it has, and the leaves that can be reached.
    trees: Vec<(usize, u32)>,
    /// [`Trees::leaves`] a tree.
    values: Vec<f32>,
    leaves: usize,
    /// Columns that a row must have.
    columns: usize,
    /// Whether something that is no number goes right (it is not "less or equal") or left.
    nan_right: bool,
}

/// Trees in a graph.
#[derive(Clone, Debug)]
pub struct Found {
    /// What they are fed with, `[rows, columns]`.
    pub input: String,
    /// Name of their sum, `[rows]`.
    pub output: String,
    pub trees: Trees,
}

/// As they stand in the graph: trees × nodes (× leaves).
struct Products<'a> {
    columns: Vec<i64>,
    edges: Vec<f32>,
    side: Constant<'a>,
    /// A leaf is reached where the sum is above this.
    above: Vec<f32>,
    /// Whether what is reached must count exactly 1: its sum less `above` is its weight.
    weighs: bool,
    values: Vec<f32>,
    nan_right: bool,
}

impl Trees {
    fn new(from: &Products) -> Option<Trees> {
        let &[trees, nodes, leaves] = from.side.dims.as_slice() else {
            return None;
        };
        let side = from.side.floats()?;
        let sound = leaves <= MAX_LEAVES
            && trees > 0
            && from.columns.len() == trees * nodes
            && from.edges.len() == trees * nodes
            && from.above.len() == trees * leaves
            && from.values.len() == trees * leaves
            && side.len() == trees * nodes * leaves;
        if !sound {
            return None;
        }
        let mut found = Trees {
            nodes: Vec::with_capacity(trees * nodes),
            trees: Vec::with_capacity(trees),
            values: from.values.clone(),
            leaves,
            columns: 0,
            nan_right: from.nan_right,
        };
        for tree in 0..trees {
            let before = found.nodes.len();
            // How many of a leaf's nodes must have gone left.
            let mut lefts = [0.0_f32; MAX_LEAVES];
            for node in tree * nodes..(tree + 1) * nodes {
                let (mut left, mut right) = (u32::MAX, u32::MAX);
                for (leaf, s) in side[node * leaves..][..leaves].iter().enumerate() {
                    match *s {
                        0.0 => {}
                        1.0 => {
                            right &= !(1 << leaf);
                            lefts[leaf] += 1.0;
                        }
                        -1.0 => left &= !(1 << leaf),
                        _ => return None,
                    }
                }
                if left == u32::MAX && right == u32::MAX {
                    continue; // filled up to the size of the largest tree
                }
                let column = u32::try_from(from.columns[node]).ok()?;
                found.columns = found.columns.max(column as usize + 1);
                found.nodes.push(Node {
                    column,
                    edge: from.edges[node],
                    left,
                    right,
                });
            }
            let mut reachable = 0;
            for (leaf, lefts) in lefts.iter().enumerate().take(leaves) {
                let above = from.above[tree * leaves + leaf];
                if above >= *lefts {
                    continue; // never reached: filled up as well
                }
                let exact = if from.weighs {
                    above == lefts - 1.0
                } else {
                    above >= lefts - 1.0
                };
                if !exact {
                    return None;
                }
                reachable |= 1 << leaf;
            }
            found.trees.push((found.nodes.len() - before, reachable));
        }
        Some(found)
    }

    /// Columns that a row must have at least.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many trees there are.
    pub fn count(&self) -> usize {
        self.trees.len()
    }

    /// The sum of the trees' answers for each row of `width` values.
    pub fn sums(&self, rows: &[f32], width: usize) -> Vec<f32> {
        let count = rows.len().checked_div(width).unwrap_or(0);
        let mut sums = Vec::with_capacity(count);
        if count == 1 {
            self.walk::<1>(rows, width, &mut sums);
        } else {
            for rows in rows.chunks(width * LANES) {
                self.walk::<LANES>(rows, width, &mut sums);
            }
        }
        sums
    }

    /// `N` rows at most, side by side.
    fn walk<const N: usize>(&self, rows: &[f32], width: usize, sums: &mut Vec<f32>) {
        // By column; lanes without a row hold zeros, and nobody asks for their sums.
        let mut x = vec![[0.0_f32; N]; width];
        for (lane, row) in rows.chunks_exact(width).enumerate() {
            for (column, value) in x.iter_mut().zip(row) {
                // Among the numbers infinity is what is least likely to go left, and -infinity right.
                column[lane] = match value.is_nan() {
                    true if self.nan_right => f32::INFINITY,
                    true => f32::NEG_INFINITY,
                    false => *value,
                };
            }
        }
        let mut sum = [0.0_f64; N];
        let mut nodes = self.nodes.as_slice();
        for ((count, reachable), values) in
            self.trees.iter().zip(self.values.chunks_exact(self.leaves))
        {
            let (own, rest) = nodes.split_at(*count);
            nodes = rest;
            let mut possible = [*reachable; N];
            for node in own {
                let x = &x[node.column as usize];
                for (possible, x) in possible.iter_mut().zip(x) {
                    *possible &= if *x > node.edge {
                        node.right
                    } else {
                        node.left
                    };
                }
            }
            for (sum, possible) in sum.iter_mut().zip(possible) {
                let leaf = possible.trailing_zeros() as usize;
                *sum += f64::from(values.get(leaf).copied().unwrap_or(0.0));
            }
        }
        let count = rows.len() / width;
        sums.extend(sum.iter().take(count).map(|s| *s as f32));
    }
}

/// The trees of a graph.
pub fn find(graph: &GraphProto) -> Vec<Found> {
    let graph = Graph::of(graph);
    let sums = graph.nodes.iter().filter(|n| n.op_type == "ReduceSum");
    sums.filter_map(|sum| graph.trees(sum)).collect()
}

/// A graph, to be asked for names.
struct Graph<'a> {
    nodes: &'a [NodeProto],
    /// Who makes a value.
    makers: HashMap<&'a str, &'a NodeProto>,
    constants: HashMap<&'a str, &'a TensorProto>,
}

/// A tensor that is part of the graph.
struct Constant<'a> {
    dims: Vec<usize>,
    proto: &'a TensorProto,
}

impl<'a> Graph<'a> {
    fn of(graph: &'a GraphProto) -> Graph<'a> {
        let mut constants: HashMap<&str, &TensorProto> = HashMap::new();
        constants.extend(graph.initializer.iter().map(|t| (t.name.as_str(), t)));
        for node in graph.node.iter().filter(|n| n.op_type == "Constant") {
            let value = node.attribute.iter().find(|a| a.name == "value");
            if let (Some(name), Some(tensor)) =
                (node.output.first(), value.and_then(|v| v.t.as_ref()))
            {
                constants.insert(name, tensor);
            }
        }
        let makers = graph.node.iter();
        Graph {
            nodes: &graph.node,
            makers: makers
                .flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n)))
                .collect(),
            constants,
        }
    }

    /// The constant that is input `at` of a node.
    fn constant(&self, node: &NodeProto, at: usize) -> Option<Constant<'a>> {
        let proto = *self.constants.get(node.input.get(at)?.as_str())?;
        let dims = proto.dims.iter().map(|d| usize::try_from(*d));
        Some(Constant {
            dims: dims.collect::<Result<_, _>>().ok()?,
            proto,
        })
    }

    /// The node that makes input `at` of a node, if it is one of that kind.
    fn maker(&self, node: &NodeProto, at: usize, kind: &str) -> Option<&'a NodeProto> {
        let maker = *self.makers.get(node.input.get(at)?.as_str())?;
        (maker.op_type == kind).then_some(maker)
    }

    /// The trees that end in that sum.
    fn trees(&self, sum: &NodeProto) -> Option<Found> {
        let keeps = attribute(sum, "keepdims").is_none_or(|a| a.i != 0);
        let value = self.maker(sum, 0, "Mul")?;
        let axes = self.constant(sum, 1)?.integers()?;
        let (products, gather) = match axes.as_slice() {
            [0, 2] => self.by_tree(value)?,
            [1, 2] => self.by_row(value)?,
            _ => return None,
        };
        let along = attribute(gather, "axis").is_some_and(|a| a.i == 1);
        if keeps || !along {
            return None;
        }
        Some(Found {
            input: gather.input.first()?.clone(),
            output: sum.output.first()?.clone(),
            trees: Trees::new(&products)?,
        })
    }

    /// Trees first: `[trees, rows, leaves]`, and a leaf that is reached weighs what its sum is above `need`.
    fn by_tree(&self, value: &NodeProto) -> Option<(Products<'a>, &'a NodeProto)> {
        let relu = self.maker(value, 0, "Relu")?;
        let need = self.maker(relu, 0, "Sub")?;
        let product = self.maker(need, 0, "MatMul")?;
        let side = self.constant(product, 1)?;
        let turned = self.maker(product, 0, "Transpose")?;
        let shaped = self.maker(turned, 0, "Reshape")?;
        let left = self.maker(shaped, 0, "Sub")?;
        let cast = self.maker(left, 1, "Cast")?;
        let compared = self.maker(cast, 0, "Greater")?;
        let gather = self.maker(compared, 0, "Gather")?;
        let &[trees, nodes, leaves] = side.dims.as_slice() else {
            return None;
        };
        let one = self.constant(left, 0)?.floats()?;
        let (above, values) = (self.constant(need, 1)?, self.constant(value, 1)?);
        let alike = attribute(turned, "perm").is_some_and(|a| a.ints == [1, 0, 2])
            && self.constant(shaped, 1)?.integers()? == [-1, trees as i64, nodes as i64]
            && one == [1.0]
            && is_float(cast)
            && [&above, &values]
                .iter()
                .all(|c| c.dims == [trees, 1, leaves]);
        alike.then_some((
            Products {
                columns: self.constant(gather, 1)?.integers()?,
                edges: self.constant(compared, 1)?.floats()?,
                above: above.floats()?,
                values: values.floats()?,
                weighs: true,
                // "Not greater" is left.
                nan_right: false,
                side,
            },
            gather,
        ))
    }

    /// Rows first: `[rows, trees, leaves]`, and a leaf is reached where its sum is above `need`.
    fn by_row(&self, value: &NodeProto) -> Option<(Products<'a>, &'a NodeProto)> {
        let weight = self.maker(value, 0, "Cast")?;
        let reached = self.maker(weight, 0, "Greater")?;
        let flat = self.maker(reached, 0, "Reshape")?;
        let product = self.maker(flat, 0, "MatMul")?;
        let side = self.constant(product, 1)?;
        let shaped = self.maker(product, 0, "Reshape")?;
        let cast = self.maker(shaped, 0, "Cast")?;
        let compared = self.maker(cast, 0, "LessOrEqual")?;
        let gather = self.maker(compared, 0, "Gather")?;
        let &[trees, nodes, leaves] = side.dims.as_slice() else {
            return None;
        };
        let (above, values) = (self.constant(reached, 1)?, self.constant(value, 1)?);
        let (trees_i, nodes_i, leaves_i) = (trees as i64, nodes as i64, leaves as i64);
        let alike = self.constant(shaped, 1)?.integers()? == [-1, trees_i, 1, nodes_i]
            && self.constant(flat, 1)?.integers()? == [-1, trees_i, leaves_i]
            && is_float(cast)
            && is_float(weight)
            && [&above, &values].iter().all(|c| c.dims == [trees, leaves]);
        alike.then_some((
            Products {
                columns: self.constant(gather, 1)?.integers()?,
                edges: self.constant(compared, 1)?.floats()?,
                above: above.floats()?,
                values: values.floats()?,
                weighs: false,
                // "Less or equal" is left.
                nan_right: true,
                side,
            },
            gather,
        ))
    }
}

impl Constant<'_> {
    fn floats(&self) -> Option<Vec<f32>> {
        if self.proto.data_type != DataType::Float as i32 {
            return None;
        }
        if self.proto.raw_data.is_empty() {
            return Some(self.proto.float_data.clone());
        }
        let (words, rest) = self.proto.raw_data.as_chunks::<4>();
        rest.is_empty()
            .then(|| words.iter().map(|w| f32::from_le_bytes(*w)).collect())
    }

    fn integers(&self) -> Option<Vec<i64>> {
        if self.proto.data_type != DataType::Int64 as i32 {
            return None;
        }
        if self.proto.raw_data.is_empty() {
            return Some(self.proto.int64_data.clone());
        }
        let (words, rest) = self.proto.raw_data.as_chunks::<8>();
        rest.is_empty()
            .then(|| words.iter().map(|w| i64::from_le_bytes(*w)).collect())
    }
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a tract_onnx::pb::AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

fn is_float(cast: &NodeProto) -> bool {
    attribute(cast, "to").is_some_and(|a| a.i == i64::from(DataType::Float as i32))
}
