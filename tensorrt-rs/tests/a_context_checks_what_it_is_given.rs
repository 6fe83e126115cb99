//! Runtime, engine and context on this crate's side of the interface: what is checked before TensorRT is asked, what
//! reaches it, and in which order things go away.
//!
//! There is no GPU where this runs, so a stand-in for the library and one for the driver are loaded; see
//! `tests/stand_in`. What TensorRT itself does is not tested here.

mod stand_in;

use std::env;
use std::process::{Command, Output};
use std::sync::Arc;

use stand_in::StandIn;
use tensorrt_rs::{
    ContextOptions, DeviceBuffer, Driver, Engine, Error, ExecutionContext, Half, Library, Logger,
    Runtime, Stream,
};

/// Set in the process that has the stand-ins: the folder they are in.
const CHILD: &str = "TENSORRT_RS_STAND_IN";
const PLAN: &[u8] = b"an engine of the stand-in";

/// A test in a process of its own, where the loader finds the stand-in's driver first.
fn beside(stand_in: &StandIn, test: &str, cuda: &str) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, &stand_in.0)
        .env("LD_LIBRARY_PATH", &stand_in.0)
        .env("STAND_IN_CUDA", cuda)
        .output()
        .unwrap()
}

fn library() -> Library {
    let folder = env::var_os(CHILD).expect("a process with the stand-ins");
    Library::open_files(&std::path::Path::new(&folder).join("libstandin.so"), None).unwrap()
}

fn stream() -> Stream {
    Stream::from_raw(std::ptr::without_provenance_mut(1))
}

/// The process's own memory, which is the stand-in's device memory.
fn memory<T: tensorrt_rs::Element>(values: &mut [T]) -> DeviceBuffer {
    DeviceBuffer::new::<T>(values.as_mut_ptr().expose_provenance() as u64, values.len())
}

#[test]
fn with_stand_ins() {
    if env::var_os(CHILD).is_some() {
        a_driver_is_found();
        an_engine_is_described();
        a_foreign_plan_is_refused();
        shapes_are_checked();
        buffers_are_checked();
        a_run_reads_and_writes_the_buffers();
        a_profile_is_changed();
        a_failed_run_says_why();
        a_runtime_cache_goes_round();
        parents_may_be_shared();
        return;
    }
    let stand_in = StandIn::new();
    assert!(stand_in.library().is_file());
    let done = beside(&stand_in, "with_stand_ins", "0 1");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{}: {said}{}",
        done.status,
        String::from_utf8_lossy(&done.stdout)
    );
    for (cuda, wanted) in [
        (
            "100 0",
            "cuInit returned 100: no CUDA-capable device is detected",
        ),
        ("0 0", "the driver sees no GPU"),
    ] {
        let done = beside(&stand_in, "a_driver_that_fails", cuda);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success() && said.contains(wanted),
            "{}: {said}",
            done.status
        );
    }
}

/// Beside a stand-in driver that fails: a typed error, whatever the library would do.
#[test]
fn a_driver_that_fails() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let logger = Logger::new().unwrap();
    let error = Runtime::new(library(), &logger).unwrap_err();
    assert!(matches!(error, Error::NoDriver { .. }), "{error:?}");
    eprintln!("{error}");
}

fn a_driver_is_found() {
    assert_eq!(
        Driver::find().unwrap(),
        Driver {
            cuda: 12060,
            devices: 1
        }
    );
}

