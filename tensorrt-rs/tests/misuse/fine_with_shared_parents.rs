//! compiles
use std::sync::Arc;
use tensorrt_rs::*;

fn context(plan: &[u8]) -> Result<ExecutionContext<'static>, Error> {
    let logger = Arc::new(Logger::new()?);
    let runtime = Arc::new(Runtime::new(Library::open()?, logger)?);
    // SAFETY: TensorRT wrote it.
    let engine = Arc::new(unsafe { Engine::new(runtime, plan)? });
    ExecutionContext::new(engine, ContextOptions::default())
}

fn main() -> Result<(), Error> {
    let context = context(b"")?;
    std::thread::spawn(move || drop(context)).join().unwrap();
    Ok(())
}
