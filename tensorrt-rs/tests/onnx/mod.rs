//! Writes ONNX models: just enough of the format (protocol buffers) for the models that the tests build.

// Each test program uses some of it.
#![allow(dead_code)]

pub mod models;

/// What a tensor holds, as ONNX counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F32 = 1,
    I64 = 7,
    F16 = 10,
}

/// A message of protocol buffers, being written.
#[derive(Clone, Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: i64) {
        self.varint(field << 3);
        self.varint(value as u64);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn message(&mut self, field: u64, value: &Self) {
        self.bytes(field, &value.0);
    }
}

/// The value of a node's attribute.
#[derive(Clone, Debug)]
pub enum Attribute<'a> {
    Int(i64),
    Ints(&'a [i64]),
    Float(f32),
}

/// A model, being written. Its floating-point tensors are all of one kind.
#[derive(Debug)]
pub struct Model {
    graph: Message,
    float: Kind,
    names: usize,
    seed: u64,
}

impl Model {
    pub fn new(float: Kind) -> Self {
        Self {
            graph: Message::default(),
            float,
            names: 0,
            seed: 1,
        }
    }

    /// An input or output of the kind's floating-point numbers; below 0 is a dynamic dimension.
    fn value(&mut self, field: u64, name: &str, shape: &[i64]) {
        let (mut dims, mut tensor, mut kind, mut value) = (
            Message::default(),
            Message::default(),
            Message::default(),
            Message::default(),
        );
        for (i, &extent) in shape.iter().enumerate() {
            let mut dim = Message::default();
            match extent {
                ..0 => dim.bytes(2, format!("d{i}").as_bytes()),
                _ => dim.number(1, extent),
            }
            dims.message(1, &dim);
        }
        tensor.number(1, self.float as i64);
        tensor.message(2, &dims);
        kind.message(1, &tensor);
        value.bytes(1, name.as_bytes());
        value.message(2, &kind);
        self.graph.message(field, &value);
    }

    pub fn input(&mut self, name: &str, shape: &[i64]) {
        self.value(11, name, shape);
    }

    pub fn output(&mut self, name: &str, shape: &[i64]) {
        self.value(12, name, shape);
    }

    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}_{}", self.names)
    }

    fn initializer(&mut self, kind: Kind, shape: &[i64], raw: &[u8]) -> String {
        let name = self.name("weight");
        let mut tensor = Message::default();
        for &extent in shape {
            tensor.number(1, extent);
        }
        tensor.number(2, kind as i64);
        tensor.bytes(8, name.as_bytes());
        tensor.bytes(9, raw);
        self.graph.message(5, &tensor);
        name
    }

    /// A constant of integers: axes, a shape.
    pub fn integers(&mut self, values: &[i64]) -> String {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(Kind::I64, &[values.len() as i64], &raw)
    }

    /// A constant of floating-point numbers.
    pub fn constant(&mut self, shape: &[i64], values: &[f32]) -> String {
        let raw: Vec<u8> = match self.float {
            Kind::F16 => values.iter().flat_map(|&v| half(v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        self.initializer(self.float, shape, &raw)
    }

    /// Weights, small and pseudo-random.
    pub fn weights(&mut self, shape: &[i64]) -> String {
        let count = shape.iter().product::<i64>() as usize;
        let values: Vec<f32> = (0..count)
            .map(|_| {
                self.seed = self
                    .seed
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                ((self.seed >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.2
            })
            .collect();
        self.constant(shape, &values)
    }

    /// A node with one output, whose name it returns.
    pub fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> String {
        let output = self.name(operator);
        self.node_to(operator, inputs, &output, attributes);
        output
    }

    /// A node whose output is called `output`.
    pub fn node_to(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, Attribute)],
    ) {
        let mut node = Message::default();
        for input in inputs {
            node.bytes(1, input.as_bytes());
        }
        node.bytes(2, output.as_bytes());
        node.bytes(3, format!("make_{output}").as_bytes());
        node.bytes(4, operator.as_bytes());
        for (name, value) in attributes {
            let mut attribute = Message::default();
            attribute.bytes(1, name.as_bytes());
            match value {
                Attribute::Float(f) => {
                    attribute.float(2, *f);
                    attribute.number(20, 1);
                }
                Attribute::Int(i) => {
                    attribute.number(3, *i);
                    attribute.number(20, 2);
                }
                Attribute::Ints(ints) => {
                    ints.iter().for_each(|&i| attribute.number(8, i));
                    attribute.number(20, 7);
                }
            }
            node.message(5, &attribute);
        }
        self.graph.message(1, &node);
    }

    /// The file.
    pub fn finish(mut self) -> Vec<u8> {
        self.graph.bytes(2, b"test");
        let (mut opset, mut model) = (Message::default(), Message::default());
        opset.bytes(1, b"");
        opset.number(2, 17);
        model.number(1, 8);
        model.message(7, &self.graph);
        model.message(8, &opset);
        model.0
    }
}

/// The nearest IEEE half; what is too small becomes 0.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    if exponent <= 0 {
        return sign;
    }
    // Rounding may carry into the exponent, which is right.
    let rounded = ((exponent as u32) << 10 | (bits >> 13 & 0x3ff)) + (bits >> 12 & 1);
    sign | u16::try_from(rounded.min(0x7c00)).expect("at most infinity")
}
