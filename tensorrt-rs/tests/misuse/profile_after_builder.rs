//! E0505
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let logger = Logger::new()?;
    let builder = Builder::new(Library::open()?, &logger)?;
    let made = builder.profile()?;
    drop(builder);
    drop(made);
    Ok(())
}
