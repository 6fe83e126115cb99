//! Three models in one graph, on the tests' driver and the tests' runtime: toys with the tensors of the live models,
//! whose answers tell every number that they were fed and its place.

use std::fmt::Write;

use super::onnx::Attribute;
use super::*;
use crate::dataset::Walk;
use crate::engines::tests::invented;
use crate::predict::crossing::CHOICES;
use crate::predict::{Floor, Predictor};
use crate::record::prediction::Prediction;

fn inside(test: &str, driver: &str) -> bool {
    super::inside_of(module_path!(), test, driver)
}

/// What the stand-in does to an output.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Chance,
    Share,
}

struct Toy {
    name: &'static str,
    calibration: &'static str,
    inputs: &'static [(&'static str, &'static [i64])],
    outputs: &'static [(&'static str, &'static [i64], Kind)],
}

const LAPTIME: Toy = Toy {
    name: "laptime",
    calibration: "widen = [1, 1, 1, 1, 1, 1]",
    inputs: &[
        ("line", &[100]),
        ("sector1", &[31]),
        ("sector2", &[31]),
        ("hidden", &[2, 3]),
        ("cell", &[2, 3]),
        ("memory", &[5, 4]),
        ("mask", &[5]),
    ],
    outputs: &[
        ("quantiles", &[3, 3], Kind::Plain),
        ("next_hidden", &[2, 3], Kind::Plain),
        ("next_cell", &[2, 3], Kind::Plain),
        ("entry", &[4], Kind::Plain),
    ],
};

const FORECAST: Toy = Toy {
    name: "pit-forecast",
    calibration: "yes = [0.5]",
    inputs: &[("features", &[72])],
    outputs: &[
        ("hazard", &[30], Kind::Chance),
        ("compound", &[5], Kind::Chance),
    ],
};

const OUTCOME: Toy = Toy {
    name: "outcome",
    calibration: "mix = []",
    inputs: &[("cars", &[24, 54]), ("mask", &[24])],
    outputs: &[
        ("positions", &[24, 24], Kind::Share),
        ("retirement", &[24], Kind::Chance),
    ],
};

/// In the order of [`CHOICES`].
const TOYS: [Toy; 3] = [LAPTIME, FORECAST, OUTCOME];

fn values(shape: &[i64]) -> usize {
    shape.iter().product::<i64>() as usize
}

fn dynamic(shape: &[i64]) -> Vec<i64> {
    [&[-1], shape].concat()
}

impl Toy {
    /// The network that the stand-in computes.
    fn onnx(&self) -> Vec<u8> {
        let mut m = onnx::Model::new(super::Kind::F32);
        let mut flat = Vec::new();
        for (name, shape) in self.inputs {
            m.input(name, &dynamic(shape));
            let to = m.integers(&[-1, values(shape) as i64]);
            flat.push(m.node("Reshape", &[name, &to], &[]));
        }
        let numbers: usize = self.inputs.iter().map(|(_, shape)| values(shape)).sum();
        let all = match flat.as_slice() {
            [one] => one.clone(),
            many => {
                let many: Vec<&str> = many.iter().map(String::as_str).collect();
                m.node("Concat", &many, &[("axis", Attribute::Int(1))])
            }
        };
        let (least, most) = (m.constant(&[], &[0.0]), m.constant(&[], &[1.0]));
        for (name, shape, kind) in self.outputs {
            let width = values(shape);
            let (from, rows) = match kind {
                Kind::Share => ("mask", values(self.inputs.last().unwrap().1)),
                _ => (all.as_str(), numbers),
            };
            let weight = |k: usize, j: usize| match kind {
                Kind::Share => 1.0,
                _ => ((31 * k + 17 * j) % 13) as f32 * 1e-3 - 6e-3,
            };
            let weights: Vec<f32> = (0..rows * width)
                .map(|at| weight(at / width, at % width))
                .collect();
            let weights = m.constant(&[rows as i64, width as i64], &weights);
            let sum = m.node("MatMul", &[from, &weights], &[]);
            let answer = match kind {
                Kind::Plain => sum,
                Kind::Chance => m.node("Clip", &[&sum, &least, &most], &[]),
                Kind::Share => m.node("Reciprocal", &[&sum], &[]),
            };
            let to = m.integers(&dynamic(shape));
            m.node_to("Reshape", &[&answer, &to], name, &[]);
            m.output(name, &dynamic(shape));
        }
        m.finish()
    }

