//! Devices by name: `auto`, `cpu`, `cuda[:N]`, `wgpu[:N]`, `vulkan[:N]`.
//!
//! Which kinds exist is decided when the program is built (features `cuda`, `gpu`, `vulkan`); which are there
//! is asked of the drivers at run time, without failing where there is none.

use std::fmt;
use std::panic::catch_unwind;
use std::str::FromStr;

use burn::tensor::{DType, Device, Tensor};

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This machine's processor.
    Cpu,
    /// An NVIDIA GPU through CUDA.
    Cuda,
    /// Any GPU through WebGPU shaders, or a software driver.
    Wgpu,
    /// Any GPU through Vulkan and SPIR-V.
    Vulkan,
}

impl Kind {
    /// All kinds, in the order `auto` prefers them, the processor last.
    pub const ALL: [Kind; 4] = [Kind::Cuda, Kind::Vulkan, Kind::Wgpu, Kind::Cpu];

    /// The word used on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::Cuda => "cuda",
            Kind::Wgpu => "wgpu",
            Kind::Vulkan => "vulkan",
        }
    }

    /// Whether this build can use it.
    pub fn is_compiled(self) -> bool {
        match self {
            Kind::Cpu => true,
            Kind::Cuda => cfg!(feature = "cuda"),
            Kind::Wgpu => cfg!(feature = "gpu"),
            Kind::Vulkan => cfg!(feature = "vulkan"),
        }
    }

    /// The cargo feature that adds it.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            Kind::Cpu => None,
            Kind::Cuda => Some("cuda"),
            Kind::Wgpu => Some("gpu"),
            Kind::Vulkan => Some("vulkan"),
        }
    }
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// The best device found: CUDA, then a real GPU through Vulkan or WebGPU, then the processor.
    Auto,
    /// The N-th device of a kind.
    Named(Kind, usize),
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { name: text.chars().take(64).collect() };
        if text == "auto" {
            return Ok(DeviceName::Auto);
        }
        let (word, index) = match text.split_once(':') {
            Some((word, index)) => (word, index.parse().map_err(|_| unknown())?),
            None => (text, 0),
        };
        let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(unknown)?;
        match kind == Kind::Cpu && text != "cpu" {
            true => Err(unknown()),
            false => Ok(DeviceName::Named(kind, index)),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Auto => f.write_str("auto"),
            DeviceName::Named(Kind::Cpu, _) => f.write_str("cpu"),
            DeviceName::Named(kind, index) => write!(f, "{}:{index}", kind.word()),
        }
    }
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not a name of a device.
    #[error("`{name}` is not a device; expected auto, cpu, cuda[:N], wgpu[:N] or vulkan[:N]")]
    Unknown {
        /// What was given.
        name: String,
    },
    /// This build lacks the kind.
    #[error("this build cannot use `{name}`; it was compiled without the feature `{feature}`")]
    NotCompiled {
        /// What was asked for.
        name: DeviceName,
        /// The cargo feature that adds it.
        feature: &'static str,
    },
    /// The machine has no such device.
    #[error("`{name}` was not found: {why}")]
    NotFound {
        /// What was asked for.
        name: DeviceName,
        /// What was looked for and found.
        why: String,
    },
}

/// One line of the inventory.
#[derive(Debug, Clone)]
pub struct Found {
    /// How to name it.
    pub name: DeviceName,
    /// The device as its driver calls it.
    pub description: String,
    /// Dtypes its arithmetic supports, of f32, f16 and bf16.
    pub dtypes: Vec<DType>,
    /// Memory in bytes, where the driver tells.
    pub memory: Option<u64>,
    /// Why it cannot be used, from a small trial multiplication.
    pub fault: Option<String>,
}

/// Finds the device of that name.
///
/// # Errors
/// [`DeviceError::NotCompiled`] and [`DeviceError::NotFound`].
pub fn open(name: DeviceName) -> Result<(Device, DeviceName), DeviceError> {
    match name {
        DeviceName::Auto => Ok(best()),
        DeviceName::Named(kind, index) => {
            if let (false, Some(feature)) = (kind.is_compiled(), kind.feature()) {
                return Err(DeviceError::NotCompiled { name, feature });
            }
            let (mut devices, fault) = enumerate(kind);
            if index < devices.len() {
                return Ok((devices.swap_remove(index), name));
            }
            let why = match (fault, devices.len()) {
                (Some(fault), _) => fault,
                (None, 0) => nothing_found(kind).to_string(),
                (None, n) => format!("{n} such devices are present, counted from 0"),
            };
            Err(DeviceError::NotFound { name, why })
        }
    }
}

