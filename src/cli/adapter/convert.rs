//! `fornax adapter convert`: between PEFT's and mlx-lm's files.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fornax_base::exit::Exit;
use fornax_base::files::RealFs;
use fornax_model::weights::peft::AdapterFolder;
use fornax_model::weights::{mlx, peft};
use serde::Serialize;

use super::{adapter_failure, refuse_used};
use crate::cli::data::print_json;
use crate::cli::report::{Failure, say};

/// Write an adapter of PEFT for mlx-lm, or one of mlx-lm for PEFT
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// Adapter folder; which program it belongs to is seen by its files
    #[arg(value_name = "ADAPTER")]
    adapter: PathBuf,
    /// Folder to write the other form to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Form to write; without it, the one that the adapter does not have
    #[arg(long, value_enum, value_name = "FORM")]
    to: Option<Form>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Peft,
    Mlx,
}

#[derive(Serialize)]
struct Report<'a> {
    from: Form,
    to: Form,
    out: &'a PathBuf,
}

impl Convert {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        refuse_used(&self.out)?;
        let has = |file: &str| self.adapter.join(file).exists();
        let from = match (has(peft::WEIGHTS_FILE), has(mlx::WEIGHTS_FILE)) {
            (true, false) => Form::Peft,
            (false, true) => Form::Mlx,
            (both, _) => {
                let how = if both { "both" } else { "neither" };
                return Err(Failure::input(format_args!(
                    "`{}` holds {how} of {} and {}",
                    self.adapter.display(),
                    peft::WEIGHTS_FILE,
                    mlx::WEIGHTS_FILE
                ))
                .hint("name a folder of PEFT or of mlx-lm"));
            }
        };
        let to = match from {
            Form::Peft => Form::Mlx,
            Form::Mlx => Form::Peft,
        };
        if self.to.is_some_and(|asked| asked != to) {
            return Err(Failure::input(format_args!("`{}` has that form already", self.adapter.display()))
                .hint("leave --to out"));
        }
        match from {
            Form::Peft => {
                let adapter = AdapterFolder::open(&self.adapter).map_err(adapter_failure)?;
                mlx::from_peft(&RealFs, &adapter, &self.out).map_err(adapter_failure)?;
            }
            Form::Mlx => {
                mlx::to_peft(&RealFs, &self.adapter, &self.out).map_err(adapter_failure)?;
            }
        }
        if self.json {
            print_json(&Report { from, to, out: &self.out })?;
        }
        let program = if to == Form::Peft { "PEFT" } else { "mlx-lm" };
        say(&format!("written: {} for {program}\n", self.out.display()));
        Ok(Exit::Done)
    }
}
