//! E0277
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let logger = Logger::new()?;
    let builder = Builder::new(Library::open()?, &logger)?;
    let network = builder.network(Typing::Strong)?;
    std::thread::scope(|scope| {
        scope.spawn(|| drop(network));
    });
    Ok(())
}
