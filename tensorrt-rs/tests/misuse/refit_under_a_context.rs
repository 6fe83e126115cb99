//! E0502
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let logger = Logger::new()?;
    let runtime = Runtime::new(Library::open()?, &logger)?;
    // SAFETY: TensorRT wrote it.
    let mut engine = unsafe { runtime.deserialize(b"")? };
    let context = engine.context()?;
    engine.refit(b"")?;
    drop(context);
    Ok(())
}
