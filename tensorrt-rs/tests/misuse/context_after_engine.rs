//! E0505
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let logger = Logger::new()?;
    let runtime = Runtime::new(Library::open()?, &logger)?;
    // SAFETY: TensorRT wrote it.
    let engine = unsafe { runtime.deserialize(b"")? };
    let context = engine.context()?;
    drop(engine);
    drop(context);
    Ok(())
}
