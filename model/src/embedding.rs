//! The embedding table, and what adapters make of it.
//!
//! Shapes: n tokens, v vocabulary, c channels, r rank.

use burn::tensor::{Int, Tensor};

use crate::adapter::{AdapterId, Choice, Pass, PerAdapter};
use crate::ops;
use crate::parameters::{ParameterMut, VisitOwned};

/// A row for each token.
#[derive(Debug, Clone)]
pub(crate) struct Embedding {
    pub(crate) table_vc: Tensor<2>,
    pub(crate) branches: PerAdapter<EmbeddingBranch>,
}

/// What one adapter makes of the table.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "handles: one for each adapter")]
pub(crate) enum EmbeddingBranch {
    /// `s * (B A)ᵀ` is added to the table; no dropout (PEFT has none here).
    LowRank { a_rv: Tensor<2>, b_cr: Tensor<2>, scale: f32 },
    /// A table of its own (`modules_to_save`).
    Whole { table_vc: Tensor<2> },
}

impl Embedding {
    /// ids_n -> rows_nc, in the dtype of the table.
    pub(crate) fn forward(&self, ids_n: Tensor<1, Int>, pass: &Pass) -> Tensor<2> {
        match &pass.choice {
            Choice::PerRow(groups) if self.branches.touches(&pass.choice) => {
                groups.by_group_of_ids(ids_n, |adapter, ids_n| self.with(adapter, ids_n))
            }
            Choice::All(adapter) => self.with(*adapter, ids_n),
            Choice::PerRow(_) => self.with(None, ids_n),
        }
    }

    fn with(&self, adapter: Option<AdapterId>, ids_n: Tensor<1, Int>) -> Tensor<2> {
        let dtype = self.table_vc.dtype();
        match adapter.and_then(|adapter| self.branches.get(adapter)) {
            None => ops::embedding(self.table_vc.clone(), ids_n),
            Some(EmbeddingBranch::Whole { table_vc }) => ops::embedding(table_vc.clone(), ids_n).cast(dtype),
            Some(EmbeddingBranch::LowRank { a_rv, b_cr, scale }) => {
                let low_nr = ops::embedding(a_rv.clone().transpose(), ids_n.clone()) * *scale;
                let delta_nc = ops::linear(low_nr, b_cr.clone(), None);
                ops::embedding(self.table_vc.clone(), ids_n) + delta_nc.cast(dtype)
            }
        }
    }

    pub(crate) fn visit_owned(&mut self, name: &str, visit: VisitOwned<'_>) {
        visit(&format!("{name}.weight"), None, ParameterMut::Matrix(&mut self.table_vc));
        for (adapter, suffix, branch) in self.branches.iter_mut() {
            match branch {
                EmbeddingBranch::LowRank { a_rv, b_cr, .. } => {
                    let (a, b) =
                        (format!("{name}.lora_embedding_A{suffix}"), format!("{name}.lora_embedding_B{suffix}"));
                    visit(&a, Some(adapter), ParameterMut::Matrix(a_rv));
                    visit(&b, Some(adapter), ParameterMut::Matrix(b_cr));
                }
                EmbeddingBranch::Whole { table_vc } => {
                    let name = format!("{name}.modules_to_save{suffix}.weight");
                    visit(&name, Some(adapter), ParameterMut::Matrix(table_vc));
                }
            }
        }
    }
}
