//! `fornax adapter inspect`: what an adapter changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{DType, Device};
use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::numbers::grouped;
use fornax_model::adapter::{AdapterConfig, Targets};
use fornax_model::weights::peft::AdapterFolder;
use serde::Serialize;

use super::{adapter_failure, attach};
use crate::cli::data::print_json;
use crate::cli::model_folder;
use crate::cli::report::{Failure, print};

/// Show what an adapter changes, and how much
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Adapter folder in PEFT layout
    #[arg(value_name = "ADAPTER")]
    adapter: PathBuf,
    /// Model it was trained on: the adapter is tried on it, and its share of the parameters is shown
    #[arg(long, value_name = "DIR|RUN")]
    model: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    base_model: Option<String>,
    kind: String,
    rank: usize,
    alpha: f64,
    dropout: f64,
    targets: String,
    modules_to_save: Vec<String>,
    parameters: u64,
    tensors: usize,
    dtypes: Vec<String>,
    modules: BTreeMap<String, ModuleReport>,
    trainable_line: Option<String>,
}

/// One kind of module over all layers.
#[derive(Serialize, Default)]
struct ModuleReport {
    count: usize,
    parameters: u64,
    ranks: Vec<usize>,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let adapter = AdapterFolder::open(&self.adapter).map_err(adapter_failure)?;
        let mut report = report(&adapter);
        if let Some(model) = &self.model {
            let mut model = model_folder::open(model, Some(DType::F32), &Device::flex())?;
            attach(&mut model.decoder, &self.adapter)?;
            report.trainable_line = Some(model.decoder.trainable_line());
        }
        if self.json {
            print_json(&report)?;
        } else {
            print(&plain(&report))?;
        }
        Ok(Exit::Done)
    }
}

fn report(adapter: &AdapterFolder) -> Report {
    let (config, mut modules, mut dtypes) =
        (adapter.config(), BTreeMap::<String, ModuleReport>::new(), Vec::new());
    let (mut parameters, mut tensors) = (0, 0);
    for (name, stored) in adapter.tensors() {
        let n: u64 = stored.shape.iter().map(|&d| d as u64).product();
        let at = name.find(".lora_").or_else(|| name.rfind('.')).unwrap_or(name.len());
        let kind = name[..at].rsplit('.').next().unwrap_or(name).to_string();
        let module = modules.entry(kind).or_default();
        module.parameters += n;
        // Each module has one matrix A, or is stored whole.
        if !name.contains(".lora_") || name.contains("_A") {
            module.count += 1;
            let rank = stored.shape.first().copied().filter(|_| name.contains("_A"));
            module.ranks.extend(rank.filter(|rank| !module.ranks.contains(rank)));
        }
        let dtype = format!("{:?}", stored.dtype).to_lowercase();
        if !dtypes.contains(&dtype) {
            dtypes.push(dtype);
        }
        parameters += n;
        tensors += 1;
    }
    Report {
        base_model: config.base_model.clone(),
        kind: kind(config),
        rank: config.rank,
        alpha: config.alpha,
        dropout: config.dropout,
        targets: targets(&config.targets),
        modules_to_save: config.modules_to_save.clone(),
        parameters,
        tensors,
        dtypes,
        modules,
        trainable_line: None,
    }
}

fn kind(config: &AdapterConfig) -> String {
    match (config.dora, config.rslora) {
        (false, false) => "LoRA".into(),
        (false, true) => "rsLoRA".into(),
        (true, false) => "DoRA".into(),
        (true, true) => "DoRA with rsLoRA's factor".into(),
    }
}

fn targets(targets: &Targets) -> String {
    match targets {
        Targets::AllLinear => "all-linear".into(),
        Targets::Names(names) => names.join(", "),
        Targets::Regex(regex) => regex.clone(),
    }
}

fn plain(report: &Report) -> String {
    let mut text =
        format!("{}, rank {}, alpha {}, dropout {}\n", report.kind, report.rank, report.alpha, report.dropout);
    for (what, value) in [
        ("base model", report.base_model.clone().unwrap_or_else(|| "not said".into())),
        ("targets", report.targets.clone()),
        ("saved whole", report.modules_to_save.join(", ")),
        (
            "parameters",
            format!("{} in {} tensors, {}", grouped(report.parameters), report.tensors, report.dtypes.join(", ")),
        ),
    ] {
        if !value.is_empty() {
            text += &format!("{what:<12} {value}\n");
        }
    }
    text += &format!("\n{:<26} {:>7} {:>14}  ranks\n", "module", "count", "parameters");
    for (name, module) in &report.modules {
        let ranks: Vec<String> = module.ranks.iter().map(usize::to_string).collect();
        let ranks = if ranks.is_empty() { "whole".into() } else { ranks.join(", ") };
        text += &format!("{name:<26} {:>7} {:>14}  {ranks}\n", module.count, grouped(module.parameters));
    }
    if let Some(line) = &report.trainable_line {
        text += &format!("\n{line}\n");
    }
    text
}
