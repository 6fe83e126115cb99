//! E0133
use tensorrt_rs::*;

fn run(context: &mut ExecutionContext<'_>, stream: Stream) -> Result<(), Error> {
    context.enqueue(stream)
}

fn main() {
    let _ = run;
}
