//! `fornax doctor`: what is compiled in, what is found, and why a device is unusable.

use burn::tensor::DType;
use clap::Args;
use fornax_base::exit::Exit;
use fornax_model::device::{Found, Kind, absence, inventory};
use serde::Serialize;

use super::report::{Failure, print};

/// Show what this build can use on this machine
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    compiled: Vec<&'static str>,
    devices: Vec<DeviceLine>,
    absent: Vec<Absent>,
}

#[derive(Serialize)]
struct DeviceLine {
    name: String,
    description: String,
    dtypes: Vec<&'static str>,
    memory_bytes: Option<u64>,
    usable: bool,
    fault: Option<String>,
}

#[derive(Serialize)]
struct Absent {
    kind: &'static str,
    why: String,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            compiled: Kind::ALL.into_iter().filter(|k| k.is_compiled()).map(Kind::word).collect(),
            devices: inventory().into_iter().map(line).collect(),
            absent: Kind::ALL
                .into_iter()
                .filter_map(|kind| Some(Absent { kind: kind.word(), why: absence(kind)? }))
                .collect(),
        };
        let text = match self.json {
            true => serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Failed, e))? + "\n",
            false => plain(&report),
        };
        print(&text)?;
        Ok(Exit::Done)
    }
}

fn line(found: Found) -> DeviceLine {
    DeviceLine {
        name: found.name.to_string(),
        description: found.description,
        dtypes: found.dtypes.into_iter().map(dtype).collect(),
        memory_bytes: found.memory,
        usable: found.fault.is_none(),
        fault: found.fault,
    }
}

fn dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bf16",
        DType::F16 => "f16",
        _ => "f32",
    }
}

fn plain(report: &Report) -> String {
    let mut text = format!("fornax {}\ncompiled in: {}\n\n", report.version, report.compiled.join(", "));
    for device in &report.devices {
        let memory = match device.memory_bytes {
            Some(bytes) => format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64),
            None => "memory not reported".into(),
        };
        let state = match &device.fault {
            None => format!("ready; {}; {memory}", device.dtypes.join(", ")),
            Some(fault) => format!("unusable: {fault}"),
        };
        text += &format!("{:<10} {}\n{:<10} {state}\n", device.name, device.description, "");
    }
    for absent in &report.absent {
        text += &format!("{:<10} not available: {}\n", absent.kind, absent.why);
    }
    text
}
