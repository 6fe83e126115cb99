//! A model that TensorRT cannot build comes back as an error that a person can act on: it names the node, the
//! tensor or the file, in TensorRT's own words.

mod onnx;

use std::fs;

use onnx::Kind;
use onnx::models::{dense, lstm_with_attention, transformer, unknown_operator, wrong_shapes};
use tensorrt_rs::{Builder, Error, Library, Logger, Parser, Severity, Typing};

fn library() -> Library {
    Library::open().expect("TensorRT, from TENSORRT_LIB=$(tensorrt-rs/libs)")
}

/// What becomes of a model that is parsed and built with no profile.
fn attempt(model: &[u8]) -> Result<(), Error> {
    let logger = Logger::new()?;
    let builder = Builder::new(library(), &logger)?;
    let mut network = builder.network(Typing::Strong)?;
    Parser::new(&mut network)?.parse(model)?;
    let mut config = builder.config()?;
    if cfg!(feature = "rtx") {
        config.compute_capabilities(&[89])?;
    }
    builder.build(&mut network, &mut config).map(drop)
}

#[test]
fn an_unknown_operator_is_named_with_its_node() {
    let error = attempt(&unknown_operator()).unwrap_err();
    let Error::Parse { errors, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(
        errors
            .iter()
            .any(|e| e.operator == "Undercut" && e.node == Some(0)),
        "{errors:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains("Undercut") && text.contains("make_values"),
        "{text}"
    );
}

#[test]
fn a_missing_profile_is_said_with_the_input() {
    let error = attempt(&dense(Kind::F32)).unwrap_err();
    let Error::Refused { operation, log } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*operation, "build the engine");
    assert!(
        log.messages().iter().any(|m| m.contains("profile")),
        "{log:?}"
    );
}

#[test]
fn shapes_that_do_not_fit_are_said() {
    let text = attempt(&wrong_shapes()).unwrap_err().to_string();
    assert!(
        text.contains("make_values") || text.contains("MatMul") || text.contains("dimension"),
        "{text}"
    );
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let whole = transformer(Kind::F32, 20);
    for part in 0..64 {
        let cut = &whole[..whole.len() * part / 64];
        let error = attempt(cut).expect_err("a part is no model");
        assert!(matches!(error, Error::Parse { .. }), "{part}/64: {error:?}");
        assert!(error.to_string().len() > 40, "{part}/64: {error}");
    }
}

#[test]
fn what_is_no_model_is_refused() {
    for junk in [&b""[..], b"\0", b"not a model", &[0xff; 4096]] {
        let error = attempt(junk).unwrap_err();
        assert!(matches!(error, Error::Parse { .. }), "{error:?}");
    }
}

#[test]
fn a_damaged_model_never_crashes() {
    let whole = lstm_with_attention(Kind::F32);
    let logger = Logger::new().unwrap();
    let builder = Builder::new(library(), &logger).unwrap();
    let (mut refused, mut seed) = (0, 7_u64);
    for _ in 0..300 {
        let mut damaged = whole.clone();
        for _ in 0..3 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            // The first kilobyte: structure rather than weights.
            let at = (seed >> 33) as usize % 1024;
            damaged[at] ^= 1 << (seed >> 61);
        }
        let mut network = builder.network(Typing::Strong).unwrap();
        refused += usize::from(Parser::new(&mut network).unwrap().parse(&damaged).is_err());
    }
    assert!(refused > 10, "{refused} of 300 were refused");
}

#[test]
fn a_network_takes_one_model() {
    let logger = Logger::new().unwrap();
    let builder = Builder::new(library(), &logger).unwrap();
    for first in [&b"no model"[..], &dense(Kind::F32)] {
        let mut network = builder.network(Typing::Strong).unwrap();
        let _ = Parser::new(&mut network).unwrap().parse(first);
        let error = Parser::new(&mut network).unwrap_err().to_string();
        assert!(error.contains("each model wants a fresh one"), "{error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let logger = Logger::new().unwrap();
    let builder = Builder::new(library(), &logger).unwrap();
    let mut network = builder.network(Typing::Strong).unwrap();
    let parser = Parser::new(&mut network).unwrap();
    let error = parser
        .parse_file("/nowhere/laptime.onnx".as_ref())
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nowhere/laptime.onnx"), "{error}");
    let file = std::env::temp_dir().join(format!("tensorrt-rs-{}.onnx", std::process::id()));
    fs::write(&file, dense(Kind::F32)).unwrap();
    let mut network = builder.network(Typing::Strong).unwrap();
    let parsed = Parser::new(&mut network).unwrap().parse_file(&file);
    fs::remove_file(&file).unwrap();
    parsed.unwrap();
}

#[test]
fn a_profile_outside_the_model_is_refused() {
    let logger = Logger::new().unwrap();
    let builder = Builder::new(library(), &logger).unwrap();
    let mut network = builder.network(Typing::Strong).unwrap();
    Parser::new(&mut network)
        .unwrap()
        .parse(&dense(Kind::F32))
        .unwrap();
    let error = network
        .set_input_shape("state", &[22, 9])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("[22, 9]") && error.contains("[-1, 8]"),
        "{error}"
    );
    let error = network
        .set_input_shape("stat", &[22, 8])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(r#"no input "stat""#) && error.contains("state"),
        "{error}"
    );
    let mut profile = builder.profile().unwrap();
    let error = profile
        .shapes("state", &[22, 8], &[20, 8], &[1, 8])
        .unwrap_err()
        .to_string();
    assert!(error.contains("min ≤ opt ≤ max"), "{error}");
    // 9 where the model has 8: nobody knows before the build.
    profile.shapes("state", &[1, 9], &[2, 9], &[3, 9]).unwrap();
    let mut config = builder.config().unwrap();
    if cfg!(feature = "rtx") {
        config.compute_capabilities(&[89]).unwrap();
    }
    let refused = config.add_profile(profile).map(drop);
    let error = refused
        .and_then(|()| builder.build(&mut network, &mut config).map(drop))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("profile") || error.contains("state"),
        "{error}"
    );
}

#[test]
fn what_is_of_another_builder_is_refused() {
    let logger = Logger::new().unwrap();
    let (one, other) = (
        Builder::new(library(), &logger).unwrap(),
        Builder::new(library(), &logger).unwrap(),
    );
    let mut network = one.network(Typing::Strong).unwrap();
    let (mut config, mut foreign) = (one.config().unwrap(), other.config().unwrap());
    assert_eq!(
        config.add_profile(other.profile().unwrap()),
        Err(Error::Foreign { what: "profile" })
    );
    let error = one.build(&mut network, &mut foreign).unwrap_err();
    assert_eq!(
        error,
        Error::Foreign {
            what: "configuration"
        }
    );
    let error = other.build(&mut network, &mut foreign).unwrap_err();
    assert_eq!(error, Error::Foreign { what: "network" });
}

#[test]
fn an_empty_network_is_refused() {
    let logger = Logger::new().unwrap();
    let builder = Builder::new(library(), &logger).unwrap();
    let mut network = builder.network(Typing::Strong).unwrap();
    let mut config = builder.config().unwrap();
    let error = builder.build(&mut network, &mut config).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(
        logger
            .recent()
            .iter()
            .any(|(severity, _)| *severity <= Severity::Error)
    );
}
