//! Models of the kinds that trackside has, and its own, parse and build in TensorRT's own code. With TensorRT-RTX
//! that needs no GPU; the other releases build for the GPU that they find.

mod onnx;

use std::fs;
use std::path::PathBuf;

use onnx::Kind;
use onnx::models::{dense, lstm_with_attention, transformer};
use tensorrt_rs::{
    Builder, BuilderConfig, DataType, Error, HostMemory, Library, Logger, Parser, Typing,
};

fn library() -> Library {
    Library::open().expect("TensorRT, from TENSORRT_LIB=$(tensorrt-rs/libs)")
}

/// Aims at GPUs of three generations, where the release can aim.
fn aimed<'b>(builder: &'b Builder<'_>) -> BuilderConfig<'b> {
    let mut config = builder.config().unwrap();
    if cfg!(feature = "rtx") {
        config.compute_capabilities(&[86, 89, 120]).unwrap();
    }
    config
}

/// Parses and builds; a profile gives every dynamic dimension 1 to 22.
fn build(model: &[u8]) -> Result<HostMemory, Error> {
    let logger = Logger::new()?;
    let builder = Builder::new(library(), &logger)?;
    let mut network = builder.network(Typing::Strong)?;
    Parser::new(&mut network)?.parse(model)?;
    let mut config = aimed(&builder);
    let inputs = network.inputs();
    if inputs.iter().any(|i| i.is_dynamic()) {
        let mut profile = builder.profile()?;
        for input in &inputs {
            let at = |n: i64| {
                input
                    .shape
                    .iter()
                    .map(|&s| if s < 0 { n } else { s })
                    .collect::<Vec<_>>()
            };
            profile.shapes(&input.name, &at(1), &at(20), &at(22))?;
        }
        assert_eq!(config.add_profile(profile)?, 0);
    }
    builder.build(&mut network, &mut config)
}

#[test]
fn an_lstm_with_attention() {
    for kind in [Kind::F32, Kind::F16] {
        let plan = build(&lstm_with_attention(kind)).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        assert!(plan.len() > 1000, "{} bytes", plan.len());
    }
}

#[test]
fn a_transformer_for_every_size_of_field() {
    for cars in [20, 22, 24] {
        build(&transformer(Kind::F32, cars)).unwrap_or_else(|e| panic!("{cars} cars: {e}"));
    }
    build(&transformer(Kind::F16, 22)).unwrap_or_else(|e| panic!("fp16: {e}"));
}

#[test]
fn a_dynamic_batch_with_a_profile() {
    build(&dense(Kind::F32)).unwrap();
}

#[test]
fn a_dynamic_batch_made_static() {
    let logger = Logger::new().unwrap();
    let builder = Builder::new(library(), &logger).unwrap();
    let mut network = builder.network(Typing::Strong).unwrap();
    Parser::new(&mut network)
        .unwrap()
        .parse(&dense(Kind::F32))
        .unwrap();
    assert_eq!(network.inputs()[0].shape, [-1, 8]);
    network.set_input_shape("state", &[22, 8]).unwrap();
    assert_eq!(network.outputs()[0].shape, [22, 10]);
    // No profile: nothing is dynamic any more.
    builder.build(&mut network, &mut aimed(&builder)).unwrap();
}

#[test]
fn a_network_says_what_it_takes() {
    let logger = Logger::new().unwrap();
    let builder = Builder::new(library(), &logger).unwrap();
    let mut network = builder.network(Typing::Strong).unwrap();
    Parser::new(&mut network)
        .unwrap()
        .parse(&lstm_with_attention(Kind::F16))
        .unwrap();
    let (inputs, outputs) = (network.inputs(), network.outputs());
    assert_eq!((inputs.len(), outputs.len()), (1, 1));
    assert_eq!(
        (inputs[0].name.as_str(), &inputs[0].shape[..]),
        ("x", &[4, 10, 6][..])
    );
    assert_eq!(
        (outputs[0].name.as_str(), &outputs[0].shape[..]),
        ("y", &[4, 3][..])
    );
    assert_eq!(
        (inputs[0].holds, outputs[0].holds),
        (DataType::F16, DataType::F16)
    );
    assert!(network.layers() > 5);
}

/// The models that `engines/models.toml` names, every one of them.
fn tracksides_own() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../engines"));
    let manifest = fs::read_to_string(folder.join("models.toml")).unwrap();
    let files = manifest.lines().filter_map(|l| l.strip_prefix("file = \""));
    let models: Vec<(String, Vec<u8>)> = files
        .map(|file| file.trim_end_matches('"').to_owned())
        .map(|file| (file.clone(), fs::read(folder.join(&file)).unwrap()))
        .collect();
    assert_eq!(models.len(), manifest.matches("[[model]]").count());
    assert!(models.len() >= 4, "laptime, outcome, pit and pit-forecast");
    models
}

