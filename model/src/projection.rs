//! What a linear layer is: the one seam for adapters and quantized weights.
//!
//! Shapes: n rows (batch and time folded), i input channels, o output channels.

use burn::tensor::Tensor;

use crate::ops;
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
}

impl Projection {
    /// x_ni -> y_no, in the dtype of x.
    pub fn forward(&self, x_ni: Tensor<2>) -> Tensor<2> {
        let dtype = x_ni.dtype();
        match self {
            Projection::Dense { weight, bias } => {
                ops::linear(x_ni, weight.clone().cast(dtype), bias.clone().map(|b| b.cast(dtype)))
            }
        }
    }

    pub(crate) fn visit_mut(&mut self, name: &str, visit: Visit<'_>) {
        match self {
            Projection::Dense { weight, bias } => {
                visit(&format!("{name}.weight"), ParameterMut::Matrix(weight));
                if let Some(bias) = bias {
                    visit(&format!("{name}.bias"), ParameterMut::Vector(bias));
                }
            }
        }
    }
}
