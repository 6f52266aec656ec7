//! A decoder with packed layers is the dense decoder of what its codes stand for, on every path and in every gradient
//! that reaches a parameter of both.

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor};
use fornax_base::rng::rng;
use fornax_model::adapter::{AdapterConfig, Targets};
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
                let mut dense = packed.in_dtype(DType::F32);
                dense.set_compute(precision.compute);
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
            let dense = plain.in_dtype(DType::F32).trainable(true);
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

/// LoRA, or DoRA, on every linear layer, with a B that is no longer zero.
fn adapted(mut decoder: Decoder, dora: bool) -> Decoder {
    let config = AdapterConfig { dora, ..AdapterConfig::lora(4, 8.0, Targets::AllLinear) };
    let id = decoder.attach("default", config, 11).unwrap();
    decoder.activate(Some(id));
    decoder.visit_mut(&mut |name, mut parameter| {
        if name.contains("lora_B") {
            let mut random = rng(5, 0, name);
            let n = parameter.shape().iter().product();
            let values: Vec<f32> = (0..n).map(|_| random.normal_f32() * 0.05).collect();
            parameter
                .set_flat(Tensor::<1>::from_data(values.as_slice(), (&parameter.flat().device(), DType::F32)));
        }
    });
    decoder
}

#[test]
fn adapters_over_packed_layers_are_those_over_the_dense_ones() {
    for device in devices() {
        for (i, (subject, packing)) in packings().enumerate() {
            let dora = i % 2 == 1;
            let plain = decoder(&subject, &PRECISIONS[0], &device);
            let base = plain.clone().quantized(packing);
            let [over_packed, over_dense] = [base.clone(), base.in_dtype(DType::F32)].map(|d| adapted(d, dora));
            let rows = Rows::random(subject.name, 2, subject.t, base.config().vocab_size);
            let logits = forward(&over_packed, &rows, None);
            assert!(relative(&logits, &forward(&over_dense, &rows, None)) <= 1e-5, "{}", subject.name);
            assert!(
                relative(&logits, &forward(&base, &rows, None)) > 1e-4,
                "{}: an adapter of nothing",
                subject.name
            );
            let [(loss, ours), (expected, theirs)] =
                [&over_packed, &over_dense].map(|d| train(&d.clone().trainable(true), &rows));
            assert!((loss / expected - 1.0).abs() < 1e-5, "{}: loss {loss} against {expected}", subject.name);
            assert!(ours.keys().all(|name| name.contains("lora_")), "{:?}", ours.keys());
            assert_eq!(ours.len(), base.packed().len() * if dora { 3 } else { 2 });
            assert!(ours.values().all(|gradient| gradient.iter().any(|x| *x != 0.0)), "a gradient of zeros");
            assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
            let differences = ours.iter().map(|(name, gradient)| relative(gradient, &theirs[name]));
            let worst = differences.fold(0.0, f32::max);
            let codes = packing.codes().word();
            println!("{:18} {codes} by {}, DoRA {dora}: gradients {worst:.1e}", subject.name, packing.block());
            assert!(worst <= 1e-5, "{}: gradients of A, B and magnitude differ by {worst}", subject.name);
            let mut saving = over_packed.clone().trainable(true);
            saving.set_activation_checkpointing(true);
            let (again, recomputed) = train(&saving.for_one_pass(), &rows);
            assert_eq!((again, recomputed.len()), (loss, ours.len()));
            for (name, gradient) in &ours {
                assert!(relative(&recomputed[name], gradient) <= 1e-5, "{} {name}, recomputed", subject.name);
            }
            let merged = over_packed.merged(DType::F32).unwrap();
            assert!(merged.packed().is_empty());
            let difference = relative(&forward(&merged, &rows, None), &logits);
            assert!(difference <= 1e-5, "{}: merged differs by {difference}", subject.name);
            // Packed under an adapter that is there already; DoRA's magnitudes are then those of the dense weight.
            if !dora {
                let later = forward(&adapted(plain, dora).quantized(packing), &rows, None);
                assert_eq!(later, logits, "{}", subject.name);
            }
        }
    }
}
