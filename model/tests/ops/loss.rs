//! Cross-entropy with its head: chunks, masked targets, frozen and tied heads.

use burn::backend::Dispatch;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fornax_model::ops::{self, LlmOps, LossOptions};

use crate::check::{
    COMPOSED_TOLERANCE, Op, assert_same, check, check_bf16, devices, normals, relative, tensor, values,
};

/// A vocabulary so large that a chunk holds 31 rows.
const LARGE_VOCABULARY: usize = 262_145;

fn ints(ids: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(ids.to_vec(), [ids.len()]), device)
}

fn targets(n: usize, v: usize) -> Vec<i32> {
    (0..n).map(|i| ((i * 7919 + 3) % v) as i32).collect()
}

/// Weights with whole runs of zeros, so that chunks of few rows are masked in full.
fn weights(n: usize) -> Vec<f32> {
    (0..n).map(|i| if i % 5 < 2 { 0.0 } else { 0.25 + i as f32 * 0.125 }).collect()
}

/// Neither a z-loss nor a cap.
const PLAIN: [f32; 2] = [0.0, 0.0];
/// z-loss coefficient and softcap: each alone, and both. The coefficient is far above a usual one, so that its
/// share of the gradient is seen; the cap lies where the logits of the tests bend.
const TERMS: [[f32; 2]; 4] = [PLAIN, [0.125, 0.0], [0.0, 2.0], [0.125, 2.0]];

/// The loss with a chosen number of rows in a chunk, as the trait computes it, and the z-loss in it.
fn chunked_pair(
    h: Tensor<2>,
    head: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    rows: usize,
    [z_loss, softcap]: [f32; 2],
) -> (Tensor<1>, Tensor<1>) {
    let tracked = head.is_tracked();
    let (loss, z) = <Dispatch as LlmOps>::cross_entropy(
        h.into_dispatch(),
        head.into_dispatch(),
        targets.into_dispatch(),
        weights.into_dispatch(),
        tracked,
        LossOptions { z_loss, softcap, chunk: rows },
    );
    (Tensor::from_dispatch(loss), Tensor::from_dispatch(z))
}

fn chunked(h: Tensor<2>, head: Tensor<2>, targets: Tensor<1, Int>, weights: Tensor<1>, rows: usize) -> Tensor<1> {
    chunked_pair(h, head, targets, weights, rows, PLAIN).0
}

fn plain(h: Tensor<2>, head: Tensor<2>, targets: Tensor<1, Int>, weights: Tensor<1>) -> Tensor<1> {
    ops::cross_entropy(h, head, targets, weights, 0.0, 0.0).0
}

/// `sum weights * (-log_softmax(logits)[target] + z_loss * logsumexp(logits)^2)`, all logits at once.
fn composed(
    h: Tensor<2>,
    head: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    [z_loss, softcap]: [f32; 2],
) -> Tensor<1> {
    let n = h.dims()[0];
    let mut logits = h.matmul(head.transpose()).cast(DType::F32);
    if softcap != 0.0 {
        logits = (logits / softcap).tanh() * softcap;
    }
    let log_p = log_softmax(logits.clone(), 1);
    // Any column tells log Z: logit - log p.
    let log_z = (logits - log_p.clone()).slice_dim(1, 0..1).reshape([n]);
    let picked = log_p.gather(1, targets.reshape([n, 1])).reshape([n]);
    ((-picked + log_z.clone() * log_z * z_loss) * weights).sum()
}

fn check_case(n: usize, c: usize, v: usize, rows: Option<usize>, terms: [f32; 2], device: &Device) {
    let (targets, weights) = (ints(&targets(n, v), device), tensor(&weights(n), DType::F32, device));
    let shaped = |x: &[Tensor<1>]| (x[0].clone().reshape([n, c]), x[1].clone().reshape([v, c]));
    let run = |x: &[Tensor<1>]| {
        let (hidden, head) = shaped(x);
        let [z_loss, softcap] = terms;
        match rows {
            Some(rows) => chunked_pair(hidden, head, targets.clone(), weights.clone(), rows, terms).0,
            None => ops::cross_entropy(hidden, head, targets.clone(), weights.clone(), z_loss, softcap).0,
        }
    };
    let composed = |x: &[Tensor<1>]| {
        let (hidden, head) = shaped(x);
        composed(hidden, head, targets.clone(), weights.clone(), terms)
    };
    let name = format!("cross_entropy n {n} c {c} v {v} chunk {rows:?} z, cap {terms:?}");
    let op = Op { name, lengths: vec![n * c, v * c], run: &run, composed: &composed };
    check(&op, device);
    check_bf16(&op, DType::F32, device);
}

#[test]
fn cross_entropy_whatever_the_chunk() {
    for device in devices() {
        for (n, c, v) in [(1, 1, 2), (3, 5, 7), (7, 3, 33), (17, 9, 5)] {
            for rows in [Some(1), Some(2), Some(5), Some(100), None] {
                check_case(n, c, v, rows, PLAIN, &device);
            }
            for terms in TERMS {
                check_case(n, c, v, Some(3), terms, &device);
            }
        }
    }
}

