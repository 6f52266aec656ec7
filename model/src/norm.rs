//! Root-mean-square normalization with its gain.

use burn::tensor::{DType, Tensor};

use crate::ops;
use crate::parameters::{ParameterMut, Visit};

/// `x / rms(x) * gain` over the last dimension.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    pub(crate) gain: Tensor<1>,
    pub(crate) eps: f32,
}

impl RmsNorm {
    /// x_nc -> y_nc, in the dtype of x.
    pub fn forward(&self, x_nc: Tensor<2>) -> Tensor<2> {
        let dtype = x_nc.dtype();
        ops::rms_norm(x_nc, self.gain.clone().cast(dtype), self.eps)
    }

    /// As `forward`, with the result in `dtype`: a residual stream in f32 feeds projections in bf16.
    pub fn forward_as(&self, x_nc: Tensor<2>, dtype: DType) -> Tensor<2> {
        self.forward(x_nc).cast(dtype)
    }

    pub(crate) fn visit_mut(&mut self, name: &str, visit: Visit<'_>) {
        visit(&format!("{name}.weight"), ParameterMut::Vector(&mut self.gain));
    }
}
