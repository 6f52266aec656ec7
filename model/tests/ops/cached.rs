//! Attention over the slots of a cache: hand numbers, the kernels against the composed body, and independence of the
//! company.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, s};
use fornax_base::rng::rng;
use fornax_model::KvElement;
use fornax_model::ops::{self, CacheOperand, Segment, Segments};

use crate::check::{devices, normals, tensor, values};
use crate::kernels::compare;

/// An empty store of u slots.
fn store(element: KvElement, [u, g, d]: [usize; 3], device: &Device) -> CacheOperand<Dispatch> {
    match element.dtype() {
        Some(dtype) => CacheOperand::Float(Tensor::<3>::zeros([u, g, d], (device, dtype)).into_dispatch()),
        None => CacheOperand::Int8 {
            codes: Tensor::<3, Int>::zeros([u, g, d.div_ceil(4)], (device, DType::U32)).into_dispatch(),
            scales: Tensor::<3>::zeros([u, g, 1], (device, DType::F32)).into_dispatch(),
        },
    }
}

/// A store whose slots hold `values`, one after the other.
fn filled(element: KvElement, shape: [usize; 3], values: &[f32], device: &Device) -> CacheOperand<Dispatch> {
    let slots: Vec<i32> = (0..shape[0] as i32).collect();
    let slots = Tensor::<1, Int>::from_data(slots.as_slice(), device);
    ops::write_slots(store(element, shape, device), tensor(values, DType::F32, device).reshape(shape), slots)
}

fn segment(past: usize, tokens: usize, pages: &[u32]) -> Segment {
    Segment { past, tokens, pages: pages.to_vec() }
}

fn segments(page_len: usize, list: Vec<Segment>) -> Arc<Segments> {
    Arc::new(Segments { page_len, list: Arc::new(list) })
}

/// As in the hand numbers of attention: keys 0 and ln 3, values 1 and 5, in slots 2 and 0.
#[test]
fn attention_of_two_slots_in_disorder() {
    for device in devices() {
        let elements = KvElement::ALL.into_iter().filter(|e| e.dtype().is_none_or(|d| device.supports_dtype(d)));
        for element in elements {
            let keys = filled(element, [3, 1, 1], &[3.0f32.ln(), 9.0, 0.0], &device);
            let vals = filled(element, [3, 1, 1], &[5.0, 9.0, 1.0], &device);
            // Two query heads of one group.
            let attend = |q: &[f32], segments: &Arc<Segments>, window| {
                let q = tensor(q, DType::F32, &device).reshape([q.len() / 2, 2, 1]);
                values(ops::cached_attention(q, keys.clone(), vals.clone(), segments, window, 1.0))
            };
            let near = |found: &[f32], expected: &[f32]| {
                let tolerance = if element == KvElement::F32 { 1e-5 } else { 1e-2 };
                assert!(found.len() == expected.len());
                let off = found.iter().zip(expected).any(|(a, b)| (a - b).abs() > tolerance);
                assert!(!off, "{element}: {found:?} for {expected:?}");
            };
            let prompt = segments(1, vec![segment(0, 2, &[2, 0])]);
            near(&attend(&[1.0, -1.0, 1.0, -1.0], &prompt, None), &[1.0, 1.0, 4.0, 2.0]);
            near(&attend(&[1.0, -1.0, 1.0, -1.0], &prompt, Some(1)), &[1.0, 1.0, 5.0, 5.0]);
            let last = segments(1, vec![segment(1, 1, &[2, 0])]);
            near(&attend(&[1.0, -1.0], &last, None), &[4.0, 2.0]);
            // Behind a window of one, a page may be any number.
            near(&attend(&[1.0, -1.0], &segments(1, vec![segment(1, 1, &[77, 0])]), Some(1)), &[5.0, 5.0]);
            let both = segments(1, vec![segment(1, 1, &[2, 0]), segment(0, 1, &[0])]);
            near(&attend(&[1.0, -1.0, 1.0, -1.0], &both, None), &[4.0, 2.0, 5.0, 5.0]);
        }
    }
}

/// Segments of these pasts and tokens, in pages of their own that lie in disorder; and how many pages.
fn disorder(page_len: usize, sizes: &[[usize; 2]]) -> (Arc<Segments>, usize) {
    let of = |[past, tokens]: &[usize; 2]| (past + tokens).div_ceil(page_len);
    let total: usize = sizes.iter().map(of).sum();
    let mut order: Vec<u32> = (0..total as u32).collect();
    let mut random = rng(1, 0, "order");
    (1..total).for_each(|i| order.swap(i, random.below(i as u64 + 1) as usize));
    let list = sizes.iter().map(|size| segment(size[0], size[1], &order.drain(..of(size)).collect::<Vec<_>>()));
    (segments(page_len, list.collect()), total)
}

