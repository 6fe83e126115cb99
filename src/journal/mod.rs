pub mod block;
mod cursor;
