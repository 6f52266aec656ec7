//! What a linear layer is: the one seam for adapters and quantized weights.
//!
//! Shapes: n rows (batch and time folded), i input channels, o output channels.

use burn::tensor::{DType, Device, Tensor};

use crate::adapter::{Adapted, AdapterId, Branch, Pass, PerAdapter};
use crate::ops;
use crate::packed::{Codes, Packed, Packing};
use crate::parameters::{ParameterMut, VisitOwned};

/// A linear layer. Its input decides the dtype of the computation; stored weights are cast to it.
#[derive(Debug, Clone)]
pub enum Projection {
    /// A plain weight `[out, in]`, with an optional bias.
    Dense {
        /// weight_oi.
        weight: Tensor<2>,
        /// bias_o.
        bias: Option<Tensor<1>>,
    },
    /// A frozen weight in 8 bits; the bias stays as it was.
    Int8 {
        /// Codes and scales of weight_oi.
        weight: Packed,
        /// bias_o.
        bias: Option<Tensor<1>>,
    },
    /// A frozen weight in 4 bits, int4 or nf4; the bias stays as it was.
    Int4 {
        /// Codes and scales of weight_oi.
        weight: Packed,
        /// bias_o.
        bias: Option<Tensor<1>>,
    },
    /// Any of the others, frozen, with adapters on it.
    Lora(Box<Adapted>),
}

impl Projection {
    /// A layer with a packed weight.
    pub fn of_packed(weight: Packed, bias: Option<Tensor<1>>) -> Self {
        match weight.shape().packing.codes() {
            Codes::Int8 => Projection::Int8 { weight, bias },
            Codes::Int4 | Codes::Nf4 => Projection::Int4 { weight, bias },
        }
    }

    /// x_ni -> y_no with the adapters that `pass` chooses, in the dtype of x.
    pub(crate) fn adapted(&self, x_ni: Tensor<2>, pass: &Pass) -> Tensor<2> {
        match self {
            Projection::Lora(adapted) => adapted.forward(x_ni, pass),
            _ => self.forward(x_ni),
        }
    }

    /// x_ni -> y_no without adapters, in the dtype of x.
    pub fn forward(&self, x_ni: Tensor<2>) -> Tensor<2> {
        self.multiplied(x_ni, true)
    }

    /// As [`Projection::forward`], without the bias.
    pub(crate) fn product(&self, x_ni: Tensor<2>) -> Tensor<2> {
        self.multiplied(x_ni, false)
    }

    fn multiplied(&self, x_ni: Tensor<2>, with_bias: bool) -> Tensor<2> {
        let dtype = x_ni.dtype();
        let cast = |bias: &Option<Tensor<1>>| bias.clone().filter(|_| with_bias).map(|b| b.cast(dtype));
        match self {
            Projection::Dense { weight, bias } => ops::linear(x_ni, weight.clone().cast(dtype), cast(bias)),
            Projection::Int8 { weight, bias } | Projection::Int4 { weight, bias } => {
                ops::qlinear(x_ni, weight, cast(bias))
            }
            Projection::Lora(adapted) => adapted.base.multiplied(x_ni, with_bias),
        }
    }

    /// weight_oi as it is stored, or what a packed one stands for, in f32; without adapters.
    pub fn weight(&self) -> Tensor<2> {
        match self {
            Projection::Dense { weight, .. } => weight.clone(),
            Projection::Int8 { weight, .. } | Projection::Int4 { weight, .. } => weight.dequantized(),
            Projection::Lora(adapted) => adapted.base.weight(),
        }
    }

    /// The packed weight, where it is one.
    pub fn packed(&self) -> Option<&Packed> {
        match self {
            Projection::Dense { .. } => None,
            Projection::Int8 { weight, .. } | Projection::Int4 { weight, .. } => Some(weight),
            Projection::Lora(adapted) => adapted.base.packed(),
        }
    }

