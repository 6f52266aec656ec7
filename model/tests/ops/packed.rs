//! Products with packed weights: hand numbers, the dense product with what the codes stand for, finite differences,
//! kernels against the composed body, bitsandbytes' nf4, and what backward keeps.

use std::path::Path;
use std::process::Command;

use burn::tensor::{DType, Device, Tensor};
use fornax_model::ops::{self, with_composed};
use fornax_model::packed::{Codes, NF4, Packed, PackedParts, PackedShape, Packing};
use fornax_model::weights::TensorFile;

use crate::check::{
    COMPOSED_TOLERANCE, Op, assert_close, check, check_bf16, devices, normals, relative, tensor, values,
};

const CODES: [Codes; 3] = [Codes::Int8, Codes::Int4, Codes::Nf4];

fn shape(out: usize, input: usize, codes: Codes, block: usize) -> PackedShape {
    PackedShape { out, input, packing: Packing::new(codes, block).unwrap() }
}

/// Random codes, every one of them possible, and random scales; with zero points where asked for.
fn random(shape: PackedShape, zeros: bool, device: &Device) -> Packed {
    let (words, blocks) = (shape.out * shape.words(), shape.out * shape.blocks());
    let mut draw = fornax_base::rng::rng(3, 0, "codes");
    let parts = PackedParts {
        words: (0..words).map(|_| draw.below(1 << 32) as u32).collect(),
        scales: normals("scales", blocks).iter().map(|x| x.abs() / shape.packing.codes().bits() as f32).collect(),
        zeros: zeros.then(|| normals("zeros", blocks)),
    };
    Packed::from_parts(parts, shape, device).unwrap()
}

/// The weight that the parts stand for, worked out here.
fn dense(packed: &Packed) -> Vec<f32> {
    let (PackedParts { words, scales, zeros }, shape) = (packed.parts(), packed.shape());
    let (codes, block) = (shape.packing.codes(), shape.packing.block());
    let weight = |(o, i): (usize, usize)| {
        let field = words[o * shape.words() + i / codes.per_word()] >> (i % codes.per_word() * codes.bits());
        let at = o * shape.blocks() + i / block;
        let zero = zeros.as_ref().map_or(0.0, |zeros| zeros[at]);
        scales[at]
            * match codes {
                Codes::Int8 => f32::from(field as u8 as i8) - zero,
                Codes::Int4 => f32::from(((field as u8) << 4) as i8 / 16) - zero,
                Codes::Nf4 => NF4[field as usize & 15],
            }
    };
    let places = (0..shape.out).flat_map(|o| (0..shape.input).map(move |i| (o, i)));
    places.map(weight).collect()
}

/// Rows, input, output, block: single elements, odd sizes, rows that are no whole block or word.
const SHAPES: [[usize; 4]; 7] =
    [[1, 1, 1, 8], [1, 3, 5, 8], [3, 1, 7, 16], [5, 7, 1, 8], [17, 33, 5, 32], [9, 65, 33, 32], [2, 128, 3, 64]];

#[test]
fn by_hand() {
    for device in devices() {
        // Rows (3, -8, 1) and (-1, 0, 2) with scales 0.5 and 2: (1.5, -4, 0.5) and (-2, 0, 4).
        let parts = PackedParts { words: vec![0x183, 0x20f], scales: vec![0.5, 2.0], zeros: None };
        let weight = Packed::from_parts(parts.clone(), shape(2, 3, Codes::Int4, 8), &device).unwrap();
        let x = tensor(&[1.0, 2.0, 3.0], DType::F32, &device).reshape([1, 3]).autodiff().require_grad();
        let y = ops::qlinear(x.clone(), &weight, None);
        assert_close(&values(y.clone()), &[-5.0, 10.0]);
        // dy = (1, 0): the weight's earlier row.
        let gradients = y.slice_dim(1, 0..1).sum().backward();
        assert_close(&values(x.grad(&gradients).unwrap()), &[1.5, -4.0, 0.5]);
        // With zero points 1 and -2 the codes are (2, -9, 0) and (1, 2, 4), so (1, -4.5, 0) and (2, 4, 8).
        let shifted = PackedParts { zeros: Some(vec![1.0, -2.0]), ..parts.clone() };
        let shifted = Packed::from_parts(shifted, shape(2, 3, Codes::Int4, 8), &device).unwrap();
        assert_close(&values(shifted.dequantized()), &[1.0, -4.5, 0.0, 2.0, 4.0, 8.0]);
        // The same bits as nf4 are the values 3, 8, 1 and 15, 0, 2 of the table.
        let nf4 = Packed::from_parts(parts, shape(2, 3, Codes::Nf4, 8), &device).unwrap();
        let expected =
            [3, 8, 1].map(|code| NF4[code] * 0.5).into_iter().chain([15, 0, 2].map(|code| NF4[code] * 2.0));
        assert_close(&values(nf4.dequantized()), &expected.collect::<Vec<_>>());
        // Eight bits: 127, -128, 1 are 7f, 80, 01.
        let parts = PackedParts { words: vec![0x0001_807f, 0], scales: vec![2.0], zeros: None };
        let int8 = Packed::from_parts(parts, shape(1, 3, Codes::Int8, 8), &device).unwrap();
        let bias = Some(tensor(&[100.0], DType::F32, &device));
        let x = tensor(&[1.0, 1.0, 3.0], DType::F32, &device).reshape([1, 3]);
        assert_close(&values(ops::qlinear(x, &int8, bias)), &[104.0]);
    }
}

