pub mod race;
pub mod ingest;
pub mod publish;
pub mod record;
