//! Plans: TensorRT's own builder makes them, without a GPU (TensorRT-RTX), and the cache keeps them. Engines: on the
//! tests' driver (`kernels/host/driver.cpp`) and the tests' runtime (`tensorrt-rs/tests/stand_in`), whose engines sum,
//! in processes of their own.

#[path = "../../../tensorrt-rs/tests/onnx/mod.rs"]
mod onnx;
#[path = "../../../tensorrt-rs/tests/stand_in/mod.rs"]
mod stand_in;
mod together;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use self::onnx::Kind;
use super::*;
use crate::engines::accelerate::Accelerator;
use crate::engines::{Chosen, Slot, Watch};
use crate::inference::{self, Engine, EngineError, Manifest, Tensor, tract};
use crate::predict::Models;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("engines")
}

/// What a plan came to: built, or kept.
fn built(builder: &Builder, model: &Model, cache: &Cache, how: (Precision, usize)) -> bool {
    let onnx = model.onnx(&shipped()).unwrap();
    let (plan, made) = builder.plan(model, &onnx, cache, how.0, how.1).unwrap();
    assert!(plan.len() == made.bytes && plan.len() > 1000);
    assert_eq!(made.key, Key::new(model, builder.machine(), how.0, how.1));
    made.built
}

#[test]
fn a_plan_is_built_kept_and_built_anew_when_its_key_changes_or_its_file_is_damaged() {
    if !plan::AHEAD_OF_TIME {
        // Other releases build where there is a GPU: `tests/gpu`.
        assert!(matches!(
            Builder::for_target((8, 9)),
            Err(Unavailable::Target(_))
        ));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    let manifest = Manifest::read(&shipped()).unwrap();
    let model = manifest.model("pit").unwrap();
    let mut builder = Builder::for_target((8, 9)).unwrap();
    let how = (Precision::Fp32, 20);
    assert!(built(&builder, model, &cache, how));
    assert!(!built(&builder, model, &cache, how));
    // Damaged in the middle, cut short, somebody else's, gone.
    let path = cache.path(&Key::new(model, builder.machine(), how.0, how.1));
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bad in [&flipped[..], &whole[..whole.len() - 1], b"an engine"] {
        std::fs::write(&path, bad).unwrap();
        assert!(built(&builder, model, &cache, how));
        assert!(!built(&builder, model, &cache, how));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(built(&builder, model, &cache, how));
    // Every part of the key.
    for cars in [22, 24] {
        assert!(built(&builder, model, &cache, (Precision::Fp32, cars)));
    }
    assert!(built(&builder, model, &cache, (Precision::Fp16, 20)));
    assert!(built(
        &Builder::for_target((8, 6)).unwrap(),
        model,
        &cache,
        how
    ));
    builder.machine.tensorrt = "TensorRT-RTX 1 1.6.0".to_owned();
    assert!(built(&builder, model, &cache, how));
    assert_eq!(cache.list().unwrap().len(), 6);
}

#[test]
fn a_model_that_tensorrt_does_not_take_is_named_with_its_reason() {
    if !plan::AHEAD_OF_TIME {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    let builder = Builder::for_target((8, 9)).unwrap();
    let manifest = Manifest::read(&shipped()).unwrap();
    let model = manifest.model("pit").unwrap();
    let refused = |model: &Model, onnx: &[u8]| {
        let plan = builder.plan(model, onnx, &cache, Precision::Fp32, 1);
        plan.unwrap_err().to_string()
    };
    let unknown = onnx::models::unknown_operator();
    let said = refused(model, &unknown);
    assert!(
        said.contains("pit-1") && said.contains("Undercut"),
        "{said}"
    );
    let whole = model.onnx(&shipped()).unwrap();
    let said = refused(model, &whole[..whole.len() / 2]);
    assert!(said.contains("pit-1"), "{said}");
    let mut other = model.clone();
    other.outputs[0].shape = vec![-1, 11];
    let said = refused(&other, &whole);
    assert!(said.contains("values f32 [1, 10]"), "{said}");
    assert!(cache.list().unwrap().is_empty());
    let none = Builder::for_target((1, 0)).unwrap();
    let said = none.plan(model, &whole, &cache, Precision::Fp32, 1);
    assert!(
        said.unwrap_err()
            .to_string()
            .contains("compute capabilities")
    );
}

#[test]
fn without_a_gpu_it_says_what_is_missing() {
    match machine() {
        Ok(machine) => assert!(machine.capability.0 > 0),
        Err(e) => {
            assert!(matches!(e, Unavailable::Gpu(_)), "{e}");
            assert!(!e.to_string().is_empty() && !e.remedy().is_empty());
        }
    }
}

/// Set in the inner run.
const INSIDE: &str = "TRACKSIDE_TEST_INSIDE";
/// Said by an inner run that came to its end.
const DONE: &str = "the inner run is done";

/// Whether this is the inner run; else runs the test of that name with that driver, and asks for its success.
fn inside(test: &str, driver: &str) -> bool {
    inside_of(module_path!(), test, driver)
}

/// The same for a test of another module.
fn inside_of(module: &str, test: &str, driver: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let stand_in = stand_in::StandIn::installed();
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let libcuda = stand_in.0.join("libcuda.so");
    let built = Command::new("g++")
        .args(["-std=c++17", "-O1", "-fPIC", "-shared"])
        .args([
            "-fvisibility=hidden",
            "-ffp-contract=off",
            "-Wno-unknown-pragmas",
            "-I",
        ])
        .arg(&kernels)
        .arg(kernels.join("host/driver.cpp"))
        .arg("-o")
        .arg(&libcuda)
        .status()
        .expect("g++ builds the tests' driver");
    assert!(built.success(), "the tests' driver does not compile");
    // The one driver under both of its names.
    std::fs::rename(&libcuda, stand_in.0.join("libcuda.so.1")).unwrap();
    std::os::unix::fs::symlink("libcuda.so.1", &libcuda).unwrap();
    let name = format!("{}::{test}", module.split_once("::").unwrap().1);
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(INSIDE, "1")
        .env("LD_LIBRARY_PATH", &stand_in.0)
        .env("TENSORRT_LIB", &stand_in.0)
        .env("TRACKSIDE_DRIVER", driver)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains(DONE),
        "{test} with {driver:?}: {}\n{said}\n{}",
        run.status,
        String::from_utf8_lossy(&run.stderr)
    );
    false
}

/// A folder with one model, `features` numbers in, and what the stand-in makes of them.
struct Toy {
    dir: tempfile::TempDir,
    name: &'static str,
    /// What the stand-in's plans begin with.
    plan: &'static str,
}

const BATCHES: [usize; 2] = [1, 4];

impl Toy {
    /// `values[j] = Σ state + j`.
    fn summing() -> Toy {
        let mut m = onnx::Model::new(Kind::F32);
        m.input("state", &[-1, 8]);
        let ones = m.constant(&[8, 10], &[1.0; 80]);
        let steps: Vec<f32> = (0..10).map(|j| j as f32).collect();
        let steps = m.constant(&[10], &steps);
        let sum = m.node("MatMul", &["state", &ones], &[]);
        m.node_to("Add", &[&sum, &steps], "values", &[]);
        m.output("values", &[-1, 10]);
        let outputs = "{ name = 'values', shape = [-1, 10] }";
        let model = ("summing", "an engine of the stand-in");
        Toy::of(model, m.finish(), ("state", 8), outputs, "")
    }

    /// Every hazard and compound `Σ features / 1000`, from 0 to 1: a forecast of the next stop, of sorts.
    fn forecasting() -> Toy {
        let mut m = onnx::Model::new(Kind::F32);
        m.input("features", &[-1, 72]);
        let (least, most) = (m.constant(&[], &[0.0]), m.constant(&[], &[1.0]));
        for (name, width) in [("hazard", 30), ("compound", 5)] {
            let weights = m.constant(&[72, width], &vec![1e-3; 72 * width as usize]);
            let sum = m.node("MatMul", &["features", &weights], &[]);
            m.node_to("Clip", &[&sum, &least, &most], name, &[]);
            m.output(name, &[-1, width]);
        }
        let outputs =
            "{ name = 'hazard', shape = [-1, 30] }, { name = 'compound', shape = [-1, 5] }";
        let model = ("pit-forecast", "an engine of the stand-in forecasting");
        let calibration = "calibration = { yes = [0.5] }\n";
        Toy::of(model, m.finish(), ("features", 72), outputs, calibration)
    }

    fn of(
        (name, plan): (&'static str, &'static str),
        onnx: Vec<u8>,
        (input, width): (&str, usize),
        outputs: &str,
        calibration: &str,
    ) -> Toy {
        let dir = tempfile::tempdir().unwrap();
        let digest = digest(&onnx);
        let manifest = format!(
            "[[model]]\nname = '{name}'\nversion = '1'\nfile = 'toy.onnx'\nsha256 = '{digest}'\nfeatures = 1\n\
             trained_on = 'nothing'\nbatches = [1, 4]\nfixture = 'toy.json'\n\
             inputs = [{{ name = '{input}', shape = [-1, {width}] }}]\noutputs = [{outputs}]\n{calibration}"
        );
        std::fs::write(dir.path().join("models.toml"), manifest).unwrap();
        std::fs::write(dir.path().join("toy.onnx"), &onnx).unwrap();
        // Recorded by the CPU, which is what is to be agreed with.
        std::fs::write(dir.path().join("toy.json"), "{}").unwrap();
        let toy = Toy { dir, name, plan };
        let model = toy.model();
        let cpu = tract::Tract::load(&model, &onnx).unwrap();
        let cases: Vec<serde_json::Value> = (0..3)
            .map(|case| {
                let values = (0..width).map(|i| (case * width + i) as f32 * 0.01).collect();
                let inputs = [Tensor::new(input, &[1, width], values)];
                let json = |t: &Tensor| {
                    serde_json::json!({ "name": t.name, "shape": t.shape, "values": t.values })
                };
                let outputs: Vec<_> = cpu.run(&inputs).unwrap().iter().map(json).collect();
                serde_json::json!({ "inputs": [json(&inputs[0])], "outputs": outputs })
            })
            .collect();
        let fixture = serde_json::json!({ "cases": cases }).to_string();
        std::fs::write(toy.dir.path().join("toy.json"), fixture).unwrap();
        toy
    }

    /// A model of the finishing order beside it, of sorts, of which the stand-in has no plan.
    fn add_outcome(&self) {
        use crate::predict::features::outcome::{FEATURES, MOST_CARS, VERSION};
        let (cars, columns) = (MOST_CARS as i64, FEATURES as i64);
        let mut m = onnx::Model::new(Kind::F32);
        m.input("cars", &[-1, cars, columns]);
        m.input("mask", &[-1, cars]);
        let weights = m.constant(&[columns, cars], &vec![0.0; FEATURES * MOST_CARS]);
        m.node_to("MatMul", &["cars", &weights], "positions", &[]);
        let weights = m.constant(&[cars, cars], &vec![0.0; MOST_CARS * MOST_CARS]);
        m.node_to("MatMul", &["mask", &weights], "retirement", &[]);
        m.output("positions", &[-1, cars, cars]);
        m.output("retirement", &[-1, cars]);
        let onnx = m.finish();
        std::fs::write(self.folder().join("outcome.onnx"), &onnx).unwrap();
        let manifest = self.folder().join("models.toml");
        let mut text = std::fs::read_to_string(&manifest).unwrap();
        text += &format!(
            "[[model]]\nname = 'outcome'\nversion = '1'\nfile = 'outcome.onnx'\nsha256 = '{}'\n\
             features = {VERSION}\ntrained_on = 'nothing'\nbatches = [1]\n\
             inputs = [{{ name = 'cars', shape = [-1, {cars}, {columns}] }}, {{ name = 'mask', shape = [-1, {cars}] }}]\n\
             outputs = [{{ name = 'positions', shape = [-1, {cars}, {cars}] }}, \
             {{ name = 'retirement', shape = [-1, {cars}] }}]\n",
            digest(&onnx)
        );
        std::fs::write(&manifest, text).unwrap();
    }

    fn folder(&self) -> &Path {
        self.dir.path()
    }

    fn model(&self) -> Model {
        let manifest = Manifest::read(self.folder()).unwrap();
        manifest.model(self.name).unwrap().clone()
    }

    fn cpu(&self) -> Arc<dyn Engine> {
        inference::load(self.folder(), self.name).unwrap().into()
    }

    /// A cache that has the stand-in's plans for it.
    fn cache(&self, ending: &str) -> Cache {
        let cache = Cache::new(&self.folder().join("kept"));
        for batch in BATCHES {
            let key = Key::new(&self.model(), &machine().unwrap(), Precision::Fp32, batch);
            let plan = format!("{} for {batch}{ending}", self.plan);
            cache.write(&key, plan.as_bytes()).unwrap();
        }
        cache
    }
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

fn ask(engine: &dyn Engine, batch: usize, first: f32) -> Vec<Tensor> {
    let width = engine.model().inputs[0].with_batch(1)[1];
    let values = (0..batch * width)
        .map(|i| first + (i % 50) as f32 * 0.01)
        .collect();
    let name = engine.model().inputs[0].name.clone();
    engine
        .run(&[Tensor::new(&name, &[batch, width], values)])
        .unwrap()
}

fn an_engine_answers_as_the_cpu_does() {
    let toy = Toy::summing();
    let (gpu, cpu) = (Gpu::open().unwrap(), toy.cpu());
    let load =
        |cache: &Cache| TensorRt::load(&gpu, toy.cpu(), toy.folder(), cache, Precision::Fp32);
    let engine = load(&toy.cache("")).unwrap();
    assert_eq!(
        (engine.backend(), engine.model().id().as_str()),
        ("tensorrt", "summing-1")
    );
    for (round, batch) in [1, 4, 1, 4, 4, 1].into_iter().enumerate() {
        let (ours, theirs) = (
            ask(&engine, batch, round as f32),
            ask(&*cpu, batch, round as f32),
        );
        let off = crate::inference::parity(&ours, &theirs);
        assert!(off.iter().all(|p| p.max < 1e-5), "{off:?}");
        assert_eq!(ours[0].shape, [batch, 10]);
    }
    // Inputs that are not the model's are the asker's fault, and change nothing.
    let wrong = engine.run(&[Tensor::new("state", &[2, 8], vec![0.0; 16])]);
    assert!(matches!(wrong, Err(EngineError::Shape { .. })));
    assert_eq!(engine.backend(), "tensorrt");
    // Plans that answer otherwise, that are whole by their checksum and none of TensorRT's, and that are damaged: each is
    // let go and would be built anew; the stand-in builds none.
    let key = |batch| Key::new(&toy.model(), &machine().unwrap(), Precision::Fp32, batch);
    let unbuilt = |cache: &Cache, batch: usize| {
        let why = load(cache).err().unwrap().to_string();
        assert!(
            why.contains(&format!("batch {batch}")) && why.contains("builder"),
            "{why}"
        );
    };
    for ending in [" off", " of another release"] {
        let cache = toy.cache(ending);
        unbuilt(&cache, 1);
        assert!(cache.read(&key(1)).unwrap().is_none());
        assert!(cache.read(&key(4)).unwrap().is_some());
    }
    let cache = toy.cache("");
    std::fs::write(cache.path(&key(4)), b"damaged").unwrap();
    unbuilt(&cache, 4);
    assert!(cache.read(&key(1)).unwrap().is_some());
    drop(engine);
    println!("{DONE}");
}

/// Without recorded inputs, made-up ones are compared.
#[test]
fn a_model_without_a_fixture_is_compared_all_the_same() {
    if !inside("a_model_without_a_fixture_is_compared_all_the_same", "") {
        return;
    }
    let toy = Toy::summing();
    let manifest = toy.folder().join("models.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("fixture = 'toy.json'\n", "")).unwrap();
    assert!(toy.model().fixture(toy.folder()).unwrap().is_none());
    let gpu = Gpu::open().unwrap();
    let load =
        |cache: &Cache| TensorRt::load(&gpu, toy.cpu(), toy.folder(), cache, Precision::Fp32);
    assert_eq!(load(&toy.cache("")).unwrap().backend(), "tensorrt");
    let why = load(&toy.cache(" off")).err().unwrap().to_string();
    assert!(why.contains("builder"), "{why}");
    println!("{DONE}");
}

/// What TensorRT-RTX compiles in the first run is read at the next start; what it does not take is replaced.
#[test]
fn compiled_kernels_are_kept() {
    if !inside("compiled_kernels_are_kept", "") {
        return;
    }
    let toy = Toy::summing();
    let (gpu, cache) = (Gpu::open().unwrap(), toy.cache(""));
    let load = || TensorRt::load(&gpu, toy.cpu(), toy.folder(), &cache, Precision::Fp32).unwrap();
    let key = Key::new(&toy.model(), &machine().unwrap(), Precision::Fp32, 1);
    let kept = || String::from_utf8(cache.kernels(&key, &gpu.compiler())).unwrap();
    assert_eq!(kept(), "");
    if !session::COMPILES {
        load();
        assert_eq!(kept(), "");
        println!("{DONE}");
        return;
    }
    load();
    assert_eq!(kept(), "kernels compiled");
    load();
    assert_eq!(kept(), "kernels compiled compiled");
    cache.keep_kernels(&key, &gpu.compiler(), b"of another driver");
    load();
    assert_eq!(kept(), "kernels compiled");
    println!("{DONE}");
}

#[test]
fn an_engine_on_a_discrete_gpu() {
    if inside("an_engine_on_a_discrete_gpu", "") {
        an_engine_answers_as_the_cpu_does();
    }
}

#[test]
fn an_engine_on_an_integrated_gpu() {
    if inside("an_engine_on_an_integrated_gpu", "integrated,poolless") {
        an_engine_answers_as_the_cpu_does();
    }
}

/// A program that builds: a shell script, in the models' folder.
fn builder(toy: &Toy, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let program = toy.folder().join("builder");
    let script = format!("#!/bin/sh\ncd {}\n{script}\n", toy.folder().display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// The models of a folder as a daemon has them: loaded on the CPU, looked after by a watch.
fn watched(toy: &Toy, cache: &Cache) -> (Models, Slot, Watch) {
    let chosen = Chosen::Folder(toy.folder().to_owned());
    let slot = Slot::default();
    let kept = cache.folder().to_owned();
    let stop = CancellationToken::new();
    let accelerator = Accelerator::new(kept, Precision::Fp32, stop);
    let accelerator = accelerator.building_with(toy.folder().join("builder"));
    let mut watch = Watch::new(chosen, slot.clone()).with_accelerator(accelerator);
    assert!(watch.look());
    let models = slot.take().unwrap();
    (models, slot, watch)
}

fn backend(models: &Models) -> &'static str {
    models.engines().next().unwrap().backend()
}

/// While one thread asks without a pause, the engines are read, compared and handed over; every answer is right.
#[test]
fn the_gpu_takes_over_while_the_cpu_answers() {
    if !inside("the_gpu_takes_over_while_the_cpu_answers", "") {
        return;
    }
    let toy = Toy::forecasting();
    let cache = toy.cache("");
    let (mut models, slot, mut watch) = watched(&toy, &cache);
    let cpu = toy.cpu();
    assert_eq!(backend(&models), "tract");
    let background = std::thread::spawn(move || {
        assert!(watch.accelerate());
        // There is nothing more to be done.
        assert!(!watch.look() && !watch.accelerate());
        watch
    });
    let (mut answers, mut on_gpu) = (0, 0);
    while on_gpu < 50 {
        // Between two laps.
        if let Some(new) = slot.take() {
            models = new;
        }
        let engine = models.engines().next().unwrap();
        let first = (answers % 7) as f32 * 0.1;
        let off = crate::inference::parity(&ask(&**engine, 1, first), &ask(&*cpu, 1, first));
        assert!(off.iter().all(|p| p.max < 1e-4), "{off:?}");
        answers += 1;
        on_gpu += u32::from(backend(&models) == "tensorrt");
        assert!(answers < 10_000_000, "the engines never came");
    }
    background.join().unwrap();
    println!("{answers} answers, {on_gpu} on the GPU");
    println!("{DONE}");
}

#[test]
fn an_engine_that_answers_otherwise_never_takes_over() {
    if !inside("an_engine_that_answers_otherwise_never_takes_over", "") {
        return;
    }
    let toy = Toy::forecasting();
    // Not when it is built anew, either.
    let cache = toy.cache(" off");
    builder(&toy, "touch built; cp again/* kept");
    copy(&cache, &toy.folder().join("again"));
    let (models, slot, mut watch) = watched(&toy, &cache);
    assert!(!watch.accelerate() && slot.take().is_none());
    assert!(toy.folder().join("built").exists());
    assert_eq!(backend(&models), "tract");
    println!("{DONE}");
}

/// A plan that was kept is as its checksum says, and another GPU's, or of another driver: a build in a process of its own
/// takes its place.
#[test]
fn a_kept_engine_that_is_refused_is_built_anew() {
    if !inside("a_kept_engine_that_is_refused_is_built_anew", "") {
        return;
    }
    for wrong in [" off", " of another release"] {
        let toy = Toy::forecasting();
        copy(&toy.cache(""), &toy.folder().join("good"));
        let cache = toy.cache(wrong);
        builder(&toy, "echo \"$@\" >> asked; cp good/* kept");
        let (_, slot, mut watch) = watched(&toy, &cache);
        assert!(watch.accelerate());
        let models = slot.take().unwrap();
        assert_eq!(backend(&models), "tensorrt");
        let engine = models.engines().next().unwrap();
        let off = crate::inference::parity(&ask(&**engine, 1, 0.3), &ask(&*toy.cpu(), 1, 0.3));
        assert!(off.iter().all(|p| p.max < 1e-4), "{off:?}");
        // Of the one batch that a daemon asks in.
        let asked = std::fs::read_to_string(toy.folder().join("asked")).unwrap();
        assert_eq!(asked.lines().count(), 1, "{asked}");
        assert!(asked.contains("--batches 1"), "{asked}");
    }
    println!("{DONE}");
}

/// A model that the GPU does not take is tried again; the one that it has is left alone.
#[test]
fn a_model_that_is_refused_disturbs_no_other() {
    if !inside("a_model_that_is_refused_disturbs_no_other", "") {
        return;
    }
    let toy = Toy::forecasting();
    toy.add_outcome();
    builder(
        &toy,
        "echo 'no such layer' >&2; echo \"$@\" >> asked; exit 1",
    );
    let (on_cpu, _, _) = watched(&toy, &toy.cache(""));
    let backends = |models: &Models| models.engines().map(|e| e.backend()).collect::<Vec<_>>();
    assert_eq!(backends(&on_cpu), ["tract", "tract"]);
    let cache = toy.cache("").folder().to_owned();
    let stop = CancellationToken::new();
    let accelerator = Accelerator::new(cache, Precision::Fp32, stop);
    let mut accelerator = accelerator.building_with(toy.folder().join("builder"));
    let mut look = |current: &Models| {
        accelerator.rested();
        accelerator.look(toy.folder(), &on_cpu, current)
    };
    let current = look(&on_cpu).unwrap();
    assert_eq!(backends(&current), ["tract", "tensorrt"]);
    // The other is asked for twice more, and nothing is handed over.
    for _ in 0..4 {
        assert!(look(&current).is_none());
    }
    let asked = std::fs::read_to_string(toy.folder().join("asked")).unwrap();
    assert_eq!(asked.lines().count(), 3, "{asked}");
    println!("{DONE}");
}

fn copy(cache: &Cache, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in cache.list().unwrap() {
        std::fs::copy(&file.path, to.join(file.path.file_name().unwrap())).unwrap();
    }
}

/// The seventh run breaks the context: the CPU answers within the same call, and the GPU gets the model again.
#[test]
fn a_gpu_that_fails_leaves_the_answer_to_the_cpu() {
    if !inside(
        "a_gpu_that_fails_leaves_the_answer_to_the_cpu",
        "fail:cuGraphLaunch:7",
    ) {
        return;
    }
    let toy = Toy::summing();
    let (gpu, cpu) = (Gpu::open().unwrap(), toy.cpu());
    let cache = toy.cache("");
    let load = || TensorRt::load(&gpu, toy.cpu(), toy.folder(), &cache, Precision::Fp32);
    // Four runs are the comparison's: three rows in ones, and once in fours.
    let engine = load().unwrap();
    let mut backends = Vec::new();
    for round in 0..5 {
        let (ours, theirs) = (ask(&engine, 1, round as f32), ask(&*cpu, 1, round as f32));
        assert!(
            crate::inference::parity(&ours, &theirs)
                .iter()
                .all(|p| p.max < 1e-5)
        );
        backends.push(engine.backend());
    }
    assert_eq!(
        backends,
        ["tensorrt", "tensorrt", "tract", "tract", "tract"]
    );
    drop(engine);
    // The device rests, and is opened anew.
    let began = std::time::Instant::now();
    let again = loop {
        match load() {
            Ok(engine) => break engine,
            Err(e) => assert!(began.elapsed().as_secs() < 30, "{e}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    assert_eq!(again.backend(), "tensorrt");
    println!("{DONE}");
}
