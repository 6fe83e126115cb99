//! A small network through tract, and everything that a manifest may get wrong.

use std::path::Path;

use tract_onnx::prelude::Framework;

use super::*;

/// `y = relu(x · w) + b`, dynamic batch, written by hand in ONNX's wire format.
fn tiny() -> Vec<u8> {
    fn varint(mut v: u64, out: &mut Vec<u8>) {
        while v >= 0x80 {
            out.push((v as u8) | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
    }
    fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        varint(field << 3 | 2, &mut out);
        varint(value.len() as u64, &mut out);
        out.extend(value);
        out
    }
    fn int(field: u64, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        varint(field << 3, &mut out);
        varint(value, &mut out);
        out
    }
    let text = |field, s: &str| bytes(field, s.as_bytes());
    let node = |op: &str, inputs: &[&str], output: &str| {
        let mut n: Vec<u8> = inputs.iter().flat_map(|i| text(1, i)).collect();
        n.extend([text(2, output), text(3, output), text(4, op)].concat());
        bytes(1, &n)
    };
    let weights = |name: &str, dims: &[u64], values: &[f32]| {
        let mut t: Vec<u8> = dims.iter().flat_map(|d| int(1, *d)).collect();
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        t.extend([int(2, 1), text(8, name), bytes(9, &raw)].concat());
        bytes(5, &t)
    };
    let tensor = |field, name: &str, size: u64| {
        let dims = [bytes(1, &text(2, "batch")), bytes(1, &int(1, size))].concat();
        let kind = bytes(1, &[int(1, 1), bytes(2, &dims)].concat());
        bytes(field, &[text(1, name), bytes(2, &kind)].concat())
    };
    let graph = [
        node("MatMul", &["x", "w"], "h"),
        node("Relu", &["h"], "r"),
        node("Add", &["r", "b"], "y"),
        text(2, "tiny"),
        weights("w", &[2, 3], &[1.0, 0.0, -1.0, 0.0, 1.0, 1.0]),
        weights("b", &[3], &[0.5, 0.5, 0.5]),
        tensor(11, "x", 2),
        tensor(12, "y", 3),
    ]
    .concat();
    [int(1, 8), bytes(7, &graph), bytes(8, &int(2, 13))].concat()
}

fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(bytes);
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

fn folder(manifest: impl Fn(&str) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let onnx = tiny();
    std::fs::write(dir.path().join("tiny-1.onnx"), &onnx).unwrap();
    let text = format!(
        "[[model]]\nname = 'tiny'\nversion = '1'\nfile = 'tiny-1.onnx'\nsha256 = '{}'\nfeatures = 1\n\
         trained_on = 'nothing'\nbatches = [1, 4]\nfixture = 'tiny-1.json'\n\
         inputs = [{{ name = 'x', shape = [-1, 2] }}]\noutputs = [{{ name = 'y', shape = [-1, 3] }}]\n\
         calibration = {{ widen = [1.5, 2.0] }}\n",
        digest(&onnx)
    );
    std::fs::write(dir.path().join("models.toml"), manifest(&text)).unwrap();
    write_fixture(dir.path(), "4.5");
    dir
}

fn write_fixture(dir: &Path, first: &str) {
    let text = format!(
        r#"{{"cases": [{{"inputs": [{{"name": "x", "shape": [1, 2], "values": [4, 2]}}],
            "outputs": [{{"name": "y", "shape": [1, 3], "values": [{first}, 2.5, 0.5]}}]}}]}}"#
    );
    std::fs::write(dir.join("tiny-1.json"), text).unwrap();
}

fn same(text: &str) -> String {
    text.to_owned()
}

#[test]
fn a_model_answers_and_batches_agree() {
    let dir = folder(same);
    let engine = load(dir.path(), "tiny").unwrap();
    assert_eq!(
        (engine.backend(), engine.model().id().as_str()),
        ("tract", "tiny-1")
    );
    assert_eq!(engine.model().calibration("widen"), Some(&[1.5, 2.0][..]));
    let rows = vec![4.0, 2.0, -1.0, 3.0, 0.0, 0.0, 1.0, 1.0];
    let all = engine
        .run(&[Tensor::new("x", &[4, 2], rows.clone())])
        .unwrap();
    assert_eq!(all[0].shape, [4, 3]);
    for (row, expected) in rows.chunks(2).zip(all[0].values.chunks(3)) {
        let one = engine
            .run(&[Tensor::new("x", &[1, 2], row.to_vec())])
            .unwrap();
        assert_eq!(one[0].values, expected);
    }
    let other = engine.run(&[Tensor::new("x", &[2, 2], vec![0.0; 4])]);
    assert!(
        other
            .unwrap_err()
            .to_string()
            .contains("a batch of 2; there are plans for [1, 4]")
    );
    let misnamed = engine.run(&[Tensor::new("z", &[1, 2], vec![0.0; 2])]);
    assert!(
        misnamed
            .unwrap_err()
            .to_string()
            .contains("\"z\" of shape [1, 2]")
    );
    let infinite = engine.run(&[Tensor::new("x", &[1, 2], vec![f32::MAX, f32::MAX])]);
    assert!(infinite.is_ok_and(|y| y[0].values[0].is_finite()));
    let nan = engine.run(&[Tensor::new("x", &[1, 2], vec![f32::INFINITY, 0.0])]);
    assert!(nan.unwrap_err().to_string().contains("not finite"));
}