/// Parses and builds as the daemon does (`src/inference/tensorrt/plan.rs`): every dimension fixed, TF32 off, one
/// stream, one kind of GPU. Whether a dimension was dynamic, and the engine's size.
fn build_for(model: &[u8], cars: i64) -> Result<(bool, usize), Error> {
    let logger = Logger::new()?;
    let builder = Builder::new(library(), &logger)?;
    let mut network = builder.network(Typing::Strong)?;
    Parser::new(&mut network)?.parse(model)?;
    let inputs = network.inputs();
    for input in &inputs {
        let fixed = input.shape.iter().map(|&n| if n < 0 { cars } else { n });
        network.set_input_shape(&input.name, &fixed.collect::<Vec<_>>())?;
    }
    for tensor in network.inputs().iter().chain(&network.outputs()) {
        assert!(!tensor.is_dynamic(), "{tensor}");
        assert_eq!(tensor.holds, DataType::F32, "{tensor}");
    }
    let mut config = builder.config()?;
    config.tf32(false)?;
    config.aux_streams(0)?;
    if cfg!(feature = "rtx") {
        config.compute_capabilities(&[89])?;
    }
    let plan = builder.build(&mut network, &mut config)?;
    Ok((inputs.iter().any(|i| i.is_dynamic()), plan.len()))
}

/// Every model of trackside's, as it is and with its products in fp16, for one car and for fields of 20, 22 and 24.
#[test]
fn tracksides_own_models() {
    for (file, model) in tracksides_own() {
        let half = tensorrt_rs::products_in_half(&model).unwrap_or_else(|e| panic!("{file}: {e}"));
        for (precision, model) in [("fp32", &model), ("fp16", &half)] {
            let mut sizes = Vec::new();
            for cars in [1, 20, 22, 24] {
                let built = build_for(model, cars);
                let (dynamic, bytes) =
                    built.unwrap_or_else(|e| panic!("{file} in {precision}, {cars} cars: {e}"));
                sizes.push(bytes);
                if !dynamic {
                    // One shape whatever the field: it takes a mask.
                    break;
                }
            }
            eprintln!("{file} in {precision}: engines of {sizes:?} bytes");
        }
    }
}

#[test]
fn a_plan_outlives_everything_that_it_came_from() {
    let plan = build(&dense(Kind::F32)).unwrap();
    let copy = plan.to_vec();
    for _ in 0..3 {
        build(&dense(Kind::F32)).unwrap();
    }
    assert_eq!(&*plan, &copy[..]);
    std::thread::spawn(move || assert_eq!(&*plan, &copy[..]))
        .join()
        .unwrap();
}

#[test]
fn a_builder_moves_between_threads() {
    let logger = Logger::new().unwrap();
    let builder = Builder::new(library(), &logger).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut network = builder.network(Typing::Strong).unwrap();
            Parser::new(&mut network)
                .unwrap()
                .parse(&transformer(Kind::F32, 20))
                .unwrap();
            builder.build(&mut network, &mut aimed(&builder)).unwrap();
        });
    });
}

#[test]
fn a_shared_logger_makes_a_builder_static() {
    fn is_static<T: 'static>(_: &T) {}
    let logger = std::sync::Arc::new(Logger::new().unwrap());
    let builder = Builder::new(library(), std::sync::Arc::clone(&logger)).unwrap();
    drop(logger);
    is_static(&builder);
    let mut network = builder.network(Typing::Strong).unwrap();
    Parser::new(&mut network)
        .unwrap()
        .parse(&dense(Kind::F32))
        .unwrap();
}

#[test]
fn a_configuration_takes_what_the_release_has() {
    let logger = Logger::new().unwrap();
    let builder = Builder::new(library(), &logger).unwrap();
    let mut config = aimed(&builder);
    config.tf32(false).unwrap();
    config.workspace(256 << 20).unwrap();
    config.optimization_level(3).unwrap();
    config.detailed_layers(true).unwrap();
    config.aux_streams(0).unwrap();
    config.refittable(true).unwrap();
    let fp16 = config.fp16(true);
    assert_eq!(fp16.is_ok(), tensorrt_rs::HAS_FP16_FLAG);
    if let Err(error) = fp16 {
        assert!(
            error.to_string().contains("give it an ONNX model in fp16"),
            "{error}"
        );
        assert!(matches!(
            builder.network(Typing::Weak),
            Err(Error::Unsupported { .. })
        ));
    }
    if cfg!(feature = "rtx") {
        assert!(matches!(
            config.set_timing_cache(&[]),
            Err(Error::Unsupported { .. })
        ));
        assert!(config.timing_cache().is_err());
        // Xavier, Orin, H100: an engine for them comes from another release.
        for refused in [72, 87, 90] {
            let error = config.compute_capabilities(&[refused]).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("build for these compute capabilities"),
                "{refused}: {error}"
            );
        }
    }
    let mut network = builder.network(Typing::Strong).unwrap();
    Parser::new(&mut network)
        .unwrap()
        .parse(&lstm_with_attention(Kind::F32))
        .unwrap();
    builder.build(&mut network, &mut aimed(&builder)).unwrap();
}
