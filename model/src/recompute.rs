//! Activation checkpointing by block (Chen et al. 2016, arXiv:1604.06174): forward keeps the input of each
//! block and nothing of its inside; backward runs the block again, from the last to the opening one, and
//! takes its gradients then.
//!
//! Burn has nothing of the kind for a whole block, so the tape is cut at every block: its output becomes a
//! leaf of the tape behind it, and the gradient that arrives there is carried on by hand.
//!
//! Shapes: n rows (b * t), c channels.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Gradients, Tensor};

use crate::attention::Shared;
use crate::decoder::Block;

/// Blocks that ran without a tape and wait for the backward pass of the loss they lead to. Clones of a
/// decoder share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<Vec<Segment>>>);

/// A block that ran: what it takes to run it again, and the leaf that stands for its output.
#[derive(Debug)]
struct Segment {
    block: Block,
    layer: usize,
    compute: DType,
    shared: Shared<'static>,
    x_nc: Tensor<2>,
    y_nc: Tensor<2>,
}

impl Waiting {
    /// x_nc -> y_nc through `block`, off the tape. Where a gradient is wanted, the block is remembered.
    pub(crate) fn forward(
        &self,
        block: &Block,
        layer: usize,
        compute: DType,
        shared: &Shared<'_>,
        x_nc: Tensor<2>,
    ) -> Tensor<2> {
        let mut shared = shared.for_rerun();
        let plain = block.frozen().forward(x_nc.clone().without_autodiff(), layer, compute, &mut shared);
        if !x_nc.is_tracked() && !block.is_trainable() {
            return plain;
        }
        let y_nc = plain.autodiff().require_grad();
        let segment = Segment { block: block.clone(), layer, compute, shared, x_nc, y_nc: y_nc.clone() };
        self.segments().push(segment);
        y_nc
    }

    /// Gradients of `loss` and then of each block that waits, handed to `take` tape by tape.
    pub(crate) fn backward(&self, loss: &Tensor<1>, mut take: impl FnMut(Gradients)) {
        let mut segments = std::mem::take(&mut *self.segments());
        let mut gradients = loss.backward();
        // A loss may stand on several forward passes: each ends in a leaf of the loss's own tape.
        let mut arrived: Vec<Option<Tensor<2>>> =
            segments.iter().map(|segment| segment.y_nc.grad_remove(&mut gradients)).collect();
        take(gradients);
        while let Some(segment) = segments.pop() {
            // What the loss does not depend on has no gradient to carry on.
            let Some(dy_nc) = arrived.pop().flatten() else { continue };
            let Segment { block, layer, compute, mut shared, x_nc, .. } = segment;
            let y_nc = block.forward(x_nc, layer, compute, &mut shared);
            // The derivative of this sum by y is dy itself: 1 * dy, to the bit.
            let mut gradients = (y_nc * dy_nc).sum().backward();
            if let (Some(before), Some(slot)) = (segments.last(), arrived.last_mut())
                && let Some(dx_nc) = before.y_nc.grad_remove(&mut gradients)
            {
                *slot = Some(dx_nc);
            }
            take(gradients);
        }
    }

    fn segments(&self) -> MutexGuard<'_, Vec<Segment>> {
        // A panic elsewhere leaves the list whole: it is only pushed to and taken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
