//! A decoder with packed layers is the dense decoder of what its codes stand for, on every path and in every gradient
//! that reaches a parameter of both.

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor};
use fornax_model::packed::{Codes, Packing};
use fornax_model::{Decoder, Layout};

use crate::subjects::{Rows, Subject, decoder, devices, subjects, supported, tokens};
use crate::{PRECISIONS, Precision, compare, forward, paths, relative, targets_and_weights, values};

/// Sums of the same f32 products in another order, as for the paths of a dense decoder; bfloat16 rounds the same
/// weights to the same bits before the same product.
const PACKED: [(&Precision, f32); 2] = [(&PRECISIONS[0], 4e-6), (&PRECISIONS[3], 2e-2)];

/// Every subject with one kind of codes, by turns: biases, windows, head norms, a tied head, odd widths.
fn packings() -> impl Iterator<Item = (Subject, Packing)> {
    let kinds = [(Codes::Int4, 32), (Codes::Nf4, 16), (Codes::Int8, 64), (Codes::Int4, 8), (Codes::Nf4, 64)];
    let packing = |(codes, block)| Packing::new(codes, block).unwrap();
    subjects().into_iter().zip(kinds.map(packing).into_iter().cycle())
}

#[test]
fn a_packed_decoder_is_the_dense_one_of_its_weights() {
    for device in devices() {
        for (precision, tolerance) in PACKED.into_iter().filter(|(p, _)| supported(p, &device)) {
            for (subject, packing) in packings() {
                let packed = decoder(&subject, precision, &device).quantized(packing);
                let dense = packed.clone().dequantized(DType::F32);
                assert_eq!(packed.packed().len(), 7 * packed.config().n_layers);
                assert!(packed.bytes() < dense.bytes() && dense.packed().is_empty());
                let rows = tokens(&subject, &packed, precision.cache);
                let base = forward(&dense, &rows, None);
                let mut all = vec![("training forward".into(), forward(&packed, &rows, None))];
                all.extend(paths(&packed, &rows, precision.cache));
                let worst = all.iter().map(|(path, logits)| {
                    let difference = compare(&base, logits, packed.config().vocab_size).difference;
                    assert!(difference <= tolerance, "{} {path}: {difference}", subject.name);
                    difference
                });
                let (worst, codes) = (worst.fold(0.0, f32::max), packing.codes().word());
                println!("{:26} {:18} {codes} by {}: {worst:.1e}", precision.name, subject.name, packing.block());
            }
        }
    }
}

/// The loss, and the gradient of every parameter by name.
fn train(decoder: &Decoder, rows: &Rows) -> (f32, BTreeMap<String, Vec<f32>>) {
    let device = decoder.device();
    let (targets, weights): (Vec<_>, Vec<_>) = rows.0.iter().map(|row| targets_and_weights(row)).unzip();
    let hidden = decoder.forward(rows.tensor(&device), &Layout::contiguous(0, rows.t(), &device), None);
    let shape = [rows.0.len(), rows.t()];
    let weights = Tensor::<1>::from_data(weights.concat().as_slice(), (&device, DType::F32)).reshape(shape);
    let loss = decoder.loss(hidden, Rows(targets).tensor(&device), weights);
    let gradients = decoder.backward(&loss);
    (values(loss)[0], gradients.into_iter().map(|(name, gradient)| (name, values(gradient))).collect())
}

#[test]
fn gradients_through_packed_layers_are_those_through_the_dense_ones() {
    for device in devices() {
        for (subject, packing) in packings() {
            let plain = decoder(&subject, &PRECISIONS[0], &device).quantized(packing);
            let packed = plain.clone().trainable(true);
            let dense = plain.dequantized(DType::F32).trainable(true);
            let rows = Rows::random(subject.name, 2, subject.t, packed.config().vocab_size);
            let ((loss, ours), (expected, theirs)) = (train(&packed, &rows), train(&dense, &rows));
            assert!((loss / expected - 1.0).abs() < 1e-5, "{}: loss {loss} against {expected}", subject.name);
            // Packed weights have no gradient; all else has the same.
            let weights = packed.packed();
            assert_eq!(ours.len() + weights.len(), theirs.len(), "{}", subject.name);
            assert!(weights.iter().all(|(name, _)| theirs.contains_key(name) && !ours.contains_key(name)));
            for (name, gradient) in &ours {
                let difference = relative(gradient, &theirs[name]);
                assert!(difference <= 1e-5, "{} {name}: {difference}", subject.name);
            }
            let mut saving = packed.clone();
            saving.set_activation_checkpointing(true);
            let (again, recomputed) = train(&saving.for_one_pass(), &rows);
            assert_eq!(again, loss);
            for (name, gradient) in &ours {
                assert!(relative(&recomputed[name], gradient) <= 1e-5, "{} {name}, recomputed", subject.name);
            }
        }
    }
}