    /// The stand-in's plan of it.
    fn plan(&self, ending: &str) -> String {
        let dims = |shape: &[i64]| {
            let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
            dims.join("x")
        };
        let inputs = self
            .inputs
            .iter()
            .map(|(name, shape)| format!("{name} {}", dims(shape)));
        let outputs = self.outputs.iter().map(|(name, shape, kind)| {
            let kind = match kind {
                Kind::Plain => "",
                Kind::Chance => "chance/",
                Kind::Share => "share/",
            };
            format!("{kind}{name} {}", dims(shape))
        });
        let list = |all: Vec<String>| all.join(", ");
        format!(
            "an engine of the stand-in weighing for 1: {} -> {}{ending}",
            list(inputs.collect()),
            list(outputs.collect())
        )
    }

    fn manifest(&self, onnx: &[u8]) -> String {
        let digest: String = Sha256::digest(onnx)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let specs = |all: Vec<(&str, &[i64])>| {
            let specs = all.iter().map(|(name, shape)| {
                format!("{{ name = '{name}', shape = {:?} }}", dynamic(shape))
            });
            specs.collect::<Vec<_>>().join(", ")
        };
        let (name, calibration) = (self.name, self.calibration);
        format!(
            "[[model]]\nname = '{name}'\nversion = '1'\nfile = '{name}.onnx'\nsha256 = '{digest}'\nfeatures = 1\n\
             trained_on = 'nothing'\nbatches = [1]\nfixture = '{name}.json'\ninputs = [{}]\noutputs = [{}]\n\
             calibration = {{ {calibration} }}\n",
            specs(self.inputs.to_vec()),
            specs(self.outputs.iter().map(|(n, s, _)| (*n, *s)).collect()),
        )
    }

    /// Inputs that no race has had; a mask says that the first rows are there, and the others are zeros, as the live
    /// models' are.
    fn inputs(&self, seed: usize) -> Vec<Tensor> {
        let mask = self.inputs.iter().position(|(name, _)| *name == "mask");
        let there = mask.map(|at| 1 + seed % values(self.inputs[at].1));
        let of = |(at, (name, shape)): (usize, &(&str, &[i64]))| {
            let number = |i: usize| match there {
                Some(there) if *name == "mask" => f32::from(u8::from(i < there)),
                Some(there) if mask == Some(at + 1) && i / values(&shape[1..]) >= there => 0.0,
                _ => ((seed * 7919 + at * 104_729 + i * 31) % 97) as f32 / 48.5 - 1.0,
            };
            let shape: Vec<usize> = [&[1], *shape]
                .concat()
                .iter()
                .map(|n| *n as usize)
                .collect();
            let numbers = (0..shape.iter().product()).map(number).collect();
            Tensor::new(name, &shape, numbers)
        };
        self.inputs.iter().enumerate().map(of).collect()
    }
}

/// A folder with all three.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = String::new();
        for toy in &TOYS {
            let onnx = toy.onnx();
            manifest += &toy.manifest(&onnx);
            let file = |ending: &str| dir.path().join(format!("{}.{ending}", toy.name));
            std::fs::write(file("onnx"), &onnx).unwrap();
            std::fs::write(file("json"), "{}").unwrap();
        }
        std::fs::write(dir.path().join("models.toml"), manifest).unwrap();
        // Recorded by the CPU, which is what is to be agreed with.
        let manifest = Manifest::read(dir.path()).unwrap();
        for (nth, toy) in TOYS.iter().enumerate() {
            let model = manifest.model(toy.name).unwrap();
            let cpu = tract::Tract::load(model, &toy.onnx()).unwrap();
            let mut cases = String::new();
            for seed in 0..3 + nth {
                let inputs = toy.inputs(seed);
                let json = |all: &[Tensor]| {
                    let all: Vec<_> = (all.iter())
                        .map(|t| {
                            serde_json::json!({ "name": t.name, "shape": t.shape, "values": t.values })
                        })
                        .collect();
                    serde_json::Value::from(all)
                };
                let outputs = cpu.run(&inputs).unwrap();
                let case =
                    serde_json::json!({ "inputs": json(&inputs), "outputs": json(&outputs) });
                let comma = if seed == 0 { "" } else { "," };
                write!(cases, "{comma}{case}").unwrap();
            }
            let path = dir.path().join(format!("{}.json", toy.name));
            std::fs::write(path, format!("{{\"cases\": [{cases}]}}")).unwrap();
        }
        Folder(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn cpus(&self) -> Vec<Arc<dyn Engine>> {
        let load = |toy: &Toy| inference::load(self.path(), toy.name).unwrap().into();
        TOYS.iter().map(load).collect()
    }

    /// A cache with the stand-in's plans, that of `off` answering otherwise.
    fn cache(&self, off: Option<&str>) -> Cache {
        let cache = Cache::new(&self.path().join("kept"));
        let manifest = Manifest::read(self.path()).unwrap();
        for toy in &TOYS {
            let model = manifest.model(toy.name).unwrap();
            let key = Key::new(model, &machine().unwrap(), Precision::Fp32, 1);
            let ending = if off == Some(toy.name) { " off" } else { "" };
            cache.write(&key, toy.plan(ending).as_bytes()).unwrap();
        }
        cache
    }

    fn together(&self, gpu: &Gpu, cache: &Cache) -> Result<Together, EngineError> {
        let with = (cache, Precision::Fp32);
        Together::load(gpu, &self.cpus(), &CHOICES, self.path(), with)
    }
}