#[test]
fn cross_entropy_of_a_large_vocabulary_in_two_chunks() {
    check_case(33, 3, LARGE_VOCABULARY, None, PLAIN, &Device::flex());
}

/// Rows of weight 0 have gradients of exactly zero, and leaving them out changes nothing.
#[test]
fn masked_targets_give_no_loss_and_no_gradient() {
    let (c, v) = (5, 33);
    for device in devices() {
        for (n, rows) in [(7, 1), (7, 3), (17, 4), (17, 100), (10, 5)] {
            let (hidden, head) = (normals("masked hidden", n * c), normals("masked head", v * c));
            let (ids, scale) = (targets(n, v), weights(n));
            let kept: Vec<usize> = (0..n).filter(|&i| scale[i] != 0.0).collect();
            assert!(kept.len() < n && !kept.is_empty());
            let grads = |rows_kept: &[usize], ids: &[i32]| {
                let pick = |x: &[f32]| -> Vec<f32> {
                    rows_kept.iter().flat_map(|&i| x[i * c..(i + 1) * c].to_vec()).collect()
                };
                let m = rows_kept.len();
                let hidden = tensor(&pick(&hidden), DType::F32, &device).reshape([m, c]).autodiff().require_grad();
                let head = tensor(&head, DType::F32, &device).reshape([v, c]).autodiff().require_grad();
                let ids: Vec<i32> = rows_kept.iter().map(|&i| ids[i]).collect();
                let scale: Vec<f32> = rows_kept.iter().map(|&i| scale[i]).collect();
                let (ids, scale) = (ints(&ids, &device), tensor(&scale, DType::F32, &device));
                let loss = chunked(hidden.clone(), head.clone(), ids, scale, rows);
                let grads = loss.backward();
                (values(loss), values(hidden.grad(&grads).unwrap()), values(head.grad(&grads).unwrap()))
            };
            let all: Vec<usize> = (0..n).collect();
            let (loss, dhidden, dhead) = grads(&all, &ids);
            // Other targets under the mask change no bit.
            let other: Vec<i32> =
                (0..n).map(|i| if scale[i] == 0.0 { (ids[i] + 1) % v as i32 } else { ids[i] }).collect();
            let others = grads(&all, &other);
            for (a, b) in [(&others.0, &loss), (&others.1, &dhidden), (&others.2, &dhead)] {
                assert_same(a, b, "other targets under the mask", &device);
            }
            let (kept_loss, kept_dhidden, kept_dhead) = grads(&kept, &ids);
            assert!(
                relative(&loss, &kept_loss) < COMPOSED_TOLERANCE
                    && relative(&dhead, &kept_dhead) < COMPOSED_TOLERANCE
            );
            for (i, row) in dhidden.chunks(c).enumerate() {
                match kept.iter().position(|&k| k == i) {
                    Some(k) => assert!(relative(row, &kept_dhidden[k * c..(k + 1) * c]) < COMPOSED_TOLERANCE),
                    None => assert!(row.iter().all(|&g| g == 0.0), "row {i}: {row:?}"),
                }
            }
        }
    }
}

/// All targets masked: a loss and gradients of zero, not NaN.
#[test]
fn a_batch_masked_in_full_is_zero() {
    for device in devices() {
        let hidden = tensor(&normals("h", 15), DType::F32, &device).reshape([3, 5]).autodiff().require_grad();
        let head = tensor(&normals("w", 35), DType::F32, &device).reshape([7, 5]).autodiff().require_grad();
        let none = tensor(&[0.0; 3], DType::F32, &device);
        let loss = plain(hidden.clone(), head.clone(), ints(&[0, 6, 3], &device), none);
        let grads = loss.backward();
        assert_eq!(values(loss), [0.0]);
        assert!(values(hidden.grad(&grads).unwrap()).iter().all(|&g| g == 0.0));
        assert!(values(head.grad(&grads).unwrap()).iter().all(|&g| g == 0.0));
    }
}

/// `token_nll` weighted and summed is `cross_entropy`, and logits of +-1e4 neither overflow nor vanish.
#[test]
fn token_nll_is_the_loss_of_each_row() {
    for device in devices() {
        for (n, c, v, size) in [(1, 1, 2, 1.0), (17, 5, 33, 1.0), (5, 3, 7, 1e4), (33, 1, LARGE_VOCABULARY, 1.0)] {
            if v == LARGE_VOCABULARY && device != Device::flex() {
                continue;
            }
            let at = |name: &str, n: usize, size: f32| -> Vec<f32> {
                normals(name, n).into_iter().map(|x| x * size).collect()
            };
            let hidden = tensor(&at("nll h", n * c, size), DType::F32, &device).reshape([n, c]);
            let head = tensor(&at("nll w", v * c, 1.0), DType::F32, &device).reshape([v, c]);
            let (ids, scale) = (ints(&targets(n, v), &device), tensor(&weights(n), DType::F32, &device));
            let nll = ops::token_nll(hidden.clone(), head.clone(), ids.clone(), 0.0);
            let loss = plain(hidden.clone(), head.clone(), ids.clone(), scale.clone());
            assert_eq!(nll.dims(), [n]);
            assert!(values(nll.clone()).iter().all(|x| x.is_finite() && *x >= -1e-6));
            assert!(relative(&values((nll.clone() * scale).sum()), &values(loss)) < COMPOSED_TOLERANCE);
            let log_p = log_softmax(hidden.matmul(head.transpose()), 1);
            let expected = -log_p.gather(1, ids.reshape([n, 1])).reshape([n]);
            assert!(relative(&values(nll), &values(expected)) < COMPOSED_TOLERANCE);
        }
    }
}

