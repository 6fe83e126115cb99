pub mod cli;
pub mod journal;
pub mod record;
