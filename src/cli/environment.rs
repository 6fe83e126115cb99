//! `trackside environment`: the race model as a place to learn in, over the standard streams.
//!
//! Little-endian, one round after another: out goes the number of questions (u32) and for each its slot (u32), the
//! pay for the decision before (f32, s), whether its race is over (u32), the legal actions (u32, bits) and the state
//! (32 × f32); in comes one byte a question, the action (any where the race is over). It ends with its input.

use std::io::{BufWriter, ErrorKind, Read, Write};

use crate::strategy::environment::{Environment, Question, problems};
use crate::strategy::parameters::Parameters;

/// Different races before they repeat with other luck.
const PROBLEMS: u32 = 1024;
/// Most races side by side.
const MOST_RACES: u32 = 4096;

/// Simulated races for training the pit network, over standard input and output.
#[derive(clap::Args)]
pub struct Args {
    /// Seed of the races.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Races side by side.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_RACES)))]
    races: u32,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let problems = problems(&Parameters::shipped(), PROBLEMS, args.seed)?;
    let mut environment = Environment::new(&problems, args.races, args.seed);
    let mut input = std::io::stdin().lock();
    let mut output = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    loop {
        let questions = environment.questions();
        output.write_all(&(questions.len() as u32).to_le_bytes())?;
        for question in &questions {
            write(&mut output, question)?;
        }
        output.flush()?;
        let mut actions = vec![0; questions.len()];
        match input.read_exact(&mut actions) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        environment.answer(&questions, &actions);
    }
}

fn write(output: &mut impl Write, question: &Question) -> std::io::Result<()> {
    output.write_all(&question.slot.to_le_bytes())?;
    output.write_all(&question.reward.to_le_bytes())?;
    output.write_all(&u32::from(question.over).to_le_bytes())?;
    output.write_all(&u32::from(question.legal).to_le_bytes())?;
    for value in question.state {
        output.write_all(&value.to_le_bytes())?;
    }
    Ok(())
}
