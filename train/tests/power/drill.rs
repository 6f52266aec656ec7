//! Saves, kills, power failures, prunings and resumes in any order, on a disk that forgets what was not synced. Used
//! by the proptest beside this file and by the fuzz target `resume_ops`.

use std::collections::BTreeMap;
use std::path::Path;

use fornax_base::testing::LossyFs;
use fornax_train::checkpoint::{self, Checkpoint, NamedTensor, State};
use serde_json::json;

/// One thing that happens to a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// So many steps are taken and the checkpoint there is saved.
    Save(u64),
    /// Old checkpoints go, this many stay.
    Prune(usize),
    /// The process is killed and the run resumed from its newest checkpoint.
    Kill,
    /// The power fails; then as after a kill.
    PowerFailure,
    /// The process, and the power with it, dies in the k-th operation from here, in the middle of what follows.
    DieAfter(u64),
    /// The run goes back to its oldest checkpoint, explicitly: newer ones are set aside.
    GoBack,
}

/// A run, what it has been promised, and what each step's checkpoint may hold.
struct Run<'a> {
    folder: &'a Path,
    disk: LossyFs,
    choose: &'a mut dyn FnMut(u64) -> u64,
    step: u64,
    /// The step of the newest save that was acknowledged: no later failure may lose it.
    promised: Option<u64>,
    /// Values each save was asked to write, also those that failed.
    written: BTreeMap<u64, Vec<f32>>,
    saves: f32,
}

/// Plays `acts` on `disk`, whose empty folder is `folder`. `choose(n)` (below n) decides what a power failure leaves.
///
/// # Errors
/// What was lost, or found and never written.
pub(crate) fn play(
    disk: LossyFs,
    folder: &Path,
    acts: &[Act],
    choose: &mut dyn FnMut(u64) -> u64,
) -> Result<(), String> {
    let mut run = Run { folder, disk, choose, step: 0, promised: None, written: BTreeMap::new(), saves: 0.0 };
    for (at, &act) in acts.iter().enumerate() {
        run.act(act).map_err(|what| format!("act {at} of {acts:?}: {what}"))?;
    }
    run.resume(true).map_err(|what| format!("after {acts:?}: {what}"))
}

impl Run<'_> {
    fn act(&mut self, act: Act) -> Result<(), String> {
        match act {
            Act::Save(steps) => self.save(steps),
            Act::Prune(keep) => match checkpoint::prune(&self.disk, self.folder, keep, None) {
                Ok(pruned) if pruned.damaged.is_empty() => Ok(()),
                Ok(pruned) => Err(format!("pruning met damage: {:?}", pruned.damaged)),
                Err(error) => Err(format!("pruning: {error}")),
            },
            Act::Kill => self.resume(false),
            Act::PowerFailure => self.resume(true),
            Act::DieAfter(operations) => {
                self.disk.die_after(operations);
                Ok(())
            }
            Act::GoBack => self.go_back(),
        }
    }

    fn save(&mut self, steps: u64) -> Result<(), String> {
        let step = self.step + steps;
        self.saves += 1.0;
        self.written.entry(step).or_default().push(self.saves);
        let bytes: Vec<u8> = [self.saves; 5].iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = |name: &str| NamedTensor::f32(name, vec![5], bytes.clone());
        match checkpoint::save(&self.disk, self.folder, step, &[tensor("w")], &[tensor("w.exp_avg")], &state(step))
        {
            Ok(_) => {
                (self.step, self.promised) = (step, Some(step));
                Ok(())
            }
            // A disk that does not fail refuses nothing: an error means that the process died.
            Err(_) => self.resume(true),
        }
    }

    /// A new process takes up the run: what was promised must be there, and whatever is there must be whole.
    fn resume(&mut self, power_failed: bool) -> Result<(), String> {
        if power_failed {
            self.disk.lose_power(self.choose).map_err(|error| error.to_string())?;
        } else {
            self.disk.die_after(u64::MAX);
        }
        checkpoint::tidy(&self.disk, self.folder).map_err(|error| format!("tidying: {error}"))?;
        let (found, skipped) = checkpoint::newest_valid(self.folder).map_err(|error| error.to_string())?;
        if !skipped.is_empty() {
            return Err(format!("a checkpoint with a final name is damaged: {skipped:?}"));
        }
        let step = found.as_ref().map(|found| found.state().step);
        if step < self.promised {
            return Err(format!(
                "the checkpoint of step {:?} was promised, {step:?} is the newest",
                self.promised
            ));
        }
        if let Some(found) = &found {
            self.check_value(found)?;
        }
        (self.step, self.promised) = (step.unwrap_or(0), step);
        Ok(())
    }

    fn go_back(&mut self) -> Result<(), String> {
        let folders = checkpoint::list(self.folder).map_err(|error| error.to_string())?;
        let Some(oldest) = folders.first() else { return Ok(()) };
        let step = oldest.step;
        self.check_value(&checkpoint::open_step(self.folder, step).map_err(|error| error.to_string())?)?;
        // From here on it is this step that must not be lost, whether or not the newer ones are set aside in time.
        self.promised = Some(step);
        match checkpoint::set_aside_after(&self.disk, self.folder, step) {
            Ok(_) => {
                self.step = step;
                Ok(())
            }
            Err(_) => self.resume(true),
        }
    }

    fn check_value(&self, found: &Checkpoint) -> Result<(), String> {
        let step = found.state().step;
        let tensors = [found.model_tensors(), found.optimizer_tensors()].concat();
        let values: Vec<f32> =
            tensors.iter().flat_map(|tensor| tensor.bytes.chunks_exact(4)).map(f32_of).collect();
        let (first, known) = (values[0], &self.written[&step]);
        let whole = values.len() == 10 && values.iter().all(|value| value.to_bits() == first.to_bits());
        match whole && known.contains(&first) {
            true => Ok(()),
            false => Err(format!("step {step} holds {values:?}, but one of {known:?} was written")),
        }
    }
}

fn f32_of(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Through JSON, so that the fields a state may lack need not be named here.
fn state(step: u64) -> State {
    let state = json!({
        "step": step, "total_steps": 1000, "tokens_seen": step * 64, "optimizer_updates": step, "cursor": null,
        "rng": {"seed": 7, "step": step}, "schedule": "cosine", "recipe_hash": "ab", "tool_version": "0.1.0",
    });
    serde_json::from_value(state).expect("a state of this version")
}
