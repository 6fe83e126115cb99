pub mod predict;
pub mod record;