#[test]
fn kernels_are_the_composed_body() {
    let device = Device::flex();
    let decode: &[[usize; 2]] = &[[0, 1], [6, 1], [699, 1], [255, 1], [256, 1]];
    let mixed: &[[usize; 2]] = &[[3, 70], [700, 1], [0, 5], [260, 33], [511, 2]];
    let shapes = [
        // page_len, query heads, key-value heads, channels, window
        (1, 2, 2, 3, None, decode),
        (16, 6, 2, 48, None, mixed),
        (16, 4, 4, 17, Some(5), mixed),
        (7, 9, 3, 64, Some(300), decode),
        (800, 4, 1, 130, None, mixed),
        (300, 3, 3, 80, Some(40), mixed),
    ];
    for (page_len, h, g, d, window, sizes) in shapes {
        let (segments, pages) = disorder(page_len, sizes);
        let shape = [pages * page_len, g, d];
        let (elements, tokens) = (shape.iter().product(), sizes.iter().map(|size| size[1]).sum::<usize>());
        let [keys, vals] = ["keys", "values"].map(|name| normals(name, elements));
        for element in KvElement::ALL {
            compare(&format!("{element}, {h} on {g} heads of {d}, pages of {page_len}"), &|| {
                let [keys, vals] = [&keys, &vals].map(|x| filled(element, shape, x, &device));
                let q = tensor(&normals("q", tokens * h * d), DType::F32, &device).reshape([tokens, h, d]);
                let scale = 1.0 / (d as f32).sqrt();
                vec![values(ops::cached_attention(q, keys, vals, &segments, window, scale))]
            });
        }
    }
}

#[test]
fn a_segment_gives_the_same_bits_in_any_company() {
    let (device, [h, g, d]) = (Device::flex(), [6, 2, 40]);
    let sizes = [[3, 20], [300, 1], [0, 7], [17, 1], [5, 90]];
    let (all, pages) = disorder(8, &sizes);
    let tokens: usize = sizes.iter().map(|size| size[1]).sum();
    let q = tensor(&normals("q", tokens * h * d), DType::F32, &device).reshape([tokens, h, d]);
    for element in KvElement::ALL {
        let [keys, vals] = ["keys", "values"]
            .map(|name| filled(element, [pages * 8, g, d], &normals(name, pages * 8 * g * d), &device));
        let attend = |q: Tensor<3>, segments: &Arc<Segments>| {
            values(ops::cached_attention(q, keys.clone(), vals.clone(), segments, None, 0.3))
        };
        let together = attend(q.clone(), &all);
        let mut from = 0;
        for one in all.list.iter() {
            let to = from + one.tokens;
            let alone = attend(q.clone().slice(s![from..to]), &segments(8, vec![one.clone()]));
            assert_eq!(alone, together[from * h * d..to * h * d], "{element}");
            from = to;
        }
    }
}

#[test]
fn a_row_of_a_product_gives_the_same_bits_among_others() {
    let device = Device::flex();
    for [i, o] in [[7, 5], [48, 33], [288, 770], [300, 1000]] {
        let x = tensor(&normals("x", 31 * i), DType::F32, &device).reshape([31, i]);
        let w = tensor(&normals("w", o * i), DType::F32, &device).reshape([o, i]);
        let product = |from: usize, to: usize| values(ops::linear(x.clone().slice(s![from..to]), w.clone(), None));
        let all = product(0, 31);
        for [from, to] in [[0, 1], [30, 31], [3, 5], [8, 11], [1, 5], [0, 16], [20, 27]] {
            assert_eq!(product(from, to), all[from * o..to * o], "rows {from}..{to} of {i} -> {o}");
        }
    }
}

#[test]
fn a_number_that_is_none_is_not_rounded_away() {
    let device = Device::flex();
    for element in KvElement::ALL {
        for bad in [f32::NAN, f32::INFINITY] {
            let keys = filled(element, [1, 1, 4], &[1.0, bad, 0.0, 2.0], &device);
            let vals = filled(element, [1, 1, 4], &[1.0, bad, 0.0, 2.0], &device);
            let q = tensor(&[1.0; 4], DType::F32, &device).reshape([1, 1, 4]);
            let segments = segments(1, vec![segment(0, 1, &[0])]);
            let out = values(ops::cached_attention(q, keys, vals, &segments, None, 1.0));
            assert!(out.iter().any(|x| !x.is_finite()), "{element}: {bad} gives {out:?}");
        }
    }
}

#[test]
fn a_query_that_wants_a_gradient_is_refused() {
    let device = Device::flex();
    let cache = filled(KvElement::F32, [1, 1, 2], &[1.0, 2.0], &device);
    let q = Tensor::<3>::from_data(TensorData::new(vec![1.0f32, 2.0], [1, 1, 2]), &device);
    let segments = segments(1, vec![segment(0, 1, &[0])]);
    let attend =
        |q: Tensor<3>| values(ops::cached_attention(q, cache.clone(), cache.clone(), &segments, None, 1.0));
    assert_eq!(attend(q.clone().autodiff()), [1.0, 2.0]);
    let panic = catch_unwind(AssertUnwindSafe(|| attend(q.autodiff().require_grad()))).unwrap_err();
    assert!(panic.downcast_ref::<&str>().unwrap().contains("has no backward"));
}
