//! One file for each subcommand: its arguments and its `run`.

mod adapter;
mod bench;
mod cache;
mod chat;
mod check;
mod data;
mod doctor;
mod draft;
mod explain;
mod finetune;
mod generate;
mod grammar;
mod learn;
mod model_folder;
mod monitor;
mod overfit;
mod place;
mod pretrain_check;
mod progress;
mod quickstart;
pub(crate) mod report;
mod sampling;
mod screen;
mod signals;
mod train;
mod watch;

use clap::{Parser, Subcommand};
use fornax_base::exit::Exit;
use fornax_model::device::{self, DeviceName};

use report::Failure;

/// Train small language models and run them: one model definition for both.
#[derive(Debug, Parser)]
#[command(name = "fornax", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a small model from nothing and talk to it: the whole way in about ten minutes
    Quickstart(quickstart::Quickstart),
    /// Train a model as a recipe says, or resume a run
    #[command(alias = "pretrain")]
    Train(train::Train),
    /// Check a recipe without running it: show rows as they will be trained on, and what it will cost
    Check(check::Check),
    /// Tune a model with examples, preferences or rewards, as a recipe says
    Finetune(finetune::Finetune),
    /// Watch and steer runs: loss curves, samples and more on the terminal, as PNG or for TensorBoard
    Monitor(monitor::Monitor),
    /// Continue a text
    Generate(generate::Generate),
    /// Talk with a model
    Chat(chat::Chat),
    /// Look at adapters, merge them into their model, convert them
    Adapter(adapter::Adapter),
    /// Show the way of one token through a model: what each head reads, and what may come next
    Explain(explain::Explain),
    /// Write the parts of a language model yourself and compare them with Fornax's own
    Learn(learn::Learn),
    /// Measure speed, and a device against recorded numbers
    Bench(bench::Bench),
    /// Prepare, measure and clean training text
    Data(data::Data),
    /// Show what this build can use on this machine, and why something cannot be used
    Doctor(doctor::Doctor),
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::Quickstart(command) => command.run(),
        Command::Train(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Finetune(command) => command.run(),
        Command::Monitor(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Chat(command) => command.run(),
        Command::Adapter(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Learn(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Data(command) => command.run(),
        Command::Doctor(command) => command.run(),
    }
}

/// `--device`, the same for every command that computes.
#[derive(Debug, clap::Args)]
pub(crate) struct DeviceArgument {
    /// Where to compute: auto, cpu, cuda[:N], wgpu[:N] or vulkan[:N]
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceName,
}

impl DeviceArgument {
    /// The name as it was given.
    pub(crate) fn name(&self) -> DeviceName {
        self.device
    }

    /// Opens the device.
    pub(crate) fn open(&self) -> Result<(burn::tensor::Device, DeviceName), Failure> {
        device::open(self.device).map_err(|error| {
            Failure::new(Exit::BadInput, error).hint("`fornax doctor` lists what can be used here")
        })
    }
}