fn best() -> (Device, DeviceName) {
    for kind in [Kind::Cuda, Kind::Vulkan, Kind::Wgpu] {
        // A software driver is slower than the processor itself; it is used when named, never by default.
        let mut real = enumerate(kind).0.into_iter().enumerate().filter(|(_, device)| !is_software(device));
        if let Some((index, device)) = real.next() {
            return (device, DeviceName::Named(kind, index));
        }
    }
    (Device::flex(), DeviceName::Named(Kind::Cpu, 0))
}

/// Every device of every kind compiled in; each is tried with a small multiplication.
pub fn inventory() -> Vec<Found> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        for (index, device) in enumerate(kind).0.into_iter().enumerate() {
            let fault = trial(&device);
            let supported = |dtype: &DType| fault.is_none() && device.supports_dtype(*dtype);
            all.push(Found {
                name: DeviceName::Named(kind, index),
                description: describe(DeviceName::Named(kind, index), &device),
                dtypes: [DType::F32, DType::F16, DType::BF16].into_iter().filter(supported).collect(),
                memory: memory(kind, index),
                fault,
            });
        }
    }
    all
}

/// Devices of a kind, real ones before software drivers, and why the drivers could not be asked.
fn enumerate(kind: Kind) -> (Vec<Device>, Option<String>) {
    let ask = move || -> Vec<Device> {
        match kind {
            Kind::Cpu => vec![Device::flex()],
            #[cfg(feature = "cuda")]
            Kind::Cuda => Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec(),
            #[cfg(feature = "gpu")]
            Kind::Wgpu => Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec(),
            #[cfg(feature = "vulkan")]
            Kind::Vulkan => Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec(),
            #[allow(unreachable_patterns)] // reached only where a feature is off
            _ => Vec::new(),
        }
    };
    match catch_unwind(ask) {
        Ok(mut devices) => {
            devices.sort_by_key(is_software);
            (devices, None)
        }
        Err(panic) => (Vec::new(), Some(panic_text(&*panic))),
    }
}

/// Why a device enumeration of a compiled kind found nothing, for `doctor`.
pub fn absence(kind: Kind) -> Option<String> {
    if let (false, Some(feature)) = (kind.is_compiled(), kind.feature()) {
        return Some(format!("not compiled in (cargo feature `{feature}`)"));
    }
    let (devices, fault) = enumerate(kind);
    match (devices.is_empty(), fault) {
        (false, _) => None,
        (true, Some(fault)) => Some(fault),
        (true, None) => Some(nothing_found(kind).into()),
    }
}

fn nothing_found(kind: Kind) -> &'static str {
    match kind {
        Kind::Cuda => "no CUDA driver (libcuda.so) or no GPU was found",
        _ => "no Vulkan driver, or no adapter it offers, was found",
    }
}

