//! E0597
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let runtime = {
        let logger = Logger::new()?;
        Runtime::new(Library::open()?, &logger)?
    };
    drop(runtime);
    Ok(())
}
