//! Compares the reader's packing with that of `fornax_data`, and what a decoder makes of his rows.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::{Batch, Example};
use fornax_learn::burn::tensor::Tensor;
use fornax_learn::fornax_data::{batches, examples, packing};
use fornax_learn::fornax_model::ops::{self, AttentionMask};
use fornax_learn::fornax_model::{Decoder, Layout, ModelConfig, token_tensor};
use fornax_learn::{Checks, Mistake, Outcome, compare, device, tensor, values};

/// Lengths of which some are equal, and which the usual other rules pack worse.
const LENGTHS: [usize; 14] = [7, 5, 6, 8, 1, 4, 9, 8, 5, 9, 2, 5, 9, 5];
const CAPACITY: usize = 12;
/// Columns of the packed row that is looked at: two more than it needs.
const T: usize = 16;
const VOCABULARY: usize = 23;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("best_fit: 14 lengths in rows of 12", rows);
    checks.run("best_fit: every example once, no row too long", holds);
    checks.run("pack: three examples in a row of 16", fields);
    checks.run("pack: the loss of the row is that of its examples alone", loss);
    checks.run("sees: who looks at whom", sight);
    checks.finish()
}

/// Three examples, the head of each not trained.
fn examples() -> Vec<Example> {
    let one = |n: usize, head: usize, add: u32| Example {
        ids: (0..n as u32).map(|i| (i * 7 + add) % VOCABULARY as u32).collect(),
        trained: (0..n).map(|i| i >= head).collect(),
    };
    vec![one(6, 2, 3), one(4, 0, 11), one(7, 4, 5)]
}

fn fornax_examples() -> Vec<examples::Example> {
    let one =
        |(row, example): (u64, Example)| examples::Example { ids: example.ids, trained: example.trained, row };
    (1..).zip(examples()).map(one).collect()
}

/// How full each row is, the fullest at the front. It does not depend on how ties are broken.
fn fills(rows: &[Vec<usize>]) -> Vec<f32> {
    let mut fills: Vec<usize> = rows.iter().map(|row| row.iter().map(|&i| LENGTHS[i]).sum()).collect();
    fills.sort_unstable_by(|a, b| b.cmp(a));
    fills.into_iter().map(|fill| fill as f32).collect()
}

