//! Every op against hand numbers, against the same formula composed from Burn's tensors, and its gradient
//! against finite differences; on the processor, and with the feature `gpu` on a software WebGPU device too.

#![allow(clippy::print_stdout, reason = "measured differences, shown with --nocapture")]

mod attention;
mod cached;
mod check;
mod divergence;
mod dtypes;
mod gradients;
mod hand;
mod kernels;
mod loss;
mod packed;
mod scores;
mod sums;
