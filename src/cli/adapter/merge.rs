//! `fornax adapter merge`: base and adapter as one model folder.

use std::path::PathBuf;

use burn::tensor::DType;
use clap::{Args, ValueEnum};
use fornax_base::exit::Exit;
use fornax_base::files::RealFs;
use fornax_base::rng::rng;
use fornax_model::adapter::largest_logit_difference;
use fornax_model::weights::save;
use serde::Serialize;

use super::{adapter_failure, attach, refuse_used};
use crate::cli::DeviceArgument;
use crate::cli::data::print_json;
use crate::cli::model_folder;
use crate::cli::report::{Failure, print, say};

/// Most bytes of one file of weights.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Write the model that an adapter and its base are together
///
/// Base and adapter are added in 32-bit numbers and rounded once. Then both ways of computing read the same tokens,
/// and the largest difference of two logits is printed.
#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// Adapter folder in PEFT layout
    #[arg(value_name = "ADAPTER")]
    adapter: PathBuf,
    /// Model folder or run folder that the adapter was trained on
    #[arg(long, value_name = "DIR|RUN")]
    model: PathBuf,
    /// Folder to write the model to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Dtype of the written weights; auto is that of the base
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    dtype: Dtype,
    /// Tokens on which the logits are compared
    #[arg(long, value_name = "N", default_value_t = 64)]
    tokens: usize,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    Auto,
    F32,
    Bf16,
    F16,
}

#[derive(Serialize)]
struct Report<'a> {
    out: &'a PathBuf,
    dtype: &'static str,
    tokens: usize,
    largest_logit_difference: f32,
}

impl Merge {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        refuse_used(&self.out)?;
        let (device, _) = self.device.open()?;
        let mut model = model_folder::open(&self.model, Some(DType::F32), &device)?;
        let dtype = match self.dtype {
            Dtype::Auto => model.decoder.config().dtype,
            Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::BF16,
            Dtype::F16 => DType::F16,
        };
        attach(&mut model.decoder, &self.adapter)?;
        let tokens = self.tokens.min(model.decoder.config().context);
        if tokens == 0 {
            return Err(Failure::input("--tokens 0 compares nothing").hint("give at least 1"));
        }
        let merged = model.decoder.merged(dtype).map_err(adapter_failure)?;
        let failed = |error: anyhow::Error| Failure::new(Exit::Failed, error);
        model.tokenizer.save(&RealFs, &self.out).map_err(|error| failed(error.into()))?;
        save(&RealFs, &merged, dtype, SHARD_BYTES, &self.out).map_err(|error| failed(error.into()))?;
        let difference = {
            let vocabulary = model.decoder.config().vocab_size as u64;
            let mut random = rng(0, 0, "adapter merge");
            let ids: Vec<u32> = (0..tokens).map(|_| random.below(vocabulary) as u32).collect();
            // What was written, rounding included, read back in f32.
            largest_logit_difference(&model.decoder, &merged.in_dtype(DType::F32), &ids)
        };
        let word = match dtype {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            _ => "f32",
        };
        let report = Report { out: &self.out, dtype: word, tokens, largest_logit_difference: difference };
        if self.json {
            print_json(&report)?;
        } else {
            print(&format!(
                "largest difference of two logits before and after, over {tokens} random tokens: {difference:.3e}\n"
            ))?;
        }
        say(&format!("written: {} in {word}\n", self.out.display()));
        Ok(Exit::Done)
    }
}