fn they_answer_as_the_cpu_does() {
    let folder = Folder::new();
    let (gpu, cpus) = (Gpu::open().unwrap(), folder.cpus());
    let together = folder.together(&gpu, &folder.cache(None)).unwrap();
    assert!(together.is_captured() && together.works());
    assert_eq!(together.name(), "laptime-1 + pit-forecast-1 + outcome-1");
    for off in together
        .parity(&cpus, folder.path())
        .unwrap()
        .iter()
        .flatten()
    {
        assert!(off.max < 1e-5, "{off:?}");
    }
    for seed in 0..60 {
        let choice = CHOICES[seed % 2];
        let inputs: Vec<Vec<Tensor>> = (0..3).map(|m| TOYS[m].inputs(seed + m)).collect();
        let asked: Vec<(usize, &[Tensor])> =
            choice.iter().map(|m| (*m, inputs[*m].as_slice())).collect();
        let answers = together.run(&asked).unwrap();
        assert_eq!(answers.len(), choice.len());
        for (member, ours) in choice.iter().zip(answers) {
            let theirs = cpus[*member].run(&inputs[*member]).unwrap();
            let off = crate::inference::parity(&ours, &theirs);
            assert!(off.iter().all(|p| p.max < 1e-5), "{seed}: {off:?}");
        }
    }
    assert_eq!(together.answered(), 60);
    // What is not theirs is the asker's fault, and changes nothing.
    let inputs = TOYS[0].inputs(0);
    let mut torn = TOYS[2].inputs(0);
    torn[1].values[0] = 0.5;
    let stop = TOYS[1].inputs(0);
    let said = together.run(&[(0, &inputs), (1, &stop), (2, &torn)]);
    assert!(matches!(said, Err(EngineError::Shape { .. })));
    let said = together.run(&[(0, &inputs[1..]), (1, &stop)]);
    assert!(matches!(said, Err(EngineError::Shape { .. })));
    assert!(together.works());
    // One of them answers otherwise: none is asked.
    for toy in &TOYS {
        let refused = folder.together(&gpu, &folder.cache(Some(toy.name)));
        let refused = refused.err().unwrap();
        assert!(
            matches!(&refused, EngineError::Parity { model, .. } if model.starts_with(toy.name)),
            "{refused}"
        );
    }
    println!("{DONE}");
}

#[test]
fn together_on_a_discrete_gpu() {
    if inside("together_on_a_discrete_gpu", "") {
        they_answer_as_the_cpu_does();
    }
}

#[test]
fn together_on_an_integrated_gpu() {
    if inside("together_on_an_integrated_gpu", "integrated,poolless") {
        they_answer_as_the_cpu_does();
    }
}

/// All predictions of a race.
fn raced(models: Models) -> Vec<Prediction> {
    let mut predictor = Predictor::new(Floor::shipped()).with_models(models);
    let mut made = Vec::new();
    Walk::new(&invented()).each(|view, seq, events| {
        made.extend(predictor.observe_view(view, seq, events));
    });
    assert_eq!(predictor.model_failure(), None);
    made
}

