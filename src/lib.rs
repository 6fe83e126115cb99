pub mod cli;
pub mod config;
pub mod daemon;
pub mod ingest;
pub mod live;
pub mod publish;
pub mod race;
pub mod record;
