pub mod api;
pub mod device;
pub mod observability;
pub mod record;