/// Numbers as they are but for the last digits, and the backend's name; with it, how many are a GPU's.
fn told(made: &[Prediction]) -> (Vec<String>, usize) {
    fn round(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Number(n) if n.is_f64() => {
                let thousandths = (n.as_f64().unwrap() * 200.0).round() / 200.0;
                *value = thousandths.into();
            }
            serde_json::Value::Array(all) => all.iter_mut().for_each(round),
            serde_json::Value::Object(all) => all.values_mut().for_each(round),
            _ => {}
        }
    }
    let mut on_gpu = 0;
    let lines = made.iter().map(|p| {
        let mut value = serde_json::to_value(p).unwrap();
        round(&mut value);
        let line = value.to_string();
        on_gpu += usize::from(line.contains("\"tensorrt\""));
        line.replace("\"tensorrt\"", "\"tract\"")
    });
    (lines.collect(), on_gpu)
}

/// A whole race predicted from models that answer together: the predictions of the CPU's.
fn a_race_comes_out_alike(breaks: bool) {
    let folder = Folder::new();
    let cache = folder.cache(None);
    let on_cpu = Models::load(folder.path()).unwrap();
    let gpu = Gpu::open().unwrap();
    let load = |cpu: &Arc<dyn Engine>| -> Result<Arc<dyn Engine>, EngineError> {
        let engine = TensorRt::load(
            &gpu,
            Arc::clone(cpu),
            folder.path(),
            &cache,
            Precision::Fp32,
        )?;
        Ok(Arc::new(engine))
    };
    let mut models = on_cpu.on(load).unwrap();
    let joined = on_cpu.with_all(|cpus, choices| {
        let with = (&cache, Precision::Fp32);
        Together::load(&gpu, cpus, choices, folder.path(), with)
    });
    let together = Arc::new(joined.unwrap().unwrap());
    models.together = Some(Arc::clone(&together));
    let (here, none) = told(&raced(on_cpu));
    let (there, on_gpu) = told(&raced(models));
    assert_eq!((here.len(), none), (there.len(), 0));
    for (here, there) in here.iter().zip(&there) {
        assert_eq!(here, there);
    }
    let answered = together.answered();
    println!(
        "{} predictions, {on_gpu} of a GPU, {answered} crossings",
        here.len()
    );
    assert_eq!(together.works(), !breaks);
    match breaks {
        true => assert!((5..100).contains(&answered) && on_gpu < here.len() / 2),
        false => assert!(answered > 100 && on_gpu > here.len() / 2),
    }
    println!("{DONE}");
}

#[test]
fn a_race_is_predicted_by_models_that_answer_together() {
    if inside("a_race_is_predicted_by_models_that_answer_together", "") {
        a_race_comes_out_alike(false);
    }
}

#[test]
fn a_gpu_that_fails_in_the_middle_of_a_race_is_not_noticed() {
    let driver = "fail:cuGraphLaunch:150";
    if inside(
        "a_gpu_that_fails_in_the_middle_of_a_race_is_not_noticed",
        driver,
    ) {
        a_race_comes_out_alike(true);
    }
}

/// A daemon's watch puts them together once each is on the GPU, and not if one is not.
#[test]
fn a_watch_hands_over_models_that_answer_together() {
    if !inside("a_watch_hands_over_models_that_answer_together", "") {
        return;
    }
    let folder = Folder::new();
    for (off, joined) in [(None, true), (Some("outcome"), false)] {
        let cache = folder.cache(off);
        let slot = Slot::default();
        let kept = cache.folder().to_owned();
        let accelerator = Accelerator::new(kept, Precision::Fp32, CancellationToken::new());
        // Nobody builds what is refused.
        let accelerator = accelerator.building_with(folder.path().join("builder"));
        let chosen = Chosen::Folder(folder.path().to_owned());
        let mut watch = Watch::new(chosen, slot.clone()).with_accelerator(accelerator);
        assert!(watch.look());
        assert!(slot.take().unwrap().together.is_none());
        assert!(watch.accelerate());
        let models = slot.take().unwrap();
        let on_gpu = models
            .engines()
            .filter(|e| e.backend() == "tensorrt")
            .count();
        assert_eq!(on_gpu, if joined { 3 } else { 2 });
        assert_eq!(models.together.is_some(), joined);
        if let Some(together) = &models.together {
            raced(models.clone());
            assert!(together.works() && together.answered() > 100);
        }
    }
    println!("{DONE}");
}
