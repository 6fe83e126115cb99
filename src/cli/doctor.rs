//! `trackside doctor`: what this machine has, what is wrong, what to do about it.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::device::readings::Readings;
use crate::journal::Journal;
