//! The gated feed-forward block.

use burn::tensor::Tensor;

use crate::adapter::Pass;
use crate::ops;
use crate::parameters::{ModuleMut, VisitModules};
use crate::projection::Projection;

/// `down(silu(gate(x)) * up(x))`.
#[derive(Debug, Clone)]
pub struct Mlp {
    pub(crate) gate: Projection,
    pub(crate) up: Projection,
    pub(crate) down: Projection,
}

impl Mlp {
    /// x_nc -> y_nc.
    pub(crate) fn forward(&self, x_nc: Tensor<2>, pass: &Pass) -> Tensor<2> {
        let gate_nf = self.gate.adapted(x_nc.clone(), pass);
        let up_nf = self.up.adapted(x_nc, pass);
        self.down.adapted(ops::swiglu(gate_nf, up_nf), pass)
    }

    pub(crate) fn modules_mut(&mut self, name: &str, visit: VisitModules<'_>) {
        for (part, projection) in
            [("gate_proj", &mut self.gate), ("up_proj", &mut self.up), ("down_proj", &mut self.down)]
        {
            visit(&format!("{name}.{part}"), ModuleMut::Projection(projection));
        }
    }
}