#[test]
fn equals_the_dense_product_and_finite_differences() {
    for device in devices() {
        for [n, input, out, block] in SHAPES {
            for (codes, zeros) in
                CODES.into_iter().map(|c| (c, false)).chain([(Codes::Int4, true), (Codes::Int8, true)])
            {
                let packed = random(shape(out, input, codes, block), zeros, &device);
                let weight = dense(&packed);
                assert_close(&values(packed.dequantized()), &weight);
                assert_close(&with_composed(|| values(packed.dequantized())), &weight);
                let run = |x: &[Tensor<1>]| {
                    let y = ops::qlinear(x[0].clone().reshape([n, input]), &packed, x.get(1).cloned());
                    y.reshape([n * out])
                };
                let composed = |x: &[Tensor<1>]| {
                    let weight = tensor(&weight, x[0].dtype(), &device).reshape([out, input]);
                    let y = x[0].clone().reshape([n, input]).matmul(weight.transpose());
                    match x.get(1) {
                        Some(bias) => (y + bias.clone().unsqueeze::<2>()).reshape([n * out]),
                        None => y.reshape([n * out]),
                    }
                };
                for lengths in [vec![n * input], vec![n * input, out]] {
                    let (bias, word) = (lengths.len() == 2, codes.word());
                    let name = format!("qlinear {word} n {n} i {input} o {out}, zeros {zeros}, bias {bias}");
                    let op = Op { name, lengths, run: &run, composed: &composed };
                    check(&op, &device);
                    check_bf16(&op, DType::BF16, &device);
                }
            }
        }
    }
}

/// In half precision the weight is rounded to it and the product is the dense one, to the bit.
#[test]
fn half_precision_is_the_dense_product_of_the_rounded_weight() {
    for device in devices() {
        for dtype in [DType::BF16, DType::F16].into_iter().filter(|dtype| device.supports_dtype(*dtype)) {
            for codes in CODES {
                let (n, input, out) = (7, 45, 19);
                let packed = random(shape(out, input, codes, 16), false, &device);
                let weight = tensor(&dense(&packed), DType::F32, &device).reshape([out, input]).cast(dtype);
                let run = |f: &dyn Fn(Tensor<2>) -> Tensor<2>| {
                    let x = tensor(&normals("x", n * input), dtype, &device).reshape([n, input]);
                    let x = x.autodiff().require_grad();
                    let y = f(x.clone());
                    assert_eq!(y.dtype(), dtype);
                    let cotangent = tensor(&normals("cotangent", n * out), dtype, &device).reshape([n, out]);
                    let gradients = (y.clone() * cotangent.autodiff()).sum().backward();
                    let gradient = x.grad(&gradients).unwrap();
                    assert_eq!(gradient.dtype(), dtype);
                    [values(y), values(gradient)]
                };
                let ours = run(&|x| ops::qlinear(x, &packed, None));
                let plain = run(&|x| ops::linear(x, weight.clone().autodiff(), None));
                for (ours, plain) in ours.iter().zip(&plain) {
                    assert!(relative(ours, plain) <= 1e-5, "{} in {dtype:?}", codes.word());
                }
            }
        }
    }
}