/// The z-loss is in the loss and stands beside it: loss - z is the plain loss under the same cap, on the plain
/// and on the autodiff device, and `token_nll` knows nothing of z.
#[test]
fn the_z_loss_is_told_apart_and_the_cap_is_one() {
    let (n, c, v) = (17, 5, 33);
    for device in devices() {
        let hidden = tensor(&normals("z h", n * c), DType::F32, &device).reshape([n, c]);
        let head = tensor(&normals("z w", v * c), DType::F32, &device).reshape([v, c]);
        let (ids, scale) = (ints(&targets(n, v), &device), tensor(&weights(n), DType::F32, &device));
        for [z_loss, softcap] in TERMS {
            let pair = |h: Tensor<2>| {
                let (loss, z) = ops::cross_entropy(h, head.clone(), ids.clone(), scale.clone(), z_loss, softcap);
                assert!(!z.is_tracked());
                (values(loss)[0], values(z)[0])
            };
            let (loss, z) = pair(hidden.clone());
            assert_eq!((loss, z), pair(hidden.clone().autodiff().require_grad()));
            assert_eq!(z == 0.0, z_loss == 0.0);
            let nll = ops::token_nll(hidden.clone(), head.clone(), ids.clone(), softcap);
            let sum = values((nll * scale.clone()).sum());
            assert!(relative(&[loss - z], &sum) < COMPOSED_TOLERANCE, "{loss} - {z} against {sum:?}");
            // The cap of `ops::softcap`, which the decoder's logits go through.
            let logits = ops::softcap(hidden.clone().matmul(head.clone().transpose()), softcap);
            let picked = log_softmax(logits, 1).gather(1, ids.clone().reshape([n, 1])).reshape([n]);
            assert!(relative(&[loss - z], &values(-(picked * scale.clone()).sum())) < COMPOSED_TOLERANCE);
        }
    }
}

/// One table used as embedding and as head gets the sum of the gradients of both uses.
#[test]
fn a_tied_table_gets_both_gradients() {
    let (v, c, ids) = (9, 5, [3, 0, 8, 3, 3, 1, 0]);
    for device in devices() {
        let leaf =
            || tensor(&normals("tied", v * c), DType::F32, &device).reshape([v, c]).autodiff().require_grad();
        let loss = |table: Tensor<2>, head: Tensor<2>| {
            let hidden = ops::embedding(table, ints(&ids, &device));
            let scale = tensor(&weights(ids.len()), DType::F32, &device);
            plain(hidden, head, ints(&targets(ids.len(), v), &device), scale)
        };
        let table = leaf();
        let tied = table.grad(&loss(table.clone(), table.clone()).backward()).unwrap();
        let (table, head) = (leaf(), leaf());
        let grads = loss(table.clone(), head.clone()).backward();
        let (of_table, of_head) = (table.grad(&grads).unwrap(), head.grad(&grads).unwrap());
        assert!(values(of_table.clone()).iter().any(|&g| g != 0.0));
        assert!(values(of_head.clone()).iter().any(|&g| g != 0.0));
        assert!(relative(&values(tied), &values(of_table + of_head)) < COMPOSED_TOLERANCE);
    }
}

/// Many chunks in bfloat16: the gradient of the head is a sum over chunks, and must not lose the small
/// parts of late chunks against the large sum.
#[test]
fn many_bf16_chunks_add_up() {
    let (n, c, v) = (301, 5, 7);
    for device in devices() {
        if !device.supports_dtype(DType::BF16) {
            continue;
        }
        // All of one sign, so that the sum grows from chunk to chunk.
        let hidden: Vec<f32> = normals("many h", n * c).iter().map(|x| x.abs()).collect();
        let head = normals("many w", v * c);
        let gradient = |dtype: DType, rows: usize| {
            let leaf = |x: &[f32], shape: [usize; 2]| {
                let x = tensor(x, DType::BF16, &device).cast(dtype);
                x.reshape(shape).autodiff().require_grad()
            };
            let (hidden, head) = (leaf(&hidden, [n, c]), leaf(&head, [v, c]));
            let scale = tensor(&vec![1.0; n], DType::F32, &device);
            let loss = chunked(hidden, head.clone(), ints(&vec![0; n], &device), scale, rows);
            values(head.grad(&loss.backward()).unwrap())
        };
        let exact = gradient(DType::F32, n);
        for rows in [n, 16, 1] {
            let error = relative(&gradient(DType::BF16, rows), &exact);
            println!("bf16 head gradient in chunks of {rows}: off by {error:.1e}");
            assert!(error < 1.0 / 128.0, "chunks of {rows}: {error}");
        }
    }
}
