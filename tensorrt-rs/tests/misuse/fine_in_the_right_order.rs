//! compiles
use tensorrt_rs::*;

fn main() -> Result<(), Error> {
    let logger = Logger::new()?;
    let builder = Builder::new(Library::open()?, &logger)?;
    let mut network = builder.network(Typing::Strong)?;
    Parser::new(&mut network)?.parse(b"")?;
    let mut config = builder.config()?;
    let mut profile = builder.profile()?;
    profile.shapes("state", &[1, 8], &[20, 8], &[22, 8])?;
    config.add_profile(profile)?;
    let plan = builder.build(&mut network, &mut config)?;
    let runtime = Runtime::new(builder.library(), &logger)?;
    // SAFETY: TensorRT wrote it.
    let engine = unsafe { runtime.deserialize(&plan)? };
    let context = engine.context()?;
    drop(context);
    drop(engine);
    Ok(())
}
