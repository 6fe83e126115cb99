//! What a device says of itself.

use cudarc::driver::{result, sys};

use super::error::{Call, CudaError};
use crate::compute::launch::Geometry;

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Properties {
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Such as 12060 for CUDA 12.6.
    pub driver_version: i32,
    /// It shares its memory with the CPU (a Jetson).
    pub integrated: bool,
    pub multiprocessors: u32,
    pub threads_each: u32,
    pub memory_bytes: u64,
    /// From the bus and its clock (bytes/s); 0 where the driver does not say.
    pub peak_bandwidth: u64,
    pub clock_hz: u64,
    pub memory_pools: bool,
}

impl Properties {
    /// Asks the driver.
    pub(super) fn of(handle: sys::CUdevice) -> Result<Properties, CudaError> {
        use sys::CUdevice_attribute_enum as Attribute;
        let ask = |attribute| {
            // SAFETY: `handle` is a device.
            unsafe { result::device::get_attribute(handle, attribute) }.call("cuDeviceGetAttribute")
        };
        let number = |attribute| ask(attribute).map(|v| u32::try_from(v).unwrap_or(0));
        // Newer drivers may keep clocks to themselves.
        let told = |attribute| u64::from(number(attribute).unwrap_or(0));
        let mut driver_version = 0;
        // SAFETY: it writes one number.
        unsafe { sys::cuDriverGetVersion(&mut driver_version) }
            .result()
            .call("cuDriverGetVersion")?;
        let bus_bits = told(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
        let memory_khz = told(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
        Ok(Properties {
            name: result::device::get_name(handle).call("cuDeviceGetName")?,
            capability: (
                ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            driver_version,
            integrated: ask(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0,
            multiprocessors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            threads_each: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
            // SAFETY: `handle` is a device.
            memory_bytes: unsafe { result::device::total_mem(handle) }.call("cuDeviceTotalMem")?
                as u64,
            // Two transfers a clock.
            peak_bandwidth: memory_khz * 1000 * 2 * bus_bits / 8,
            clock_hz: told(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE) * 1000,
            memory_pools: ask(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? != 0,
        })
    }

    /// What decides how many blocks are launched.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            multiprocessors: self.multiprocessors,
            threads_each: self.threads_each,
        }
    }
}