fn with_engine(test: impl FnOnce(&Engine<'_>)) {
    let logger = Logger::new().unwrap();
    let runtime = Runtime::new(library(), &logger).unwrap();
    // SAFETY: the stand-in's own.
    test(&unsafe { runtime.deserialize(PLAN) }.unwrap());
}

fn an_engine_is_described() {
    with_engine(|engine| {
        let named: Vec<String> = engine.tensors().iter().map(ToString::to_string).collect();
        assert_eq!(named, ["state f32 [-1, 8]", "values f32 [-1, 10]"]);
        assert!(engine.tensors()[0].is_input && !engine.tensors()[1].is_input);
        assert_eq!((engine.layers(), engine.profiles()), (1, 2));
        assert_eq!(
            (
                engine.device_memory().unwrap(),
                engine.is_refittable().unwrap()
            ),
            (4096, false)
        );
        let shapes = engine.profile_shapes("state", 1).unwrap();
        assert_eq!((shapes.min, shapes.max), (vec![4, 8], vec![8, 8]));
        assert!(
            engine.profile_shapes("state", 2).is_err()
                && engine.profile_shapes("values", 0).is_err()
        );
        assert_eq!(engine.inspect().unwrap(), r#"{"Layers": ["sum"]}"#);
        assert_eq!(&*engine.serialize().unwrap(), PLAN);
        let error = engine.tensor("speed").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"there is no tensor "speed"; there are: state, values"#
        );
    });
}

fn a_foreign_plan_is_refused() {
    let logger = Logger::new().unwrap();
    let runtime = Runtime::new(library(), &logger).unwrap();
    for plan in [&b"an engine of another release"[..], &PLAN[..10], b""] {
        // SAFETY: the stand-in looks at all of it.
        let error = unsafe { runtime.deserialize(plan) }
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "cannot load the engine: deserializeCudaEngine: the magic tag does not match"
        );
    }
}

fn shapes_are_checked() {
    with_engine(|engine| {
        let mut context = engine.context().unwrap();
        assert_eq!(context.shape("state").unwrap(), [-1, 8]);
        for (shape, wanted) in [
            (&[23, 8][..], "profile 0 goes from [1, 8] to [22, 8]"),
            (&[0, 8], "profile 0 goes from [1, 8] to [22, 8]"),
            (&[20, 9], "the engine has [-1, 8]"),
            (&[20, 8, 1], "the engine has [-1, 8]"),
            (&[-1, 8], "profile 0 goes"),
        ] {
            let error = context.set_input_shape("state", shape).unwrap_err();
            assert!(matches!(error, Error::WrongShape { .. }), "{error:?}");
            assert!(error.to_string().contains(wanted), "{error}");
        }
        assert!(
            context
                .set_input_shape("values", &[20, 10])
                .unwrap_err()
                .to_string()
                .contains("output")
        );
        assert!(matches!(
            context.set_input_shape("sta\0te", &[1, 8]),
            Err(Error::NoSuchTensor { .. })
        ));
        context.set_input_shape("state", &[20, 8]).unwrap();
        assert_eq!(context.shape("values").unwrap(), [20, 10]);
    });
}

