//! The gated feed-forward block.

use burn::tensor::Tensor;

use crate::ops;
use crate::parameters::Visit;
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
    pub fn forward(&self, x_nc: Tensor<2>) -> Tensor<2> {
        let gate_nf = self.gate.forward(x_nc.clone());
        let up_nf = self.up.forward(x_nc);
        self.down.forward(ops::swiglu(gate_nf, up_nf))
    }

    pub(crate) fn visit_mut(&mut self, name: &str, visit: Visit<'_>) {
        self.gate.visit_mut(&format!("{name}.gate_proj"), visit);
        self.up.visit_mut(&format!("{name}.up_proj"), visit);
        self.down.visit_mut(&format!("{name}.down_proj"), visit);
    }
}
