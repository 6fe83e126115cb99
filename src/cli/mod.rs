pub mod bench;
pub mod journal;
