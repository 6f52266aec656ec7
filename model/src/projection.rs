//! What a linear layer is: the one seam for adapters and quantized weights.
//!
//! Shapes: n rows (batch and time folded), i input channels, o output channels.

use burn::tensor::{DType, Tensor};

use crate::ops;
use crate::packed::{Codes, Packed, Packing};
use crate::parameters::{ParameterMut, Visit};

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
}

impl Projection {
    /// A layer with a packed weight.
    pub fn of_packed(weight: Packed, bias: Option<Tensor<1>>) -> Self {
        match weight.shape().packing.codes() {
            Codes::Int8 => Projection::Int8 { weight, bias },
            Codes::Int4 | Codes::Nf4 => Projection::Int4 { weight, bias },
        }
    }

    /// x_ni -> y_no, in the dtype of x.
    pub fn forward(&self, x_ni: Tensor<2>) -> Tensor<2> {
        let dtype = x_ni.dtype();
        let cast = |bias: &Option<Tensor<1>>| bias.clone().map(|b| b.cast(dtype));
        match self {
            Projection::Dense { weight, bias } => ops::linear(x_ni, weight.clone().cast(dtype), cast(bias)),
            Projection::Int8 { weight, bias } | Projection::Int4 { weight, bias } => {
                ops::qlinear(x_ni, weight, cast(bias))
            }
        }
    }

    /// weight_oi as it is stored, or what a packed one stands for, in f32.
    pub fn weight(&self) -> Tensor<2> {
        match self {
            Projection::Dense { weight, .. } => weight.clone(),
            Projection::Int8 { weight, .. } | Projection::Int4 { weight, .. } => weight.dequantized(),
        }
    }

    /// The packed weight, where it is one.
    pub fn packed(&self) -> Option<&Packed> {
        match self {
            Projection::Dense { .. } => None,
            Projection::Int8 { weight, .. } | Projection::Int4 { weight, .. } => Some(weight),
        }
    }

    /// Packs a dense weight; a packed one stays as it is. The dense weight is freed unless someone else holds it.
    pub(crate) fn pack(&mut self, packing: Packing) {
        if let Projection::Dense { weight, bias } = self {
            *self = Self::of_packed(Packed::round(weight.clone(), packing), bias.take());
        }
    }

    /// Makes a packed weight dense, as `dtype`; a dense one stays as it is.
    pub(crate) fn unpack(&mut self, dtype: DType) {
        if let Projection::Int8 { weight, bias } | Projection::Int4 { weight, bias } = self {
            *self = Projection::Dense { weight: weight.dequantized().cast(dtype), bias: bias.take() };
        }
    }

    /// Visits what may be trained: of a packed layer the bias alone.
    pub(crate) fn visit_mut(&mut self, name: &str, visit: Visit<'_>) {
        let bias = match self {
            Projection::Dense { weight, bias } => {
                visit(&format!("{name}.weight"), ParameterMut::Matrix(weight));
                bias
            }
            Projection::Int8 { bias, .. } | Projection::Int4 { bias, .. } => bias,
        };
        if let Some(bias) = bias {
            visit(&format!("{name}.bias"), ParameterMut::Vector(bias));
        }
    }
}
