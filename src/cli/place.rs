//! `--precision` and `--device`: where a model computes, and in which dtype.

use burn::tensor::{DType, Device};
use clap::{Args, ValueEnum};

use super::DeviceArgument;
use super::report::Failure;

/// Where and how a loaded model computes.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Dtype to compute in; auto is f32 on the processor and the stored dtype elsewhere
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgument,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    Auto,
    F32,
    Bf16,
    F16,
}

impl Place {
    /// The device, and the dtype to load in; `None` keeps the stored one.
    pub(crate) fn open(&self) -> Result<(Device, Option<DType>), Failure> {
        let (device, name) = self.device.open()?;
        let dtype = match self.precision {
            Precision::Auto if name.to_string() == "cpu" => Some(DType::F32),
            Precision::Auto => None,
            Precision::F32 => Some(DType::F32),
            Precision::Bf16 => Some(DType::BF16),
            Precision::F16 => Some(DType::F16),
        };
        match dtype.filter(|dtype| !device.supports_dtype(*dtype)) {
            Some(dtype) => Err(Failure::input(format_args!("`{name}` does not compute in {dtype:?}"))
                .hint("`fornax doctor` lists the dtypes of each device")),
            None => Ok((device, dtype)),
        }
    }
}