#[test]
fn a_changed_file_is_refused_by_name() {
    let dir = folder(same);
    let path = dir.path().join("tiny-1.onnx");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let refused = load(dir.path(), "tiny").err().unwrap().to_string();
    assert!(
        refused.contains("tiny-1") && refused.contains("SHA-256"),
        "{refused}"
    );
}

#[test]
fn a_model_that_answers_otherwise_is_refused() {
    let dir = folder(same);
    write_fixture(dir.path(), "4.6");
    let refused = load(dir.path(), "tiny").err().unwrap().to_string();
    assert!(refused.contains("off its recorded answer by"), "{refused}");
}

#[test]
fn what_is_no_model_is_an_error_and_no_panic() {
    for garbage in [&b""[..], b"not onnx at all", &[0xff; 64]] {
        let dir = folder(|text| {
            let (start, end) = (text.find("sha256").unwrap(), text.find("features").unwrap());
            let line = format!("sha256 = '{}'\n", digest(garbage));
            format!("{}{line}{}", &text[..start], &text[end..])
        });
        std::fs::write(dir.path().join("tiny-1.onnx"), garbage).unwrap();
        let refused = load(dir.path(), "tiny").err().unwrap().to_string();
        assert!(refused.contains("tiny-1"), "{refused}");
    }
}

#[test]
fn a_wrong_manifest_says_what_is_wrong() {
    for (from, to, said) in [
        ("tiny-1.onnx", "../tiny-1.onnx", "no folders"),
        ("batches = [1, 4]", "batches = [4, 1]", "ascending"),
        ("features = 1", "features = 'one'", "line 6"),
        ("features = 1", "feature = 1", "unknown field"),
        ("shape = [-1, 2]", "shape = [-1, -1]", "at most one"),
        ("shape = [-1, 3]", "shape = [-1, 4]", "[1, 4]"),
        ("name = 'y'", "name = 'q'", "\"q\""),
        ("name = 'x'", "name = 'q'", "\"q\""),
        ("name = 'tiny'", "name = 'other'", "there are: other"),
    ] {
        let dir = folder(|text| text.replace(from, to));
        let refused = load(dir.path(), "tiny").err().unwrap().to_string();
        assert!(refused.contains(said), "{to}: {refused}");
    }
    let empty = tempfile::tempdir().unwrap();
    let missing = load(empty.path(), "tiny").err().unwrap().to_string();
    assert!(missing.contains("models.toml"), "{missing}");
}

/// The shipped folder.
fn shipped() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("engines")
}

/// Rows that no race has had: whole numbers too, so that some lie on a tree's edge.
fn made_up(spec: &TensorSpec, batch: usize, state: &mut u32) -> Tensor {
    let shape = spec.with_batch(batch);
    let mut next = || {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let x = (*state >> 8) as f32 / (1u32 << 21) as f32 - 4.0;
        if state.is_multiple_of(5) {
            x.round()
        } else {
            x
        }
    };
    let values = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::new(&spec.name, &shape, values)
}

#[test]
fn trees_answer_as_their_products() {
    let manifest = Manifest::read(&shipped()).unwrap();
    let mut state = 1;
    for (name, sets, count) in [("laptime", 3, 400), ("pit-forecast", 1, 900)] {
        let model = manifest.model(name).unwrap();
        let onnx = model.onnx(&shipped()).unwrap();
        let mut proto = tract_onnx::onnx()
            .proto_model_for_read(&mut &onnx[..])
            .unwrap();
        let found = trees::find(proto.graph.as_ref().unwrap());
        assert_eq!(found.len(), sets, "{name}");
        assert!(found.iter().all(|f| f.trees.count() == count), "{name}");

        let (walked, plain) = (
            tract::Tract::with_plans(model, &onnx, true).unwrap(),
            tract::Tract::with_plans(model, &onnx, false).unwrap(),
        );
        for round in 0..20 {
            let batch = if round % 2 == 0 { 20 } else { 1 };
            let specs = model.inputs.iter();
            let inputs: Vec<Tensor> = specs.map(|i| made_up(i, batch, &mut state)).collect();
            let answers = walked.run(&inputs).unwrap();
            for (a, b) in answers.iter().zip(plain.run(&inputs).unwrap()) {
                assert!(
                    distance(a, &b) < 1e-5,
                    "{name}: {} {}",
                    a.name,
                    distance(a, &b)
                );
            }
        }

        // One number that is no side, and it is no tree.
        let graph = proto.graph.as_mut().unwrap();
        let side = graph
            .initializer
            .iter_mut()
            .find(|t| t.name.ends_with("side"))
            .unwrap();
        side.raw_data[..4].copy_from_slice(&0.5_f32.to_le_bytes());
        assert_eq!(trees::find(graph).len(), sets - 1, "{name}");
    }
}
