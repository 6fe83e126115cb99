pub mod race;
pub mod record;
