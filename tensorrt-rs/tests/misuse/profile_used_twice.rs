//! E0382
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let logger = Logger::new()?;
    let builder = Builder::new(Library::open()?, &logger)?;
    let (mut config, profile) = (builder.config()?, builder.profile()?);
    config.add_profile(profile)?;
    config.add_profile(profile)?;
    Ok(())
}