/// Kernels, the composed body, and any number of threads; the last shape is unpacked in two parts, and one of them
/// is not large enough for the threads to be woken.
#[test]
fn kernels_equal_the_composed_body() {
    for [n, input, out, block] in [[3, 40, 33, 8], [37, 600, 65, 32], [130, 257, 300, 64], [3, 1000, 1051, 128]] {
        for (codes, zeros) in [(Codes::Int8, true), (Codes::Int4, true), (Codes::Nf4, false), (Codes::Int4, false)]
        {
            let packed = random(shape(out, input, codes, block), zeros, &Device::flex());
            crate::kernels::compare(codes.word(), &|| {
                let x = crate::kernels::leaf("x", [n, input]);
                let y = ops::qlinear(x.clone(), &packed, None);
                let mut all = crate::kernels::outcome(y, &[&x]);
                all.push(values(packed.dequantized()));
                all
            });
        }
    }
}

/// A layer that is not contiguous, as attention hands it on.
#[test]
fn strided_operands() {
    let packed = random(shape(9, 24, Codes::Int4, 8), false, &Device::flex());
    let across = tensor(&normals("x", 24 * 5), DType::F32, &Device::flex()).reshape([24, 5]).transpose();
    let straight = across.clone().into_data();
    let straight = Tensor::<2>::from_data(straight, (&Device::flex(), DType::F32));
    let of = |x: Tensor<2>| values(ops::qlinear(x, &packed, None));
    // The product takes another way through such an operand.
    assert!(relative(&of(across), &of(straight)) < COMPOSED_TOLERANCE);
}

/// Codes, scales and values of bitsandbytes' nf4 on normal, uniform and extreme numbers.
#[test]
fn nf4_is_that_of_bitsandbytes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/nf4/expected.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let tensor = file.get(name).unwrap();
        tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    assert_eq!(floats("code"), NF4, "the table");
    for block in [64, 128] {
        let [out, input] = [24, 384];
        let shape = shape(out, input, Codes::Nf4, block);
        let parts = PackedParts::round(&floats("weight"), shape);
        assert_eq!(parts.scales, floats(&format!("absmax.{block}")));
        let nibbles = file.get(&format!("codes.{block}")).unwrap().bytes;
        // Two codes a byte there, the earlier in the higher bits.
        let theirs: Vec<u32> =
            nibbles.iter().flat_map(|byte| [u32::from(byte >> 4), u32::from(byte & 15)]).collect();
        let ours = |i: usize| parts.words[i / 8] >> (i % 8 * 4) & 15;
        let differ = (0..out * input).filter(|&i| ours(i) != theirs[i]).count();
        assert_eq!(differ, 0, "codes of {} with blocks of {block}", out * input);
        let packed = Packed::from_parts(parts, shape, &Device::flex()).unwrap();
        assert_eq!(values(packed.dequantized()), floats(&format!("dequantized.{block}")));
    }
}

const CHILD: &str = "FORNAX_TEST_PACKED_MEMORY";
/// Channels in and out of each layer: 4 MiB dense, 640 KiB packed.
const WIDTH: usize = 1024;
const LAYERS: usize = 40;

/// Forty layers under a tape, in a process of its own: what backward keeps is the packed weights, so that the peak stays
/// far below the 160 MiB of the dense ones.
#[test]
fn the_dense_weights_are_never_kept() {
    if std::env::var_os(CHILD).is_some() {
        return deep_product();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "packed::the_dense_weights_are_never_kept", "--nocapture", "--test-threads", "1"]);
    let output = child.env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.strip_prefix("grown by ")).expect("the child prints its growth");
    let grown: usize = line.trim_end_matches(" KiB").parse().unwrap();
    println!(
        "{LAYERS} packed layers under a tape: the process grew by {grown} KiB, dense weights are {}",
        LAYERS << 12
    );
    assert!(grown < (LAYERS << 12) / 3, "grown by {grown} KiB");
}

fn deep_product() {
    let Some(before) = peak_kib() else {
        println!("\ngrown by 0 KiB");
        return;
    };
    let weight = random(shape(WIDTH, WIDTH, Codes::Int4, 32), false, &Device::flex());
    let start = Tensor::<2>::ones([2, WIDTH], (&Device::flex(), DType::F32)).autodiff().require_grad();
    // The same codes in tensors of their own.
    let copy = || Packed::from_parts(weight.parts(), weight.shape(), &Device::flex()).unwrap();
    let weights: Vec<Packed> = (0..LAYERS).map(|_| copy()).collect();
    let x = weights.iter().fold(start.clone(), |x, weight| ops::qlinear(x, weight, None) * 0.01);
    let gradient = start.grad(&x.sum().backward()).unwrap();
    assert_eq!(gradient.dims(), [2, WIDTH]);
    println!("\ngrown by {} KiB", peak_kib().unwrap() - before);
}

/// Greatest resident memory of this process so far, where the system says it.
fn peak_kib() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
