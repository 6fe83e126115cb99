//! ONNX → engine.
//!
//! ```sh
//! cargo run --release -p tensorrt-rs --example build_engine -- model.onnx model.engine \
//!     [--fp16] [--capability 89]… [--shape INPUT=1x50x24:20x50x24:24x50x24]…
//! ```
//!
//! A dynamic input wants a `--shape`: its smallest, usual and largest. With TensorRT-RTX `--capability` aims at GPUs
//! that this machine need not have.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use tensorrt_rs::{Builder, Library, Logger, Parser, RELEASE, Severity, Typing, Version};

#[derive(Default)]
struct Arguments {
    files: Vec<PathBuf>,
    fp16: bool,
    capabilities: Vec<i32>,
    shapes: Vec<Shapes>,
}

/// The smallest, the usual and the largest shape of an input.
struct Shapes {
    input: String,
    shapes: [Vec<i64>; 3],
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let (mut found, mut rest) = (Arguments::default(), env::args().skip(1));
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--fp16" => found.fp16 = true,
            "--capability" => found
                .capabilities
                .push(rest.next().ok_or("--capability wants a number")?.parse()?),
            "--shape" => found.shapes.push(shape(
                &rest.next().ok_or("--shape wants INPUT=MIN:OPT:MAX")?,
            )?),
            _ => found.files.push(argument.into()),
        }
    }
    Ok(found)
}

/// `INPUT=1x8:20x8:22x8`
fn shape(text: &str) -> Result<Shapes, Box<dyn Error>> {
    let (input, shapes) = text.split_once('=').ok_or("a shape is INPUT=MIN:OPT:MAX")?;
    let shapes = shapes
        .split(':')
        .map(|shape| {
            shape
                .split('x')
                .map(str::parse)
                .collect::<Result<Vec<i64>, _>>()
        })
        .collect::<Result<Vec<_>, _>>()?;
    let shapes = shapes
        .try_into()
        .map_err(|_| "a shape is INPUT=MIN:OPT:MAX")?;
    Ok(Shapes {
        input: input.to_owned(),
        shapes,
    })
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let [model, engine] = &arguments.files[..] else {
        return Err(
            "usage: build_engine MODEL.onnx ENGINE [--fp16] [--capability N]… [--shape …]…".into(),
        );
    };
    let library = Library::open()?;
    println!(
        "{RELEASE}: library {}, headers {}",
        library.version(),
        Version::of_headers()
    );
    let logger = Logger::with_sink(|severity, message| {
        if severity <= Severity::Warning {
            eprintln!("{severity}: {message}");
        }
    })?;
    let builder = Builder::new(library, &logger)?;
    let typing = if arguments.fp16 {
        Typing::Weak
    } else {
        Typing::Strong
    };
    let mut network = builder.network(typing)?;
    Parser::new(&mut network)?.parse_file(model)?;
    for tensor in network.inputs().iter().chain(&network.outputs()) {
        println!("{} {tensor}", if tensor.is_input { "in " } else { "out" });
    }
    let mut config = builder.config()?;
    if arguments.fp16 {
        config.fp16(true)?;
    }
    if !arguments.capabilities.is_empty() {
        config.compute_capabilities(&arguments.capabilities)?;
    }
    if !arguments.shapes.is_empty() {
        let mut profile = builder.profile()?;
        for Shapes {
            input,
            shapes: [min, opt, max],
        } in &arguments.shapes
        {
            profile.shapes(input, min, opt, max)?;
        }
        config.add_profile(profile)?;
    }
    let started = Instant::now();
    let plan = builder.build(&mut network, &mut config)?;
    fs::write(engine, &*plan)?;
    println!(
        "{}: {} bytes, built in {:.2?}",
        engine.display(),
        plan.len(),
        started.elapsed()
    );
    Ok(())
}