/// Multiplies two small matrices; the fault text when that fails or is wrong.
fn trial(device: &Device) -> Option<String> {
    let device = device.clone();
    let product = catch_unwind(std::panic::AssertUnwindSafe(move || {
        let a = Tensor::<2>::full([4, 4], 0.5, (&device, DType::F32));
        a.clone().matmul(a).sum().try_into_scalar::<f32>()
    }));
    match product {
        Ok(Ok(16.0)) => None,
        Ok(Ok(other)) => Some(format!("a trial multiplication gave {other}, expected 16")),
        Ok(Err(error)) => Some(error.to_string()),
        Err(panic) => Some(panic_text(&*panic)),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the driver failed");
    text.lines().next().unwrap_or_default().to_string()
}

fn is_software(device: &Device) -> bool {
    let text = format!("{device:?}").to_lowercase();
    cfg!(feature = "gpu") && text.contains("wgpu") && text.contains("cpu")
}

/// What the driver calls the device of that name.
#[cfg(feature = "cube")]
pub fn describe(name: DeviceName, device: &Device) -> String {
    if matches!(name, DeviceName::Named(Kind::Cpu, _)) {
        return processor();
    }
    let identity = catch_unwind(std::panic::AssertUnwindSafe(|| device.identity()));
    identity.ok().flatten().map_or_else(|| format!("{device:?}"), |identity| identity.name)
}

/// What the driver calls the device of that name.
#[cfg(not(feature = "cube"))]
pub fn describe(_: DeviceName, _: &Device) -> String {
    processor()
}

fn processor() -> String {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let plural = if threads == 1 { "" } else { "s" };
    format!("{} processor, {threads} thread{plural}", std::env::consts::ARCH)
}

#[cfg(feature = "cuda")]
fn memory(kind: Kind, index: usize) -> Option<u64> {
    if kind == Kind::Cuda {
        let nvml = nvml_wrapper::Nvml::init().ok()?;
        return nvml.device_by_index(index as u32).ok()?.memory_info().ok().map(|m| m.total);
    }
    host_memory(kind)
}

#[cfg(not(feature = "cuda"))]
fn memory(kind: Kind, _: usize) -> Option<u64> {
    host_memory(kind)
}

/// Bytes of a device's memory that nobody uses, its own processes included; `None` where the drivers do not tell.
pub fn free_memory(name: DeviceName) -> Option<u64> {
    match name {
        DeviceName::Named(Kind::Cpu, _) => available_memory(),
        DeviceName::Named(Kind::Cuda, index) => cuda_free_memory(index),
        DeviceName::Named(Kind::Wgpu | Kind::Vulkan, _) | DeviceName::Auto => None,
    }
}

#[cfg(feature = "cuda")]
fn cuda_free_memory(index: usize) -> Option<u64> {
    let nvml = nvml_wrapper::Nvml::init().ok()?;
    nvml.device_by_index(index as u32).ok()?.memory_info().ok().map(|m| m.free)
}

#[cfg(not(feature = "cuda"))]
fn cuda_free_memory(_: usize) -> Option<u64> {
    None
}

/// What Linux would give to programs without swapping: free memory, and the caches that it can drop. Elsewhere, what
/// is free.
fn available_memory() -> Option<u64> {
    let free = || {
        let info = rustix::system::sysinfo();
        info.freeram as u64 * u64::from(info.mem_unit)
    };
    let line = |text: String| text.lines().find_map(|line| line.strip_prefix("MemAvailable:").map(str::to_owned));
    let line = std::fs::read_to_string("/proc/meminfo").ok().and_then(line);
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    Some(kibibytes.map_or_else(free, |kibibytes| kibibytes << 10))
}

fn host_memory(kind: Kind) -> Option<u64> {
    let info = rustix::system::sysinfo();
    (kind == Kind::Cpu).then_some(info.totalram as u64 * info.mem_unit as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3", "wgpu:1", "vulkan:0"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse::<DeviceName>().unwrap().to_string(), "cuda:0");
        for name in ["", "gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "CUDA"] {
            let error = name.parse::<DeviceName>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("cuda[:N]"), "{error}");
        }
    }

    #[test]
    fn the_processor_is_always_there_and_works() {
        let found = inventory();
        let cpu = found.iter().find(|f| f.name == DeviceName::Named(Kind::Cpu, 0)).unwrap();
        assert_eq!(cpu.fault, None);
        assert!(cpu.dtypes.contains(&DType::F32) && cpu.memory > Some(1 << 28), "{cpu:?}");
        let free = free_memory(cpu.name);
        assert!(free > Some(1 << 24) && free < cpu.memory, "{free:?}");
        assert!(open(DeviceName::Named(Kind::Cpu, 0)).is_ok());
    }

    #[test]
    fn a_kind_that_is_not_compiled_in_names_its_feature() {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_compiled()) {
            let error = open(DeviceName::Named(kind, 0)).unwrap_err().to_string();
            assert!(error.contains(kind.feature().unwrap()), "{error}");
            assert!(absence(kind).unwrap().contains("not compiled in"));
        }
    }
}
