//! E0133
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let logger = Logger::new()?;
    let runtime = Runtime::new(Library::open()?, &logger)?;
    runtime.deserialize(b"from anywhere")?;
    Ok(())
}
