pub mod record;
pub mod simulator;
