//! Compares the reader's packed weight with `fornax_model::packed`, and what goes through it with `ops::qlinear`.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::{BLOCK, PER_WORD, Packed};
use fornax_learn::burn::tensor::Tensor;
use fornax_learn::fornax_model::ops;
use fornax_learn::fornax_model::packed::{self, Codes, PackedParts, PackedShape, Packing};
use fornax_learn::{Checks, Mistake, Outcome, compare, device, normals, tensor, values};

/// Rows, inputs (three blocks) and outputs; no two equal.
const N: usize = 3;
const INPUTS: usize = 96;
const OUTPUTS: usize = 5;
const TOLERANCE: f32 = 1e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("quantize: the scales", scales);
    checks.run("quantize: eight codes in a word", words);
    checks.run("dequantize: the weight that the codes stand for", dequantized);
    checks.run("forward: 3 rows", forward);
    checks.run("backward: the gradient of x", backward);
    checks.finish()
}

/// Blocks of different size, one of them all zeros.
fn weight() -> Vec<f32> {
    let blocks = normals("weight", OUTPUTS * INPUTS);
    let sized = |(i, w): (usize, f32)| w * if i / BLOCK == 4 { 0.0 } else { 0.5 + (i / BLOCK) as f32 };
    blocks.into_iter().enumerate().map(sized).collect()
}

/// What may be wrong with the packing.
#[derive(Clone, Copy)]
struct Wrong {
    /// Weights that share a scale; with `down`, of a column and not of a row.
    scale: fn(&[f32], usize) -> f32,
    round: fn(f32) -> i32,
    /// Place of code k in its word.
    place: fn(usize) -> usize,
    bits: fn(i32) -> u32,
}

fn greatest(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0f32, |most, w| most.max(w.abs()))
}

fn right() -> Wrong {
    Wrong {
        scale: |w, at| greatest(&w[at / BLOCK * BLOCK..][..BLOCK]) / 7.0,
        round: |x| x.round() as i32,
        place: |k| k,
        bits: |code| code as u32 & 15,
    }
}

fn packed(wrong: Wrong) -> Packed {
    let w = weight();
    let code = |at: usize| {
        let scale = (wrong.scale)(&w, at);
        if scale == 0.0 { 0 } else { (wrong.round)(w[at] / scale) }
    };
    let word = |number: usize| {
        let one = |k: usize| (wrong.bits)(code(number * PER_WORD + k)) << (4 * (wrong.place)(k));
        (0..PER_WORD).map(one).fold(0, |word, bits| word | bits)
    };
    let scales = (0..w.len() / BLOCK).map(|block| (wrong.scale)(&w, block * BLOCK)).collect();
    Packed { inputs: INPUTS, words: (0..w.len() / PER_WORD).map(word).collect(), scales }
}

fn scales() -> Outcome {
    let expected = fornax().scales;
    let of = |scale: fn(&[f32], usize) -> f32| packed(Wrong { scale, ..right() }).scales;
    let mistakes: [Mistake<'_>; 5] = [
        (
            "the greatest value is divided by 8; the greatest code is 7",
            of(|w, at| greatest(&w[at / BLOCK * BLOCK..][..BLOCK]) / 8.0),
        ),
        ("the greatest value is taken with its sign; a great negative weight needs room too", {
            of(|w, at| w[at / BLOCK * BLOCK..][..BLOCK].iter().fold(0.0f32, |most, w| most.max(*w)) / 7.0)
        }),
        (
            "a whole row shares a scale; each block has its own",
            of(|w, at| greatest(&w[at / INPUTS * INPUTS..][..INPUTS]) / 7.0),
        ),
        ("the whole matrix shares a scale; each block has its own", of(|w, _| greatest(w) / 7.0)),
        ("the scale is that of 15 codes from the least to the greatest weight; here 0 stays 0", {
            of(|w, at| {
                let block = &w[at / BLOCK * BLOCK..][..BLOCK];
                let (low, high) =
                    block.iter().fold((0.0f32, 0.0f32), |(low, high), w| (low.min(*w), high.max(*w)));
                (high - low) / 15.0
            })
        }),
    ];
    compare(&answer::quantize(&weight(), INPUTS).scales, &expected, TOLERANCE, &mistakes)
}

fn words() -> Outcome {
    let expected = fornax();
    let found = answer::quantize(&weight(), INPUTS);
    if found.words == expected.words {
        return Ok(format!("{} words, all equal", expected.words.len()));
    }
    let right = right();
    let mistakes = [
        ("the codes are cut off, not rounded", Wrong { round: |x| x as i32, ..right }),
        ("the codes are rounded down, not to the nearest", Wrong { round: |x| x.floor() as i32, ..right }),
        ("the lowest input stands in the highest bits", Wrong { place: |k| PER_WORD - 1 - k, ..right }),
        (
            "8 is added to the codes; they stand as two's complement",
            Wrong { bits: |code| (code + 8) as u32, ..right },
        ),
        ("the sign stands in a bit of its own; two's complement is wanted", {
            Wrong { bits: |code| code.unsigned_abs() | u32::from(code < 0) << 3, ..right }
        }),
        (
            "negative codes spill into the bits of the next ones: keep four bits of each",
            Wrong { bits: |code| code as u32, ..right },
        ),
        ("negative weights became 0", Wrong { round: |x| x.round().max(0.0) as i32, ..right }),
    ];
    for (sentence, wrong) in mistakes {
        let wrong = packed(wrong).words;
        assert!(wrong != expected.words, "this check cannot see that {sentence}");
        if wrong == found.words {
            return Err(sentence.into());
        }
    }
    if found.words.len() != expected.words.len() {
        return Err(format!("{} words came, {} are expected", found.words.len(), expected.words.len()));
    }
    let at = (0..).find(|&at| found.words[at] != expected.words[at]).unwrap_or(0);
    Err(format!("word {at} is {:08x}, Fornax has {:08x}", found.words[at], expected.words[at]))
}

