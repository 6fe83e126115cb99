#![doc = include_str!("../README.md")]

mod builder;
mod config;
mod context;
mod driver;
mod engine;
mod error;
mod ffi;
mod half;
mod held;
mod library;
mod logger;
mod memory;
mod network;
mod parser;
mod profile;
mod runtime;
mod severity;
mod tensor;
mod version;

pub use builder::{Builder, Typing};
pub use config::BuilderConfig;
pub use context::{ContextOptions, ExecutionContext, Stream};
pub use driver::Driver;
pub use engine::{Engine, ProfileShapes};
pub use error::{Error, Log, ParserError};
pub use half::products_in_half;
pub use held::Held;
pub use library::Library;
pub use logger::Logger;
pub use memory::HostMemory;
pub use network::Network;
pub use parser::Parser;
pub use profile::OptimizationProfile;
pub use runtime::Runtime;
pub use severity::Severity;
pub use tensor::{DataType, DeviceBuffer, Element, Half, Tensor};
#[doc(hidden)]
pub use version::HEADERS;
pub use version::{HAS_FP16_FLAG, RELEASE, Version};
