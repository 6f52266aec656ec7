//! An adapter folded into the weights it was trained on.
//!
//! Shapes: v vocabulary, c channels, o output channels, i input channels.

use burn::tensor::{DType, Tensor};

use super::{AdapterError, AdapterId, Branch};
use crate::decoder::Decoder;
use crate::embedding::{Embedding, EmbeddingBranch};
use crate::layout::{Layout, token_tensor};
use crate::parameters::ModuleMut;
use crate::projection::Projection;

impl Decoder {
    /// A model of plain weights in `dtype` that computes what this one does with its active adapter: the base's
    /// weights (dequantized where they are packed) and the adapter's products are added in f32 and rounded once. A
    /// table that was head and embedding at once becomes two where the adapter changed one of them.
    ///
    /// # Errors
    /// [`AdapterError::NoneActive`].
    pub fn merged(&self, dtype: DType) -> Result<Decoder, AdapterError> {
        let active = self.active_adapter().ok_or(AdapterError::NoneActive)?;
        let mut merged = self.clone().trainable(false);
        let table_vc = merged.embedding.table_vc.clone().cast(DType::F32);
        let (mut tied_head, mut other_table) = (None, false);
        merged.modules_mut(&mut |_, module| match module {
            ModuleMut::Projection(projection) => *projection = merged_projection(projection, active, dtype),
            ModuleMut::Norm(norm) => {
                norm.gain = norm.saved.get(active).unwrap_or(&norm.gain).clone().cast(dtype);
            }
            ModuleMut::Embedding(embedding) => {
                other_table = embedding.branches.get(active).is_some();
                embedding.table_vc = merged_table(embedding, active).cast(dtype);
            }
            ModuleMut::TiedHead(branches) => {
                let base = Projection::Dense { weight: table_vc.clone(), bias: None };
                tied_head = branches.get(active).map(|branch| merged_weight(&base, branch));
            }
        });
        if merged.config.tied && (other_table || tied_head.is_some()) {
            let weight = tied_head.unwrap_or(table_vc).cast(dtype);
            merged.head = Some(Projection::Dense { weight, bias: None });
            merged.config.tied = false;
        }
        let mut merged = merged.without_adapters();
        merged.config.dtype = dtype;
        merged.set_compute(dtype);
        Ok(merged)
    }

    /// The same dense model with parameters and computation in `dtype`.
    #[must_use]
    pub fn in_dtype(&self, dtype: DType) -> Self {
        let mut other = self.clone().trainable(false);
        other.modules_mut(&mut |_, module| match module {
            ModuleMut::Projection(projection) => *projection = plain(projection, dtype),
            ModuleMut::Norm(norm) => norm.gain = norm.gain.clone().cast(dtype),
            ModuleMut::Embedding(embedding) => embedding.table_vc = embedding.table_vc.clone().cast(dtype),
            ModuleMut::TiedHead(_) => {}
        });
        other.set_compute(dtype);
        other
    }
}

fn plain(projection: &Projection, dtype: DType) -> Projection {
    let bias = projection.bias().map(|bias| bias.without_autodiff().cast(dtype));
    Projection::Dense { weight: projection.weight().without_autodiff().cast(dtype), bias }
}

fn merged_projection(projection: &Projection, active: AdapterId, dtype: DType) -> Projection {
    match projection.branches().and_then(|branches| branches.get(active)) {
        None => plain(projection, dtype),
        Some(branch) => {
            let bias = match branch {
                Branch::Whole { bias_o, .. } => bias_o.clone(),
                Branch::LowRank(_) => projection.bias(),
            };
            let weight = merged_weight(&projection.base(), branch).cast(dtype);
            Projection::Dense { weight, bias: bias.map(|bias| bias.without_autodiff().cast(dtype)) }
        }
    }
}

/// weight_oi in f32.
fn merged_weight(base: &Projection, branch: &Branch) -> Tensor<2> {
    match branch {
        Branch::Whole { weight_oi, .. } => weight_oi.clone().without_autodiff(),
        Branch::LowRank(low) => low.merged(base.dense_f32(), base),
    }
}

fn merged_table(embedding: &Embedding, active: AdapterId) -> Tensor<2> {
    let table_vc = embedding.table_vc.clone().cast(DType::F32);
    match embedding.branches.get(active) {
        None => table_vc,
        Some(EmbeddingBranch::Whole { table_vc }) => table_vc.clone(),
        Some(EmbeddingBranch::LowRank { a_rv, b_cr, scale }) => {
            table_vc + b_cr.clone().matmul(a_rv.clone()).transpose() * *scale
        }
    }
}

/// The largest difference of two logits of `one` and `other` over the tokens of one sequence.
pub fn largest_logit_difference(one: &Decoder, other: &Decoder, ids: &[u32]) -> f32 {
    let logits = |decoder: &Decoder| {
        let device = decoder.device().without_autodiff();
        let hidden =
            decoder.forward(token_tensor(ids, 1, &device), &Layout::contiguous(0, ids.len(), &device), None);
        decoder.logits(hidden).without_autodiff()
    };
    (logits(one) - logits(other)).abs().max().into_scalar::<f32>()
}
