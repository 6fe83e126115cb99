//! E0277
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let logger = Logger::new()?;
    let runtime = Runtime::new(Library::open()?, &logger)?;
    // SAFETY: TensorRT wrote it.
    let engine = unsafe { runtime.deserialize(b"")? };
    let context = engine.context()?;
    std::thread::scope(|scope| {
        scope.spawn(|| context.shape("state").map(drop));
    });
    Ok(())
}
