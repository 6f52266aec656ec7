//! What an adapter adds to one module, and the projection that carries it.
//!
//! Shapes: n rows (batch and time folded), i input channels, o output channels, r rank.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};

use super::AdapterId;
use super::choice::{Choice, Pass};
use super::targets::Change;
use crate::ops;
use crate::packed::Packing;
use crate::parameters::{ParameterMut, VisitOwned};
use crate::projection::Projection;

/// Things by adapter: one entry for each adapter that touches a module.
#[derive(Debug, Clone)]
pub(crate) struct PerAdapter<T>(Vec<Entry<T>>);

#[derive(Debug, Clone)]
struct Entry<T> {
    adapter: AdapterId,
    /// What follows the name of a parameter's kind: nothing for the adapter `default`, else `.name`.
    suffix: Arc<str>,
    value: T,
}

impl<T> Default for PerAdapter<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> PerAdapter<T> {
    pub(crate) fn get(&self, adapter: AdapterId) -> Option<&T> {
        self.0.iter().find(|entry| entry.adapter == adapter).map(|entry| &entry.value)
    }

    pub(crate) fn push(&mut self, adapter: AdapterId, suffix: Arc<str>, value: T) {
        self.0.push(Entry { adapter, suffix, value });
    }

    pub(crate) fn remove(&mut self, adapter: AdapterId) {
        self.0.retain(|entry| entry.adapter != adapter);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any of the adapters that `choice` may use is here.
    pub(crate) fn touches(&self, choice: &Choice) -> bool {
        self.0.iter().any(|entry| choice.uses(entry.adapter))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (AdapterId, &str, &mut T)> {
        self.0.iter_mut().map(|entry| (entry.adapter, &*entry.suffix, &mut entry.value))
    }
}

/// A projection with adapters on it.
#[derive(Debug, Clone)]
pub struct Adapted {
    pub(crate) base: Projection,
    pub(crate) branches: PerAdapter<Branch>,
    pub(crate) module: Arc<str>,
}

/// What one adapter makes of a linear layer.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "handles: one for each adapted layer")]
pub(crate) enum Branch {
    LowRank(LowRank),
    /// A layer of its own in place of the base (`modules_to_save`).
    Whole {
        weight_oi: Tensor<2>,
        bias_o: Option<Tensor<1>>,
    },
}

/// `s * (drop(x) A^T) B^T`, in f32 like its file; the dtype of x decides what is computed in.
#[derive(Debug, Clone)]
pub(crate) struct LowRank {
    pub(crate) a_ri: Tensor<2>,
    pub(crate) b_or: Tensor<2>,
    pub(crate) scale: f32,
    pub(crate) dropout: f64,
    pub(crate) dora: Option<Dora>,
}

/// DoRA (Liu et al. 2024, arXiv:2402.09353): row o of the weight is `m_o * (W + s B A)_o / ‖(W + s B A)_o‖`, and the
/// norm counts as a constant in backward (section 4.3 there).
#[derive(Debug, Clone)]
pub(crate) struct Dora {
    pub(crate) magnitude_o: Tensor<1>,
    /// `‖W_o‖²`, constant because the base is frozen.
    pub(crate) square_o: Tensor<1>,
    /// `m_o / ‖...‖` where no parameter can change any more; else it is computed at each use.
    pub(crate) gain_o: Option<Tensor<1>>,
}

impl Adapted {
    /// Packs the base; the norms of its rows are those of the packed weight then.
    pub(crate) fn pack(&mut self, packing: Packing) {
        self.base.pack(packing);
        for (_, _, branch) in self.branches.iter_mut() {
            if let Branch::LowRank(LowRank { dora: Some(dora), .. }) = branch {
                (dora.square_o, dora.gain_o) = (self.base.row_squares(), None);
            }
        }
    }

    /// x_ni -> y_no, in the dtype of x.
    pub(crate) fn forward(&self, x_ni: Tensor<2>, pass: &Pass) -> Tensor<2> {
        if !self.branches.touches(&pass.choice) {
            return self.base.forward(x_ni);
        }
        match &pass.choice {
            Choice::All(adapter) => self.with(*adapter, x_ni, None, pass),
            Choice::PerRow(groups) => {
                // One product with the base for all rows: in decoding, its weight is what takes the time.
                let base_no = self.base.forward(x_ni.clone());
                groups.by_group([x_ni, base_no], |adapter, [x_ni, base_no]| {
                    self.with(adapter, x_ni, Some(base_no), pass)
                })
            }
        }
    }

    fn with(
        &self,
        adapter: Option<AdapterId>,
        x_ni: Tensor<2>,
        base_no: Option<Tensor<2>>,
        pass: &Pass,
    ) -> Tensor<2> {
        let branch = adapter.and_then(|adapter| self.branches.get(adapter));
        if let Some(Branch::Whole { weight_oi, bias_o }) = branch {
            let dtype = x_ni.dtype();
            return ops::linear(x_ni, weight_oi.clone().cast(dtype), bias_o.clone().map(|b| b.cast(dtype)));
        }
        if let (Some(Branch::LowRank(low)), None, Projection::Dense { weight, bias }) =
            (branch, &base_no, &self.base)
            && low.is_plain(pass)
        {
            return low.with_dense(weight, bias, x_ni);
        }
        let base_no = base_no.unwrap_or_else(|| self.base.forward(x_ni.clone()));
        match branch {
            Some(Branch::LowRank(low)) => low.add(&self.base, base_no, x_ni, &self.module, pass),
            _ => base_no,
        }
    }
}

impl LowRank {
    /// Whether this pass computes base and adapter from the same input and adds them.
    fn is_plain(&self, pass: &Pass) -> bool {
        self.dora.is_none() && (self.dropout == 0.0 || pass.dropout.is_none())
    }

    /// x_ni -> y_no over a dense base, in one operation.
    fn with_dense(&self, weight_oi: &Tensor<2>, bias_o: &Option<Tensor<1>>, x_ni: Tensor<2>) -> Tensor<2> {
        let dtype = x_ni.dtype();
        let [w_oi, a_ri, b_or] = [weight_oi, &self.a_ri, &self.b_or].map(|x| x.clone().cast(dtype));
        ops::linear_low_rank(x_ni, w_oi, [a_ri, b_or], self.scale, bias_o.clone().map(|b| b.cast(dtype)))
    }

    /// base_no, x_ni -> y_no.
    fn add(&self, base: &Projection, base_no: Tensor<2>, x_ni: Tensor<2>, module: &str, pass: &Pass) -> Tensor<2> {
        let dtype = x_ni.dtype();
        let dropped_ni = pass.drop(&x_ni, self.dropout, module);
        let low_nr = self.low(dropped_ni.clone().unwrap_or(x_ni));
        let delta_no = ops::linear(low_nr, self.b_or.clone().cast(dtype), None);
        let Some(dora) = &self.dora else { return base_no + delta_no };
        // PEFT lets dropout act on the base's part of the correction too.
        let plain_no = match dropped_ni {
            Some(dropped_ni) => base.product(dropped_ni),
            None => match base.bias() {
                Some(bias_o) => base_no.clone() - bias_o.cast(dtype).unsqueeze::<2>(),
                None => base_no.clone(),
            },
        };
        let gain_1o = self.gain(dora, base).cast(dtype).unsqueeze::<2>();
        base_no + plain_no * (gain_1o.clone() - 1.0) + delta_no * gain_1o
    }

    /// `s * x A^T`, (n, r).
    pub(crate) fn low(&self, x_ni: Tensor<2>) -> Tensor<2> {
        let a_ri = self.a_ri.clone().cast(x_ni.dtype());
        // Scaled where it is smallest.
        ops::linear(x_ni, a_ri, None) * self.scale
    }

    /// `s * B A`, (o, i) in f32.
    pub(crate) fn product(&self) -> Tensor<2> {
        let [a_ri, b_or] = [&self.a_ri, &self.b_or].map(|part| part.clone().without_autodiff());
        b_or.matmul(a_ri) * self.scale
    }

    /// `m / ‖W + s B A‖` by rows of W, the norm off the tape.
    pub(crate) fn gain(&self, dora: &Dora, base: &Projection) -> Tensor<1> {
        match &dora.gain_o {
            Some(gain_o) => gain_o.clone(),
            None => dora.magnitude_o.clone() / self.row_norms(&dora.square_o, base),
        }
    }

    /// `‖(W + s B A)_o‖` without W + s B A: `‖W_o‖² + 2 s B_o·(A W_oᵀ) + s² B_o (A Aᵀ) B_oᵀ`, so that the greatest
    /// thing made is (o, r).
    pub(crate) fn row_norms(&self, square_o: &Tensor<1>, base: &Projection) -> Tensor<1> {
        let [a_ri, b_or] = [&self.a_ri, &self.b_or].map(|part| part.clone().without_autodiff());
        let [o, _] = b_or.dims();
        let base_or = base.product(a_ri.clone()).without_autodiff().transpose();
        let own_or = b_or.clone().matmul(a_ri.clone().matmul(a_ri.transpose())) * self.scale;
        let added_o = (b_or * (base_or * 2.0 + own_or) * self.scale).sum_dim(1).reshape([o]);
        // Rounding may take the norm of a row that the adapter cancels below zero.
        (square_o.clone() + added_o).clamp_min(f32::MIN_POSITIVE).sqrt()
    }

    /// Keeps DoRA's factors, for as long as nobody opens the parameters for change.
    pub(crate) fn settle(&mut self, base: &Projection) {
        let Some(dora) = &self.dora else { return };
        let gain_o = self.gain(dora, base).without_autodiff();
        if let Some(dora) = &mut self.dora {
            dora.gain_o = Some(gain_o);
        }
    }

    /// weight_oi of the base in f32 -> the weight that base and adapter together are.
    pub(crate) fn merged(&self, weight_oi: Tensor<2>, base: &Projection) -> Tensor<2> {
        let sum_oi = weight_oi + self.product();
        match &self.dora {
            None => sum_oi,
            Some(dora) => {
                let o = sum_oi.dims()[0];
                sum_oi * self.gain(dora, base).without_autodiff().reshape([o, 1])
            }
        }
    }

    fn visit(&mut self, module: &str, suffix: &str, owner: AdapterId, visit: VisitOwned<'_>) {
        let (a, b) = (format!("{module}.lora_A{suffix}.weight"), format!("{module}.lora_B{suffix}.weight"));
        visit(&a, Some(owner), ParameterMut::Matrix(&mut self.a_ri));
        visit(&b, Some(owner), ParameterMut::Matrix(&mut self.b_or));
        if let Some(dora) = &mut self.dora {
            dora.gain_o = None;
            let name = format!("{module}.lora_magnitude_vector{suffix}");
            visit(&name, Some(owner), ParameterMut::Vector(&mut dora.magnitude_o));
        }
    }
}

/// Where a new branch takes its tensors from: name (behind the module's) and shape -> values in f32, or `None` where
/// the base says what they are.
pub(crate) type Source<'a, E> = &'a mut dyn FnMut(&str, &[usize]) -> Result<Option<Tensor<1>>, E>;

impl Branch {
    /// A branch over `base`, whose weight is (o, i).
    pub(crate) fn new<E>(
        base: &Projection,
        [o, i]: [usize; 2],
        change: Change,
        (dropout, dora): (f64, bool),
        source: Source<'_, E>,
    ) -> Result<Self, E> {
        let Change::LowRank { rank, scale } = change else { return Self::whole(base, [o, i], source) };
        let matrix = |tensor: Option<Tensor<1>>, [rows, columns]: [usize; 2]| match tensor {
            Some(values) => values.reshape([rows, columns]),
            None => Tensor::zeros([rows, columns], (&base.device(), DType::F32)),
        };
        let a_ri = matrix(source("lora_A.weight", &[rank, i])?, [rank, i]);
        let b_or = matrix(source("lora_B.weight", &[o, rank])?, [o, rank]);
        let mut low = LowRank { a_ri, b_or, scale: scale as f32, dropout, dora: None };
        if dora {
            let square_o = base.row_squares();
            let magnitude_o = match source("lora_magnitude_vector", &[o])? {
                Some(values) => values,
                None => low.row_norms(&square_o, base),
            };
            low.dora = Some(Dora { magnitude_o, square_o, gain_o: None });
        }
        Ok(Branch::LowRank(low))
    }

    fn whole<E>(base: &Projection, [o, i]: [usize; 2], source: Source<'_, E>) -> Result<Self, E> {
        let weight_oi = match source("weight", &[o, i])? {
            Some(values) => values.reshape([o, i]),
            None => base.dense_f32(),
        };
        let bias_o = match base.bias() {
            None => None,
            Some(bias_o) => Some(match source("bias", &[o])? {
                Some(values) => values,
                None => bias_o.cast(DType::F32),
            }),
        };
        Ok(Branch::Whole { weight_oi, bias_o })
    }

    pub(crate) fn visit(&mut self, module: &str, suffix: &str, owner: AdapterId, visit: VisitOwned<'_>) {
        match self {
            Branch::LowRank(low) => low.visit(module, suffix, owner, visit),
            Branch::Whole { weight_oi, bias_o } => {
                let name = format!("{module}.modules_to_save{suffix}");
                visit(&format!("{name}.weight"), Some(owner), ParameterMut::Matrix(weight_oi));
                if let Some(bias_o) = bias_o {
                    visit(&format!("{name}.bias"), Some(owner), ParameterMut::Vector(bias_o));
                }
            }
        }
    }
}
