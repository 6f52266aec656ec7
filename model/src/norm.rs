//! Root-mean-square normalization with its gain.

use burn::tensor::{DType, Tensor};

use crate::adapter::{AdapterId, Choice, Pass, PerAdapter};
use crate::ops;
use crate::parameters::{ParameterMut, VisitOwned};

/// `x / rms(x) * gain` over the last dimension.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    pub(crate) gain: Tensor<1>,
    pub(crate) eps: f32,
    /// Gains of adapters that train the norm whole.
    pub(crate) saved: PerAdapter<Tensor<1>>,
}

impl RmsNorm {
    /// x_nc -> y_nc, in the dtype of x.
    pub(crate) fn forward(&self, x_nc: Tensor<2>, pass: &Pass) -> Tensor<2> {
        match &pass.choice {
            Choice::PerRow(groups) if self.saved.touches(&pass.choice) => {
                groups.by_group([x_nc], |adapter, [x_nc]| self.with(adapter, x_nc))
            }
            Choice::All(adapter) => self.with(*adapter, x_nc),
            Choice::PerRow(_) => self.with(None, x_nc),
        }
    }

    fn with(&self, adapter: Option<AdapterId>, x_nc: Tensor<2>) -> Tensor<2> {
        let dtype = x_nc.dtype();
        let gain = adapter.and_then(|adapter| self.saved.get(adapter)).unwrap_or(&self.gain);
        ops::rms_norm(x_nc, gain.clone().cast(dtype), self.eps)
    }

    /// As `forward`, with the result in `dtype`: a residual stream in f32 feeds projections in bf16.
    pub(crate) fn forward_as(&self, x_nc: Tensor<2>, dtype: DType, pass: &Pass) -> Tensor<2> {
        self.forward(x_nc, pass).cast(dtype)
    }

    pub(crate) fn visit_owned(&mut self, name: &str, visit: VisitOwned<'_>) {
        visit(&format!("{name}.weight"), None, ParameterMut::Vector(&mut self.gain));
        for (adapter, suffix, gain) in self.saved.iter_mut() {
            visit(&format!("{name}.modules_to_save{suffix}.weight"), Some(adapter), ParameterMut::Vector(gain));
        }
    }
}