/// Packs with other rules: the order in which examples come, and which row is taken (room before, length).
fn packed_by(decreasing: bool, better: fn(usize, usize) -> bool, all_rows: bool) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..LENGTHS.len()).collect();
    if decreasing {
        order.sort_by_key(|&i| std::cmp::Reverse(LENGTHS[i]));
    }
    let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
    for i in order {
        let mut best: Option<usize> = None;
        let from = if all_rows { 0 } else { rows.len().saturating_sub(1) };
        for at in from..rows.len() {
            if rows[at].0 >= LENGTHS[i] && best.is_none_or(|b| better(rows[at].0, rows[b].0)) {
                best = Some(at);
            }
        }
        match best {
            Some(at) => {
                rows[at].0 -= LENGTHS[i];
                rows[at].1.push(i);
            }
            None => rows.push((CAPACITY - LENGTHS[i], vec![i])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

fn rows() -> Outcome {
    let plan = packing::Plan::new(&LENGTHS, CAPACITY, 7, 0);
    let expected: Vec<Vec<usize>> =
        plan.rows().iter().map(|row| row.iter().map(|&i| i as usize).collect()).collect();
    let found = answer::best_fit(&LENGTHS, CAPACITY);
    if found.concat().iter().any(|&i| i >= LENGTHS.len()) {
        return Err(format!(
            "the rows hold lengths, or numbers of no example; indices below {} are wanted",
            LENGTHS.len()
        ));
    }
    let (tighter, any, wider) = (|a, b| a < b, |_, _| false, |a, b| a > b);
    let alone: Vec<Vec<usize>> = (0..LENGTHS.len()).map(|i| vec![i]).collect();
    let mistakes: [Mistake<'_>; 6] = [
        (
            "the examples go in the order they came; the longest goes before",
            fills(&packed_by(false, tighter, true)),
        ),
        ("the earliest row that has room is taken; the fullest is wanted", fills(&packed_by(true, any, true))),
        ("the emptiest row is taken; the fullest is wanted", fills(&packed_by(true, wider, true))),
        ("only the last row is tried; an earlier one may fit", fills(&packed_by(true, any, false))),
        ("the earliest row that has room is taken, in the order they came", fills(&packed_by(false, any, true))),
        ("each example has a row of its own", fills(&alone)),
    ];
    compare(&fills(&found), &fills(&expected), 0.0, &mistakes).map_err(|message| {
        format!(
            "how full the rows are, the fullest at the front: {message}; you have {} rows, Fornax {}",
            found.len(),
            expected.len()
        )
    })
}

fn holds() -> Outcome {
    for (lengths, capacity) in [(&LENGTHS[..], CAPACITY), (&[5, 5, 5], 5), (&[1; 9], 4), (&[], 3)] {
        let rows = answer::best_fit(lengths, capacity);
        let mut all: Vec<usize> = rows.concat();
        all.sort_unstable();
        if all != (0..lengths.len()).collect::<Vec<_>>() {
            return Err(format!(
                "of {} examples, the rows hold {all:?}: each is to stand in one row",
                lengths.len()
            ));
        }
        let length = |row: &Vec<usize>| row.iter().map(|&i| lengths[i]).sum::<usize>();
        if let Some(row) = rows.iter().find(|row| length(row) > capacity) {
            return Err(format!("the row {row:?} has {} tokens, {capacity} fit", length(row)));
        }
        if rows.iter().any(Vec::is_empty) {
            return Err("a row without an example".into());
        }
    }
    Ok("four sets of lengths".into())
}

fn answered() -> Batch {
    answer::pack(&examples().iter().collect::<Vec<_>>(), T)
}

fn fields() -> Outcome {
    let all = fornax_examples();
    let expected = batches::Batch::packed(&[all.iter().collect()], T);
    let found = answered();
    let words = |values: &[u32]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
    let marks = |values: &[bool]| values.iter().map(|&value| f32::from(value)).collect::<Vec<f32>>();
    let named = |name: &str, outcome: Outcome| outcome.map_err(|message| format!("{name}: {message}"));

    let (inputs, n) = (&expected.inputs, T);
    let whole: Vec<f32> = all.iter().flat_map(|e| e.ids.iter().map(|&id| id as f32)).take(n).collect();
    named(
        "inputs",
        compare(
            &words(&found.inputs),
            &words(inputs),
            0.0,
            &[("the last id of each example is an input too; nothing is predicted from it", whole)],
        ),
    )?;
    let mut shifted = words(&inputs[1..]);
    shifted.push(0.0);
    named(
        "targets",
        compare(
            &words(&found.targets),
            &words(&expected.targets),
            0.0,
            &[
                (
                    "the row is shifted as a whole: the last target of an example is the opening of the next one",
                    shifted,
                ),
                ("the targets are the inputs themselves; they stand one id further on", words(inputs)),
            ],
        ),
    )?;
    let unshifted: Vec<f32> =
        all.iter().flat_map(|e| marks(&e.trained[..e.trained.len() - 1])).chain([0.0; T]).take(n).collect();
    let used = expected.inputs.len() - T + all.iter().map(|e| e.ids.len() - 1).sum::<usize>();
    let everything: Vec<f32> = (0..n).map(|i| f32::from(i < used)).collect();
    let mut padding = marks(&expected.mask);
    padding[used..].fill(1.0);
    named(
        "mask",
        compare(
            &marks(&found.mask),
            &marks(&expected.mask),
            0.0,
            &[
                ("the mask is that of the inputs; it belongs to the targets, one id further on", unshifted),
                ("every target counts; the heads of the examples do not", everything),
                ("padding counts", padding),
            ],
        ),
    )?;
    let straight: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let mut from_zero = words(&expected.positions);
    (used..n).for_each(|i| from_zero[i] = (i - used) as f32);
    named(
        "positions",
        compare(
            &words(&found.positions),
            &words(&expected.positions),
            0.0,
            &[
                ("the positions run through the row; they begin at 0 in each example", straight),
                ("the positions begin again in padding; it goes on behind the last example", from_zero),
            ],
        ),
    )?;
    let documents = expected.documents.as_deref().unwrap_or_default();
    let mut own = words(documents);
    own[used..].fill(all.len() as f32);
    named(
        "documents",
        compare(
            &words(&found.documents),
            &words(documents),
            0.0,
            &[
                ("the whole row is one document: the examples see each other", vec![0.0; n]),
                ("the examples all have number 0: they see each other", {
                    (0..n).map(|i| if i < used { 0.0 } else { documents[i] as f32 }).collect()
                }),
                ("the documents count from 1", documents.iter().map(|d| *d as f32 + 1.0).collect()),
                ("padding is a document of its own; it belongs to the last", own),
            ],
        ),
    )
}

fn decoder() -> Decoder {
    let config = ModelConfig {
        vocab_size: VOCABULARY,
        width: 12,
        n_heads: 3,
        n_kv_heads: 1,
        head_dim: 4,
        ffn_width: 20,
        context: T,
        init_std: 0.5,
        ..ModelConfig::llama(2)
    };
    Decoder::init(&config, 7, &device())
}

/// The summed loss of a row: what each target that counts costs.
fn summed(decoder: &Decoder, batch: &Batch, layout: &Layout) -> f32 {
    let hidden = decoder.forward(token_tensor(&batch.inputs, 1, &device()), layout, None);
    let nll = values(decoder.token_nll(hidden, token_tensor(&batch.targets, 1, &device())));
    nll.iter().zip(&batch.mask).filter(|(_, counts)| **counts).map(|(nll, _)| nll).sum()
}

fn packed_layout(batch: &Batch) -> Layout {
    Layout::packed(&batch.positions, &batch.documents, 1, &device())
}

fn loss() -> Outcome {
    let decoder = decoder();
    let found = answered();
    if [found.targets.len(), found.mask.len(), found.positions.len(), found.documents.len()] != [T; 4] {
        return Err(format!("the fields of a row of {T} columns have {T} elements each"));
    }
    // Each example by itself, as Fornax pads it.
    let alone = |example: &examples::Example| {
        let batch = batches::Batch::padded(&[example], T);
        let (inputs, targets, mask) = (batch.inputs, batch.targets, batch.mask);
        let batch = Batch { inputs, targets, mask, ..Batch::default() };
        summed(&decoder, &batch, &Layout::contiguous(0, T, &device()))
    };
    let expected: f32 = fornax_examples().iter().map(alone).sum();
    let blind = Batch { documents: vec![0; T], ..found.clone() };
    let mistakes: [Mistake<'_>; 1] = [(
        "the examples see each other: the loss of one depends on what stands beside it",
        vec![summed(&decoder, &blind, &packed_layout(&blind))],
    )];
    compare(&[summed(&decoder, &found, &packed_layout(&found))], &[expected], 1e-5, &mistakes)
}

/// Whom the queries of a packed row look at in Fornax's attention: with equal scores and the identity as values, a key
/// has a weight where it is seen.
fn seen(documents: &[u32]) -> Vec<f32> {
    let t = documents.len();
    let identity: Vec<f32> = (0..t * t).map(|i| f32::from(i / t == i % t)).collect();
    let zeros = || Tensor::<4>::zeros([1, 1, t, t], &device());
    let layout = Layout::packed(&vec![0; t], documents, 1, &device());
    let mask = AttentionMask::new(0, t, None, layout.documents_bt.as_ref(), &device());
    let weights = values(ops::attention(zeros(), zeros(), tensor(&identity, [1, 1, t, t]), &mask, 1.0));
    weights.iter().map(|weight| f32::from(*weight > 0.0)).collect()
}

fn sight() -> Outcome {
    let documents = [0, 0, 0, 1, 2, 2, 2, 2];
    let t = documents.len();
    let all = |sees: &dyn Fn(usize, usize) -> bool| -> Vec<f32> {
        (0..t * t).map(|at| f32::from(sees(at / t, at % t))).collect()
    };
    let same = |i: usize, j: usize| documents[i] == documents[j];
    let mistakes: [Mistake<'_>; 5] = [
        ("an example sees those before it in the row", all(&|i, j| j <= i)),
        ("a token sees those after it in its example", all(&same)),
        ("a token does not see itself", all(&|i, j| j < i && same(i, j))),
        ("query and key are swapped", all(&|i, j| i <= j && same(i, j))),
        ("an example sees those before it and not itself", all(&|i, j| j <= i && !same(i, j))),
    ];
    compare(&all(&|i, j| answer::sees(&documents, i, j)), &seen(&documents), 0.0, &mistakes)
}
