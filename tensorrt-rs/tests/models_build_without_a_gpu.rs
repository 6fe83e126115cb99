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

/// Every model of trackside's, fp32 and fp16 alike, as it is in `engines/`.
#[test]
fn tracksides_own_models() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../engines"));
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("skipped: there is no {}", folder.display());
        return;
    };
    let mut models: Vec<PathBuf> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    models.sort();
    for model in models {
        let bytes = fs::read(&model).unwrap();
        let plan = build(&bytes).unwrap_or_else(|e| panic!("{}: {e}", model.display()));
        eprintln!("{}: an engine of {} bytes", model.display(), plan.len());
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
        let error = config.compute_capabilities(&[87]).unwrap_err().to_string();
        assert!(
            error.contains("build for these compute capabilities"),
            "{error}"
        );
    }
    let mut network = builder.network(Typing::Strong).unwrap();
    Parser::new(&mut network)
        .unwrap()
        .parse(&lstm_with_attention(Kind::F32))
        .unwrap();
    builder.build(&mut network, &mut aimed(&builder)).unwrap();
}
