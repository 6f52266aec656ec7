//! `fornax train RECIPE --overfit-one-batch`: can this recipe learn one batch by heart?

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fornax_base::exit::Exit;
use fornax_base::files::{FileSystem, RealFs, create_folder};
use fornax_train::TrainError;
use fornax_train::control::Signal;
use fornax_train::overfit::{Limits, Overfit, OverfitStep, overfit};
use fornax_train::recipe::TrainRecipe;
use fornax_train::run::Surroundings;
use fornax_train::step::BatchLoss;
use serde::Serialize;

use super::progress;
use super::report::{Failure, print, say};
use super::signals;

/// Runs the check and says what came of it.
pub(crate) fn run(
    around: &Surroundings,
    recipe: &TrainRecipe,
    objective: BatchLoss<'_>,
    limits: Limits,
    json: bool,
) -> Result<Exit, Failure> {
    let scratch = Scratch::new()?;
    let signal = around.signal.clone();
    signals::ask_through(signal.flag())?;
    let mut printed = Ok(());
    let mut on_step = |step: &OverfitStep| {
        let last = step.step == limits.steps || step.loss < limits.target_loss;
        if json {
            printed = line(step);
        } else if step.step.is_power_of_two() || step.step.is_multiple_of(20) || last {
            let OverfitStep { step, loss, lr, grad_norm } = step;
            say(&format!("step {step:05} | loss {loss:.4} | lr {lr:.2e} | norm {grad_norm:.2}\n"));
        }
        match printed.is_err() || asked(&signal).is_some() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let preparing = &mut progress::preparing();
    let found = overfit(around, &scratch.folder, recipe, objective, limits, preparing, &mut on_step);
    let found = found.map_err(Failure::from)?;
    printed?;
    if let Some(exit) = asked(&signal) {
        return Ok(exit);
    }
    conclude(&found, json)
}

fn conclude(found: &Overfit, json: bool) -> Result<Exit, Failure> {
    if json {
        line(found)?;
    }
    let Overfit { steps, rows, targets, loss, target_loss, .. } = found;
    if found.reached {
        say(&format!(
            "learned: a batch of {rows} rows and {targets} targets has loss {loss:.4} after {steps} steps, below \
             {target_loss}\n"
        ));
        return Ok(Exit::Done);
    }
    let sentence = format!(
        "one batch of {rows} rows and {targets} targets has loss {loss:.4} after {steps} steps, expected below \
         {target_loss}"
    );
    Err(Failure::new(Exit::GateNotMet, anyhow::anyhow!(sentence)).hint(found.advice()))
}

fn line(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::new(Exit::Failed, e))?;
    print(&(text + "\n"))
}

fn asked(signal: &Signal) -> Option<Exit> {
    match signal.flag().load(std::sync::atomic::Ordering::SeqCst) {
        0 => None,
        130 => Some(Exit::Interrupted),
        _ => Some(Exit::Terminated),
    }
}

/// A folder for tokenizer and shards, removed at the end whatever it is.
struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("fornax-overfit-{}", std::process::id()));
        remove(&folder);
        create_folder(&RealFs, &folder).map_err(|e| Failure::from(TrainError::from(e)))?;
        Ok(Self { folder })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    // What cannot be removed lies in the system's folder for such things.
    let _ = RealFs.remove_folder(folder);
}
