//! A discrete NVIDIA GPU, as its driver's management library (NVML) has it.
//!
//! The library is loaded at run time; where it is not there, or says nothing (a Jetson's GPU is read from sysfs),
//! nothing is added.

use std::sync::OnceLock;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};

use super::readings::{Gpu, GpuMemory, Rail, Readings, Temperature};

/// The name under which its temperature and power are kept.
const NAME: &str = "gpu";

/// Adds what the first GPU says of itself to readings that have no GPU yet.
pub(super) fn add(readings: &mut Readings) {
    static LIBRARY: OnceLock<Option<Nvml>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| Nvml::init().ok());
    let Some(device) = library
        .as_ref()
        .and_then(|nvml| nvml.device_by_index(0).ok())
    else {
        return;
    };
    let hz = |mhz: u32| u64::from(mhz) * 1_000_000;
    if readings.gpu.is_none() {
        let gpu = Gpu {
            load_percent: device.utilization_rates().ok().map(|u| f64::from(u.gpu)),
            frequency_hz: device.clock_info(Clock::SM).ok().map(hz),
            max_frequency_hz: device.max_clock_info(Clock::SM).ok().map(hz),
        };
        readings.gpu = (gpu != Gpu::default()).then_some(gpu);
    }
    readings.gpu_memory = device.memory_info().ok().map(|memory| GpuMemory {
        total_bytes: memory.total,
        free_bytes: memory.free,
    });
    if let Ok(celsius) = device.temperature(TemperatureSensor::Gpu) {
        readings.temperatures.push(Temperature {
            zone: NAME.to_owned(),
            celsius: celsius.into(),
        });
    }
    if let Ok(milliwatts) = device.power_usage() {
        readings.rails.push(Rail {
            name: NAME.to_owned(),
            watts: f64::from(milliwatts) / 1e3,
        });
    }
}