fn buffers_are_checked() {
    with_engine(|engine| {
        let mut context = engine.context().unwrap();
        let (mut state, mut halves, mut values) =
            ([0_f32; 22 * 8], [Half(0); 22 * 8], [0_f32; 22 * 10]);
        // SAFETY: refused, or memory that outlives the context.
        unsafe {
            let error = context.bind("state", memory(&mut halves)).unwrap_err();
            assert_eq!(
                error.to_string(),
                r#"tensor "state" holds f32, the buffer f16"#
            );
            let nowhere = DeviceBuffer::new::<f32>(0, 22 * 8);
            assert!(matches!(
                context.bind("state", nowhere),
                Err(Error::Argument { .. })
            ));
            let error = context.enqueue(stream()).unwrap_err();
            assert_eq!(error.to_string(), r#"tensor "state" has no buffer yet"#);
            context.bind("state", memory(&mut state[..20 * 8])).unwrap();
            // No shape yet: a buffer for the output must do for the largest.
            let error = context
                .bind("values", memory(&mut values[..20 * 10]))
                .unwrap_err();
            assert_eq!(
                error,
                Error::TooSmall {
                    name: "values".to_owned(),
                    needed: 880,
                    found: 800
                }
            );
            context.bind("values", memory(&mut values)).unwrap();
            let error = context.enqueue(stream()).unwrap_err();
            assert_eq!(error.to_string(), r#"tensor "state" has no shape yet"#);
            context.set_input_shape("state", &[20, 8]).unwrap();
            context.enqueue(stream()).unwrap();
            // Grown since: the buffer that was large enough is so no more.
            context.set_input_shape("state", &[22, 8]).unwrap();
            let error = context.enqueue(stream()).unwrap_err();
            assert_eq!(
                error,
                Error::TooSmall {
                    name: "state".to_owned(),
                    needed: 704,
                    found: 640
                }
            );
            context.bind("state", memory(&mut state)).unwrap();
            context.enqueue(stream()).unwrap();
        }
    });
}

fn a_run_reads_and_writes_the_buffers() {
    with_engine(|engine| {
        let mut context = engine.context().unwrap();
        let mut state: Vec<f32> = (0..22 * 8).map(|i| i as f32).collect();
        let mut values = [-1_f32; 22 * 10];
        context.set_input_shape("state", &[21, 8]).unwrap();
        // SAFETY: memory that outlives the context.
        unsafe {
            context.bind("state", memory(&mut state)).unwrap();
            context.bind("values", memory(&mut values)).unwrap();
            context.enqueue(stream()).unwrap();
        }
        drop(context);
        for (i, row) in values.chunks(10).enumerate() {
            let sum: f32 = state[i * 8..][..8].iter().sum();
            let wanted: Vec<f32> = (0..10)
                .map(|j| if i < 21 { sum + j as f32 } else { -1.0 })
                .collect();
            assert_eq!(row, wanted, "row {i}");
        }
    });
}

fn a_profile_is_changed() {
    with_engine(|engine| {
        let mut context = engine.context().unwrap();
        // SAFETY: nothing is under way.
        unsafe {
            let error = context.set_profile(2, stream()).unwrap_err().to_string();
            assert!(error.contains("2; the engine has 2"), "{error}");
            context.set_profile(1, stream()).unwrap();
        }
        let error = context
            .set_input_shape("state", &[20, 8])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("profile 1 goes from [4, 8] to [8, 8]"),
            "{error}"
        );
        context.set_input_shape("state", &[6, 8]).unwrap();
    });
}

fn a_failed_run_says_why() {
    with_engine(|engine| {
        let mut context = engine.context().unwrap();
        let (mut state, mut values) = ([0_f32; 8], [0_f32; 10]);
        context.set_input_shape("state", &[1, 8]).unwrap();
        // SAFETY: memory that outlives the context.
        unsafe {
            context.bind("state", memory(&mut state)).unwrap();
            context.bind("values", memory(&mut values)).unwrap();
            let error = context
                .enqueue(Stream::from_raw(std::ptr::null_mut()))
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot run the engine: enqueueV3: the stream is lost"
            );
            context.enqueue(stream()).unwrap();
        }
    });
}

fn a_runtime_cache_goes_round() {
    with_engine(|engine| {
        let with = |cache| {
            ExecutionContext::new(
                engine,
                ContextOptions {
                    runtime_cache: cache,
                },
            )
        };
        assert!(matches!(
            with(None).unwrap().runtime_cache(),
            Err(Error::Unsupported { .. })
        ));
        if !cfg!(feature = "rtx") {
            assert!(matches!(with(Some(&[])), Err(Error::Unsupported { .. })));
            return;
        }
        let mut context = with(Some(&[])).unwrap();
        let (mut state, mut values) = ([0_f32; 8], [0_f32; 10]);
        context.set_input_shape("state", &[1, 8]).unwrap();
        // SAFETY: memory that outlives the context.
        unsafe {
            context.bind("state", memory(&mut state)).unwrap();
            context.bind("values", memory(&mut values)).unwrap();
            context.enqueue(stream()).unwrap();
            assert!(context.is_capturable(stream()).unwrap());
        }
        let cache = context.runtime_cache().unwrap();
        drop(context);
        assert_eq!(&*cache, b"kernels compiled");
        let context = with(Some(&cache)).unwrap();
        assert_eq!(&*context.runtime_cache().unwrap(), b"kernels compiled");
        let error = with(Some(b"junk")).unwrap_err().to_string();
        assert!(error.contains("the runtime cache is damaged"), "{error}");
    });
}

/// The stand-in ends the process where a parent goes first.
fn parents_may_be_shared() {
    let logger = Arc::new(Logger::new().unwrap());
    let runtime = Arc::new(Runtime::new(library(), Arc::clone(&logger)).unwrap());
    // SAFETY: the stand-in's own.
    let engine = Arc::new(unsafe { Engine::new(Arc::clone(&runtime), PLAN) }.unwrap());
    let contexts: Vec<ExecutionContext<'static>> = (0..2)
        .map(|_| ExecutionContext::new(Arc::clone(&engine), ContextOptions::default()).unwrap())
        .collect();
    drop((logger, runtime, engine));
    std::thread::scope(|scope| {
        for mut context in contexts {
            scope.spawn(move || context.set_input_shape("state", &[20, 8]).unwrap());
        }
    });
}
