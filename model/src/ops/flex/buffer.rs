//! Flex tensors as slices of f32, and new tensors from buffers.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};

/// Whether the f32 kernels take all of these tensors.
pub(super) fn all_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// The tensor with its elements in one run, copied where they are not.
pub(super) fn dense(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// The elements of a dense f32 tensor.
pub(super) fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice::<f32>().expect("the tensor was made dense, in f32")
}

/// The elements of a dense f32 tensor, to be written in place: its own buffer where no one else holds it, else
/// a copy.
pub(super) fn values_mut(x: &mut FlexTensor) -> &mut [f32] {
    let (from, to) = x.layout().contiguous_offsets().expect("the tensor was made dense");
    &mut x.storage_mut::<f32>()[from..to]
}

/// A buffer of `n` floats whose values are not set: for kernels that write every element before any is read.
pub(super) fn unset(n: usize) -> Vec<f32> {
    let buffer = Box::<[f32]>::new_uninit_slice(n);
    // SAFETY: every bit pattern is an f32, and callers write each element before they read it.
    unsafe { buffer.assume_init() }.into_vec()
}

/// The buffer as a tensor.
pub(super) fn tensor(buffer: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(buffer), Layout::contiguous(shape), DType::F32)
}

/// The buffer, which holds [b, t, h, d], as a tensor [b, h, t, d]: how attention's neighbours want it.
pub(super) fn by_head(buffer: Vec<f32>, [b, h, t, d]: [usize; 4]) -> FlexTensor {
    let strides = [t * h * d, d, h * d, 1].map(|stride| stride as isize);
    let layout = Layout::new(Shape::new([b, h, t, d]), strides.to_vec(), 0);
    FlexTensor::new(Bytes::from_elems(buffer), layout, DType::F32)
}

/// A tensor [b, h, t, d] whose rows of d floats are each in one run.
pub(super) struct Heads<'a> {
    pub(super) values: &'a [f32],
    /// Distance of one batch row, head and time step.
    pub(super) strides: [usize; 3],
}

/// Makes the last dimension one run, copying where it is not or where a stride is negative.
pub(super) fn with_rows(x: FlexTensor) -> FlexTensor {
    let strides = x.layout().strides();
    let last = x.layout().shape()[strides.len() - 1];
    let rows = (strides[strides.len() - 1] == 1 || last == 1) && strides.iter().all(|&stride| stride >= 0);
    if rows { x } else { x.to_contiguous() }
}

/// The rows of a tensor that [`with_rows`] prepared.
pub(super) fn heads(x: &FlexTensor) -> Heads<'_> {
    let layout = x.layout();
    let strides: [usize; 3] = std::array::from_fn(|i| layout.strides()[i] as usize);
    Heads { values: &x.storage::<f32>()[layout.start_offset()..], strides }
}

impl Heads<'_> {
    /// Where the row of d floats at (batch row, head, time) begins.
    pub(super) fn at(&self, b: usize, h: usize, t: usize) -> usize {
        b * self.strides[0] + h * self.strides[1] + t * self.strides[2]
    }
}
