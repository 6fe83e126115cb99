//! E0597
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let builder = {
        let logger = Logger::new()?;
        Builder::new(Library::open()?, &logger)?
    };
    builder.config()?;
    Ok(())
}
