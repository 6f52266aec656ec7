//! Operands of two dtypes are refused with a sentence that names the op and both.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fornax_model::ops::{self, AttentionMask};
use fornax_model::packed::{Codes, Packed, Packing};

fn ones<const D: usize>(shape: [usize; D], dtype: DType) -> Tensor<D> {
    Tensor::ones(shape, (&Device::flex(), dtype))
}

#[track_caller]
fn refuses(expected: &str, call: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("operands of two dtypes went through");
    let text = panic.downcast_ref::<String>().expect("a panic with a formatted message");
    assert_eq!(text, &format!("{expected}: operands of different dtypes (F32 and BF16)"));
}

#[test]
fn two_dtypes_are_refused() {
    let (full, half) = (DType::F32, DType::BF16);
    refuses("linear", || drop(ops::linear(ones([2, 3], full), ones([4, 3], half), None)));
    refuses("linear bias", || {
        drop(ops::linear(ones([2, 3], full), ones([4, 3], full), Some(ones([4], half))));
    });
    let packed = Packed::round(ones([4, 3], full), Packing::usual(Codes::Int4));
    refuses("linear bias", || drop(ops::qlinear(ones([2, 3], full), &packed, Some(ones([4], half)))));
    refuses("rms_norm", || drop(ops::rms_norm(ones([2, 3], full), ones([3], half), 1e-5)));
    refuses("swiglu", || drop(ops::swiglu(ones([2, 3], full), ones([2, 3], half))));
    refuses("rope", || drop(ops::rope(ones([1, 1, 2, 4], full), ones([1, 2, 2], half), ones([1, 2, 2], half))));
    refuses("rope", || drop(ops::rope(ones([1, 1, 2, 4], full), ones([1, 2, 2], full), ones([1, 2, 2], half))));
    let mask = AttentionMask::new(0, 2, None, None, &Device::flex());
    for (k, v) in [(half, half), (full, half)] {
        let at = |dtype| ones([1, 1, 2, 4], dtype);
        refuses("attention", || drop(ops::attention(at(full), at(k), at(v), &mask, 1.0)));
    }
    let targets = || Tensor::<1, Int>::from_data(TensorData::new(vec![0, 1], [2]), &Device::flex());
    refuses("cross_entropy", || {
        drop(ops::cross_entropy(ones([2, 3], full), ones([4, 3], half), targets(), ones([2], full), 0.0, 0.0));
    });
    refuses("token_scores", || drop(ops::token_scores(ones([2, 3], full), ones([4, 3], half), targets(), 0.0)));
    refuses("token_nll", || drop(ops::token_nll(ones([2, 3], full), ones([4, 3], half), targets(), 0.0)));
}
