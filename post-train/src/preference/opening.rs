//! From a loss and its rows to an objective: which reference it gets, and from where.

use std::path::Path;

use fornax_base::files::FileSystem;
use fornax_data::examples::{Example, Pair};
use fornax_model::Decoder;
use fornax_train::TrainError;

use super::{PairLoss, PairObjective, PairReference, reference_logps};
use crate::order::Cut;
use crate::reference::{Reference, ReferenceLogps, Rows, key, open_or_compute};

/// What a reference is made of.
pub struct Start<'a> {
    /// The model as the run begins, with its adapter, off the autodiff device and before a checkpoint is taken up.
    pub decoder: &'a Decoder,
    /// Whether the adapter is new, without any effect yet.
    pub is_new_adapter: bool,
    /// What tells the base from others: checksums of its files, and how it is packed and computed.
    pub model: &'a str,
    /// Writes the cache.
    pub fs: &'a dyn FileSystem,
    /// The run folder.
    pub run: &'a Path,
}

impl Start<'_> {
    /// The model at the start as a reference: without the adapter where that is the same and takes no memory, else a
    /// copy, which shares with the policy what does not learn.
    pub fn reference(&self) -> Reference {
        match self.is_new_adapter {
            true => Reference::WithoutAdapters,
            false => Reference::Copy(Box::new(self.decoder.clone().trainable(false).for_one_pass())),
        }
    }
}

impl PairObjective {
    /// Learns from `train`, measures on `held_out`. Where the recipe wants the reference's log-probabilities computed
    /// once, they are taken from the run folder, or computed and kept there; a sentence tells of a damaged cache.
    ///
    /// # Errors
    /// [`crate::reference::ReferenceError`], or when the device fails.
    ///
    /// # Panics
    /// When there is no pair to train on.
    pub fn open(
        loss: PairLoss,
        (train, held_out): (Vec<Pair>, Vec<Pair>),
        start: &Start<'_>,
        cut: Cut,
    ) -> Result<(PairObjective, Option<String>), TrainError> {
        let precompute = matches!(&loss, PairLoss::Dpo(recipe) if recipe.precompute_ref_log_probs);
        let (reference, warning) = match (loss.wants_reference(), precompute) {
            (false, _) => (None, None),
            (true, false) => (Some(PairReference::Model(start.reference())), None),
            (true, true) => {
                let compute = || -> Result<ReferenceLogps, TrainError> {
                    let model = start.reference().model(start.decoder);
                    let of = |pairs: &[Pair]| reference_logps(&model, pairs, cut.rows);
                    Ok(ReferenceLogps { train: of(&train)?, held_out: of(&held_out)? })
                };
                let rows =
                    |pairs: &[Pair]| Rows { n: pairs.len(), key: key(start.model, pairs.iter().flat_map(both)) };
                let (train, held_out) = (rows(&train), rows(&held_out));
                let (logps, warning) = open_or_compute(start.fs, start.run, &train, &held_out, compute)?;
                (Some(PairReference::Computed(logps)), warning)
            }
        };
        Ok((PairObjective::new(loss, train, held_out, reference, cut), warning))
    }
}

fn both(pair: &Pair) -> [&Example; 2] {
    [&pair.chosen, &pair.rejected]
}