    /// Packs a dense weight, also under adapters; a packed one stays as it is. The dense weight is freed unless someone
    /// else holds it.
    pub(crate) fn pack(&mut self, packing: Packing) {
        match self {
            Projection::Dense { weight, bias } => {
                *self = Self::of_packed(Packed::round(weight.clone(), packing), bias.take());
            }
            Projection::Int8 { .. } | Projection::Int4 { .. } => {}
            Projection::Lora(adapted) => adapted.pack(packing),
        }
    }

    /// bias_o as it is stored.
    pub(crate) fn bias(&self) -> Option<Tensor<1>> {
        match self {
            Projection::Dense { bias, .. } | Projection::Int8 { bias, .. } | Projection::Int4 { bias, .. } => {
                bias.clone()
            }
            Projection::Lora(adapted) => adapted.base.bias(),
        }
    }

    /// weight_oi in f32, off the autodiff device.
    pub(crate) fn dense_f32(&self) -> Tensor<2> {
        self.weight().without_autodiff().cast(DType::F32)
    }

    /// `‖W_o‖²`, off the autodiff device.
    pub(crate) fn row_squares(&self) -> Tensor<1> {
        let weight_oi = self.dense_f32();
        let [o, _] = weight_oi.dims();
        (weight_oi.clone() * weight_oi).sum_dim(1).reshape([o])
    }

    /// The plain device that the weight lives on.
    pub(crate) fn device(&self) -> Device {
        match self {
            Projection::Dense { weight, .. } => weight.device().without_autodiff(),
            Projection::Int8 { weight, .. } | Projection::Int4 { weight, .. } => weight.device(),
            Projection::Lora(adapted) => adapted.base.device(),
        }
    }

    /// The branches on this layer.
    pub(crate) fn branches(&self) -> Option<&PerAdapter<Branch>> {
        match self {
            Projection::Lora(adapted) => Some(&adapted.branches),
            _ => None,
        }
    }

    /// Puts the branch of one more adapter on the layer.
    pub(crate) fn wrap(&mut self, module: &str, adapter: AdapterId, suffix: std::sync::Arc<str>, branch: Branch) {
        if !matches!(self, Projection::Lora(_)) {
            let base = self.clone();
            *self = Projection::Lora(Box::new(Adapted {
                base,
                branches: PerAdapter::default(),
                module: module.into(),
            }));
        }
        if let Projection::Lora(adapted) = self {
            adapted.branches.push(adapter, suffix, branch);
        }
    }

    /// Takes the branch of an adapter off; with the last one, the layer is its base again.
    pub(crate) fn unwrap_adapter(&mut self, adapter: AdapterId) {
        if let Projection::Lora(adapted) = self {
            adapted.branches.remove(adapter);
            if adapted.branches.is_empty() {
                *self = adapted.base.clone();
            }
        }
    }

    /// The layer without any adapter. Handles only.
    pub(crate) fn base(&self) -> Projection {
        match self {
            Projection::Lora(adapted) => adapted.base.clone(),
            plain => plain.clone(),
        }
    }

    /// Visits the parameters: of a packed layer the bias alone.
    pub(crate) fn visit_owned(&mut self, name: &str, visit: VisitOwned<'_>) {
        let bias = match self {
            Projection::Dense { weight, bias } => {
                visit(&format!("{name}.weight"), None, ParameterMut::Matrix(weight));
                bias
            }
            Projection::Int8 { bias, .. } | Projection::Int4 { bias, .. } => bias,
            Projection::Lora(adapted) => {
                adapted.base.visit_owned(name, visit);
                for (adapter, suffix, branch) in adapted.branches.iter_mut() {
                    branch.visit(name, suffix, adapter, visit);
                }
                return;
            }
        };
        if let Some(bias) = bias {
            visit(&format!("{name}.bias"), None, ParameterMut::Vector(bias));
        }
    }
}
