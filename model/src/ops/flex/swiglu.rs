//! The gated activation, in one pass each way.

use burn::backend::flex::FlexTensor;

use super::buffer::{dense, tensor, unset, values};
use super::parallel::{self, CHUNK};
use super::simd::{kernel, load_at, sigmoid, store_at};

/// gate_nf, up_nf -> silu(gate) * up.
pub(super) fn forward(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
    let (gate, up) = (dense(gate), dense(up));
    let (gates, ups) = (values(&gate), values(&up));
    let mut out = unset(gates.len());
    parallel::chunks([&mut out], CHUNK, |i, [out]| {
        let at = i * CHUNK..i * CHUNK + out.len();
        forward_part(&gates[at.clone()], &ups[at], out);
    });
    tensor(out, gate.layout().shape().clone())
}

/// gate_nf, up_nf, dy_nf -> (dgate_nf, dup_nf).
pub(super) fn backward(gate: FlexTensor, up: FlexTensor, dy: FlexTensor) -> (FlexTensor, FlexTensor) {
    let (gate, up, dy) = (dense(gate), dense(up), dense(dy));
    let (gates, ups, dys) = (values(&gate), values(&up), values(&dy));
    let (mut dgate, mut dup) = (unset(gates.len()), unset(gates.len()));
    parallel::chunks([&mut dgate, &mut dup], CHUNK, |i, [dgate, dup]| {
        let at = i * CHUNK..i * CHUNK + dgate.len();
        backward_part(&gates[at.clone()], &ups[at.clone()], &dys[at], dgate, dup);
    });
    let shape = gate.layout().shape().clone();
    (tensor(dgate, shape.clone()), tensor(dup, shape))
}

kernel! {
    fn forward_part(s, gate: &[f32], up: &[f32], out: &mut [f32]) {
        for at in (0..out.len()).step_by(S::LANES) {
            let gate = load_at(s, gate, at);
            let silu = s.mul(gate, sigmoid(s, gate));
            store_at(s, out, at, s.mul(silu, load_at(s, up, at)));
        }
    }
}

kernel! {
    /// s (1 + gate (1 - s)) = s + silu - silu s.
    fn backward_part(s, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        for at in (0..dy.len()).step_by(S::LANES) {
            let (gate, dy) = (load_at(s, gate, at), load_at(s, dy, at));
            let sigmoid = sigmoid(s, gate);
            let silu = s.mul(gate, sigmoid);
            let slope = s.add(sigmoid, s.sub(silu, s.mul(silu, sigmoid)));
            store_at(s, dup, at, s.mul(dy, silu));
            store_at(s, dgate, at, s.mul(s.mul(dy, load_at(s, up, at)), slope));
        }
    }
}