/// What the codes stand for, read with a mistake: (four bits, index of the weight, scales).
fn read(value: fn(u32, usize, &[f32]) -> f32, order: fn(usize) -> usize) -> Vec<f32> {
    let packed = fornax();
    let bits = |at: usize| packed.words[at / PER_WORD] >> (4 * order(at % PER_WORD)) & 15;
    (0..packed.words.len() * PER_WORD).map(|at| value(bits(at), at, &packed.scales)).collect()
}

fn code(bits: u32) -> f32 {
    if bits < 8 { bits as f32 } else { bits as f32 - 16.0 }
}

fn dequantized() -> Outcome {
    let expected = fornax_weight();
    let same: fn(usize) -> usize = |k| k;
    let mistakes: [Mistake<'_>; 6] = [
        (
            "the sign is lost: 8 to 15 stand for -8 to -1",
            read(|bits, at, scales| bits as f32 * scales[at / BLOCK], same),
        ),
        (
            "8 is subtracted from the codes; they stand as two's complement",
            read(|bits, at, scales| (bits as f32 - 8.0) * scales[at / BLOCK], same),
        ),
        ("the scale is missing", read(|bits, _, _| code(bits), same)),
        (
            "the codes of a word are read from the wrong end",
            read(|bits, at, scales| code(bits) * scales[at / BLOCK], |k| 7 - k),
        ),
        (
            "one scale a row is read; there is one a block",
            read(|bits, at, scales| code(bits) * scales[at / INPUTS * (INPUTS / BLOCK)], same),
        ),
        ("the scales are counted by rows; there is one a block", {
            read(|bits, at, scales| code(bits) * scales[at / INPUTS], same)
        }),
    ];
    compare(&answer::dequantize(&fornax()), &expected, TOLERANCE, &mistakes)
}

fn forward() -> Outcome {
    let x = normals("x", N * INPUTS);
    let expected = fornax_forward(&x);
    let dense = values(ops::linear(tensor(&x, [N, INPUTS]), tensor(&weight(), [OUTPUTS, INPUTS]), None));
    let mistakes: [Mistake<'_>; 1] = [("this is the product with the weight before it was rounded", dense)];
    compare(&answer::forward(&x, &fornax()), &expected, TOLERANCE, &mistakes)
}

fn backward() -> Outcome {
    let dy = normals("dy", N * OUTPUTS);
    let expected = fornax_backward(&dy);
    let of = |w: Vec<f32>, dy: &[f32]| values(tensor(dy, [N, OUTPUTS]).matmul(tensor(&w, [OUTPUTS, INPUTS])));
    let mut shuffled = fornax_weight();
    shuffled = values(tensor(&shuffled, [INPUTS, OUTPUTS]).transpose());
    let signs: Vec<f32> = dy.iter().map(|dy| dy.round()).collect();
    let without_scales = read(|bits, _, _| code(bits), |k| k);
    let mut first = of(fornax_weight(), &dy);
    first[INPUTS..].fill(0.0);
    let mistakes: [Mistake<'_>; 6] = [
        (
            "this is the gradient through the weight before it was rounded; forward has used the codes",
            of(weight(), &dy),
        ),
        ("the weight is read as [in, out]; it is [out, in], and dx = dy W without a transpose", of(shuffled, &dy)),
        ("dy is rounded; only the weight is", of(fornax_weight(), &signs)),
        ("the scales are missing", of(without_scales, &dy)),
        ("only the gradient of the first row is there", first),
        ("rounding has no derivative, but x is not rounded: dx is not 0", vec![0.0; N * INPUTS]),
    ];
    compare(&answer::backward(&dy, &fornax()), &expected, TOLERANCE, &mistakes)
}

fn shape() -> PackedShape {
    let packing = Packing::new(Codes::Int4, BLOCK).expect("a block of whole words");
    PackedShape { out: OUTPUTS, input: INPUTS, packing }
}

/// Fornax's packing of the weight.
fn fornax() -> Packed {
    let PackedParts { words, scales, .. } = PackedParts::round(&weight(), shape());
    Packed { inputs: INPUTS, words, scales }
}

/// The same on the device.
fn on_device() -> packed::Packed {
    packed::Packed::round(tensor(&weight(), [OUTPUTS, INPUTS]), shape().packing)
}

fn fornax_weight() -> Vec<f32> {
    values(on_device().dequantized())
}

fn fornax_forward(x: &[f32]) -> Vec<f32> {
    values(ops::qlinear(tensor(x, [N, INPUTS]), &on_device(), None))
}

fn fornax_backward(dy: &[f32]) -> Vec<f32> {
    let x = Tensor::<2>::zeros([N, INPUTS], &device()).autodiff().require_grad();
    let y = ops::qlinear(x.clone(), &on_device(), None);
    let gradients = (y * tensor(dy, [N, OUTPUTS]).autodiff()).sum().backward();
    values(x.grad(&gradients).expect("a gradient of x"))
}
