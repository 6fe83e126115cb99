//! Models of the kinds that trackside has, small.

use super::{Attribute, Kind, Model};

/// An LSTM over a sequence, attention over its outputs, three numbers out: `x` \[4, 10, 6\] → `y` \[4, 3\].
pub fn lstm_with_attention(float: Kind) -> Vec<u8> {
    const BATCH: i64 = 4;
    const STEPS: i64 = 10;
    const FEATURES: i64 = 6;
    const HIDDEN: i64 = 16;
    let mut m = Model::new(float);
    m.input("x", &[BATCH, STEPS, FEATURES]);
    let steps_first = m.node(
        "Transpose",
        &["x"],
        &[("perm", Attribute::Ints(&[1, 0, 2]))],
    );
    let w = m.weights(&[1, 4 * HIDDEN, FEATURES]);
    let r = m.weights(&[1, 4 * HIDDEN, HIDDEN]);
    let b = m.weights(&[1, 8 * HIDDEN]);
    let all = m.node(
        "LSTM",
        &[&steps_first, &w, &r, &b],
        &[("hidden_size", Attribute::Int(HIDDEN))],
    );
    let direction = m.integers(&[1]);
    let all = m.node("Squeeze", &[&all, &direction], &[]);
    let all = m.node(
        "Transpose",
        &[&all],
        &[("perm", Attribute::Ints(&[1, 0, 2]))],
    );
    let query = m.weights(&[HIDDEN, 1]);
    let scores = m.node("MatMul", &[&all, &query], &[]);
    let shares = m.node("Softmax", &[&scores], &[("axis", Attribute::Int(1))]);
    let weighted = m.node("Mul", &[&shares, &all], &[]);
    let steps = m.integers(&[1]);
    let seen = m.node(
        "ReduceSum",
        &[&weighted, &steps],
        &[("keepdims", Attribute::Int(0))],
    );
    let (head, bias) = (m.weights(&[HIDDEN, 3]), m.weights(&[3]));
    let out = m.node("MatMul", &[&seen, &head], &[]);
    m.node_to("Add", &[&out, &bias], "y", &[]);
    m.output("y", &[BATCH, 3]);
    m.finish()
}

/// Two layers of a transformer over cars: `cars` \[1, `cars`, 32\] → `places` \[1, `cars`, 22\].
pub fn transformer(float: Kind, cars: i64) -> Vec<u8> {
    const WIDTH: i64 = 32;
    let mut m = Model::new(float);
    m.input("cars", &[1, cars, WIDTH]);
    let mut x = "cars".to_owned();
    for _ in 0..2 {
        x = transformer_layer(&mut m, &x, cars, WIDTH);
    }
    let head = m.weights(&[WIDTH, 22]);
    let logits = m.node("MatMul", &[&x, &head], &[]);
    m.node_to(
        "Softmax",
        &[&logits],
        "places",
        &[("axis", Attribute::Int(-1))],
    );
    m.output("places", &[1, cars, 22]);
    m.finish()
}

fn normalised(m: &mut Model, x: &str, width: i64) -> String {
    let (scale, bias) = (m.weights(&[width]), m.weights(&[width]));
    let attributes = [
        ("axis", Attribute::Int(-1)),
        ("epsilon", Attribute::Float(1e-5)),
    ];
    m.node("LayerNormalization", &[x, &scale, &bias], &attributes)
}

fn transformer_layer(m: &mut Model, x: &str, cars: i64, width: i64) -> String {
    const HEADS: i64 = 4;
    let normal = normalised(m, x, width);
    let split = m.integers(&[1, cars, HEADS, width / HEADS]);
    let [q, k, v] = [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]].map(|order: [i64; 4]| {
        let w = m.weights(&[width, width]);
        let all = m.node("MatMul", &[&normal, &w], &[]);
        let heads = m.node("Reshape", &[&all, &split], &[]);
        m.node("Transpose", &[&heads], &[("perm", Attribute::Ints(&order))])
    });
    let scale = m.constant(&[1], &[1.0 / ((width / HEADS) as f32).sqrt()]);
    let scores = m.node("MatMul", &[&q, &k], &[]);
    let scores = m.node("Mul", &[&scores, &scale], &[]);
    let shares = m.node("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
    let seen = m.node("MatMul", &[&shares, &v], &[]);
    let seen = m.node(
        "Transpose",
        &[&seen],
        &[("perm", Attribute::Ints(&[0, 2, 1, 3]))],
    );
    let join = m.integers(&[1, cars, width]);
    let seen = m.node("Reshape", &[&seen, &join], &[]);
    let w = m.weights(&[width, width]);
    let seen = m.node("MatMul", &[&seen, &w], &[]);
    let x = m.node("Add", &[x, &seen], &[]);
    // The feed-forward half, with an exact GELU.
    let normal = normalised(m, &x, width);
    let up = m.weights(&[width, 2 * width]);
    let h = m.node("MatMul", &[&normal, &up], &[]);
    let (root, one, half) = (
        m.constant(&[1], &[2_f32.sqrt()]),
        m.constant(&[1], &[1.0]),
        m.constant(&[1], &[0.5]),
    );
    let erf = m.node("Div", &[&h, &root], &[]);
    let erf = m.node("Erf", &[&erf], &[]);
    let erf = m.node("Add", &[&erf, &one], &[]);
    let h = m.node("Mul", &[&h, &erf], &[]);
    let h = m.node("Mul", &[&h, &half], &[]);
    let down = m.weights(&[2 * width, width]);
    let h = m.node("MatMul", &[&h, &down], &[]);
    m.node("Add", &[&x, &h], &[])
}

/// Two dense layers with a dynamic batch: `state` \[batch, 8\] → `values` \[batch, 10\].
pub fn dense(float: Kind) -> Vec<u8> {
    let mut m = Model::new(float);
    m.input("state", &[-1, 8]);
    let (first, second) = (m.weights(&[8, 16]), m.weights(&[16, 10]));
    let h = m.node("MatMul", &["state", &first], &[]);
    let h = m.node("Relu", &[&h], &[]);
    m.node_to("MatMul", &[&h, &second], "values", &[]);
    m.output("values", &[-1, 10]);
    m.finish()
}

/// A model with an operator that nobody has.
pub fn unknown_operator() -> Vec<u8> {
    let mut m = Model::new(Kind::F32);
    m.input("state", &[1, 8]);
    m.node_to("Undercut", &["state"], "values", &[]);
    m.output("values", &[1, 8]);
    m.finish()
}

/// A product of matrices that do not fit: \[1, 8\] · \[9, 4\].
pub fn wrong_shapes() -> Vec<u8> {
    let mut m = Model::new(Kind::F32);
    m.input("state", &[1, 8]);
    let w = m.weights(&[9, 4]);
    m.node_to("MatMul", &["state", &w], "values", &[]);
    m.output("values", &[1, 4]);
    m.finish()
}
