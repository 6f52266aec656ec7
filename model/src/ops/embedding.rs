//! Rows of the embedding table by token id.

use burn::backend::{
    Backend, Dispatch, TensorMetadata,
    autodiff::{
        Autodiff,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::LlmOps;

/// table_vc, ids_n -> rows_nc. Ids must be below v: the caller checks tokens before they reach the device.
pub fn embedding(table_vc: Tensor<2>, ids_n: Tensor<1, Int>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as LlmOps>::embedding(table_vc.into_dispatch(), ids_n.into_dispatch()))
}

pub(super) fn backward<B: Backend>(
    table: FloatTensor<B>,
    ids: IntTensor<B>,
    dy: FloatTensor<B>,
) -> FloatTensor<B> {
    let zeros = B::float_zeros(table.shape(), &table.device(), table.dtype().into());
    B::float_select_assign(zeros, 0, ids, dy, IndexingUpdateOp::Add)
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    table: FloatTensor<Autodiff<B, C>>,
    ids: IntTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct Embedding;
    impl<B: LlmOps> Backward<B, 1> for Embedding {
        type State = (FloatTensor<B>, IntTensor<B>);

        fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (table, ids) = ops.state;
            let dy = grads.consume::<B>(&ops.node);
            let [parent] = ops.parents;
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, B::embedding_gradient(table, ids, dy));
            }
        }
    }
    match Embedding.prepare::<C>([table.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let table = table.into_primitive();
            let rows = <B as LlmOps>::embedding(table.clone(), ids.clone());
            prep.finish((table, ids), rows)
        }
        OpsKind::UnTracked(prep) => prep.finish(<B as LlmOps>::embedding(table.into_primitive(), ids)),
    }
}
