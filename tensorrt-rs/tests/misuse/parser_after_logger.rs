//! E0505
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let logger = Logger::new()?;
    let builder = Builder::new(Library::open()?, &logger)?;
    let mut network = builder.network(Typing::Strong)?;
    let parser = Parser::new(&mut network)?;
    drop(logger);
    parser.parse(b"")
}
