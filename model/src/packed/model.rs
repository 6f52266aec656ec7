//! A decoder whose linear layers are packed.

use super::{Packed, Packing};
use crate::adapter::head_module;
use crate::decoder::Decoder;
use crate::parameters::ModuleMut;
use crate::projection::Projection;

impl Decoder {
    /// Packs the linear layers of all blocks, one after the other: their weights are frozen from then on and no
    /// parameters any more, while embedding, head, norms, biases and adapters stay as they are. [`load_packed`] does so
    /// as it loads. Layers that are packed already stay as they are; [`Decoder::in_dtype`] makes them dense.
    ///
    /// [`load_packed`]: crate::weights::load_packed
    #[must_use]
    pub fn quantized(mut self, packing: Packing) -> Self {
        self.block_projections_mut(&mut |_, projection| projection.pack(packing));
        self
    }

    /// The packed weights by name. They are not among the [`Decoder::parameters`].
    pub fn packed(&self) -> Vec<(String, Packed)> {
        let mut all = Vec::new();
        self.clone().block_projections_mut(&mut |name, projection| {
            all.extend(projection.packed().map(|weight| (format!("{name}.weight"), weight.clone())));
        });
        all
    }

    /// Bytes of the parameters and packed weights in memory.
    pub fn bytes(&self) -> usize {
        let dense = self.parameters().into_iter().map(|(_, _, x)| x.dims()[0] * x.dtype().size());
        dense.chain(self.packed().into_iter().map(|(_, weight)| weight.bytes())).sum()
    }

    fn block_projections_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Projection)) {
        self.modules_mut(&mut |name, module| match module {
            ModuleMut::Projection(projection) if name != head_module() => visit(name, projection),
            _ => {}
        });
    }
}
