//! An fp32 model whose products were put into fp16 still parses and builds, takes and gives fp32, and its weights
//! take half the room.

mod onnx;

use onnx::Kind;
use onnx::models::{dense, lstm_with_attention, transformer};
use tensorrt_rs::{Builder, DataType, Error, Library, Logger, Parser, Typing, products_in_half};

/// Builds with every dynamic dimension at 22.
fn build(model: &[u8]) -> Result<usize, Error> {
    let logger = Logger::new()?;
    let library = Library::open().expect("TensorRT, from TENSORRT_LIB=$(tensorrt-rs/libs)");
    let builder = Builder::new(library, &logger)?;
    let mut network = builder.network(Typing::Strong)?;
    Parser::new(&mut network)?.parse(model)?;
    for input in network.inputs() {
        let shape: Vec<i64> = input
            .shape
            .iter()
            .map(|&n| if n < 0 { 22 } else { n })
            .collect();
        network.set_input_shape(&input.name, &shape)?;
    }
    for tensor in network.inputs().iter().chain(&network.outputs()) {
        assert_eq!(tensor.holds, DataType::F32, "{tensor}");
    }
    let mut config = builder.config()?;
    if cfg!(feature = "rtx") {
        config.compute_capabilities(&[89])?;
    }
    Ok(builder.build(&mut network, &mut config)?.len())
}

#[test]
fn models_of_all_kinds() {
    for (name, model) in [
        ("dense", dense(Kind::F32)),
        ("lstm", lstm_with_attention(Kind::F32)),
        ("transformer", transformer(Kind::F32, 22)),
    ] {
        let halved = products_in_half(&model).unwrap();
        let (before, after) = (
            build(&model).unwrap(),
            build(&halved).unwrap_or_else(|e| panic!("{name}: {e}")),
        );
        eprintln!(
            "{name}: ONNX {} → {} bytes, engine {before} → {after}",
            model.len(),
            halved.len()
        );
        assert_ne!(halved, model, "{name}");
    }
}

#[test]
fn weights_take_half_the_room() {
    let model = transformer(Kind::F32, 22);
    let halved = products_in_half(&model).unwrap();
    assert!(
        halved.len() < model.len() * 6 / 10,
        "{} of {} bytes",
        halved.len(),
        model.len()
    );
}

#[test]
fn a_model_in_half_is_refused() {
    let error = products_in_half(&transformer(Kind::F16, 22))
        .unwrap_err()
        .to_string();
    assert!(error.contains("one that computes in fp16"), "{error}");
}

#[test]
fn a_damaged_model_is_refused_or_comes_back_whole() {
    let model = dense(Kind::F32);
    for cut in 0..model.len() {
        // Never a panic; where a cut falls between fields, the rest is a model of sorts.
        let _ = products_in_half(&model[..cut]);
    }
    assert!(products_in_half(b"not a model").is_err());
    assert_eq!(products_in_half(b"").unwrap(), b"");
}
