use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::DType;

use super::*;

fn config() -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "llama", "vocab_size": 16, "hidden_size": 12, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 8,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu"
    });
    ModelConfig::from_hf_json(&json.to_string()).unwrap()
}

fn device() -> Device {
    Device::flex()
}

/// New tokens of which each has its value in every channel of head 1, and half of it in head 0.
fn tokens(values: &[f32]) -> Tensor<3> {
    let of_head = |factor: f32| values.iter().map(move |value| value * factor);
    let flat: Vec<f32> = of_head(0.5).zip(of_head(1.0)).flat_map(|(a, b)| [[a; 6], [b; 6]]).flatten().collect();
    Tensor::from_data(TensorData::new(flat, [values.len(), 2, 6]), &device())
}

/// Writes keys `values`, and values that are 100 more, in every layer.
fn append(cache: &mut KvCache, layout: &Layout, [b, t]: [usize; 2], values: &[f32]) {
    let placed = cache.place([b, t], layout, &device());
    for layer in 0..3 {
        cache.write(layer, tokens(values), tokens(values) + 100.0, &placed);
    }
    cache.advance(t);
}

/// Channel 5 of head 1 of the first `t` slots of a page: keys, which are those of every layer.
fn held(cache: &KvCache, page: usize, t: usize) -> Vec<f32> {
    let channel = |held: &Held, head: usize| -> Vec<f32> {
        let page = held.get().page(page, cache.page_len).slice([0..t, head..head + 1, 5..6]);
        page.reshape([t]).into_data().try_to_vec().unwrap()
    };
    let keys = channel(&cache.layers[0].keys, 1);
    for layer in &cache.layers {
        assert_eq!(channel(&layer.keys, 1), keys);
        let (halves, values) = (channel(&layer.keys, 0), channel(&layer.values, 1));
        for ((key, half), value) in keys.iter().zip(halves).zip(values) {
            assert!((key - 2.0 * half).abs() <= 1e-4 * key.abs(), "{key} {half}");
            assert!(value == 0.0 || (key + 100.0 - value).abs() <= 1e-4 * value, "{key} {value}");
        }
    }
    keys
}

fn near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5 * expected.abs(), "{found} for {expected}");
    }
}

#[test]
fn bytes_are_counted_by_hand() {
    // keys and values, 3 layers, 5 rows, 2 heads, 7 tokens, 6 channels, 4 or 2 bytes
    assert_eq!(KvCache::bytes(&config(), 5, 7, KvElement::F32), 2 * 3 * 5 * 2 * 7 * 6 * 4);
    assert_eq!(KvCache::bytes(&config(), 5, 7, KvElement::BF16), 2 * 3 * 5 * 2 * 7 * 6 * 2);
    // 6 codes fill two words, and a scale
    assert_eq!(KvCache::bytes(&config(), 5, 7, KvElement::Int8), 2 * 3 * 5 * 2 * 7 * (8 + 4));
    assert_eq!(KvCache::page_bytes(&config(), 16, KvElement::F16), 2 * 3 * 2 * 16 * 6 * 2);
}

#[test]
fn bytes_are_those_of_the_tensors() {
    for element in KvElement::ALL {
        let cache = KvCache::paged(&config(), 5, 7, element, &device());
        let bytes = |held: &Held| match held.get() {
            Store::Float(x) => x.shape().num_elements() * x.dtype().size(),
            Store::Int8 { codes_ugw, scales_ug1 } => {
                4 * (codes_ugw.shape().num_elements() + scales_ug1.shape().num_elements())
            }
        };
        let all: usize = cache.layers.iter().map(|layer| bytes(&layer.keys) + bytes(&layer.values)).sum();
        assert_eq!(all as u64, 5 * KvCache::page_bytes(&config(), 7, element), "{element}");
    }
}

#[test]
fn elements_have_words() {
    for element in KvElement::ALL {
        assert_eq!(element.word().parse(), Ok(element));
    }
    let error = "int4".parse::<KvElement>().unwrap_err().to_string();
    assert_eq!(error, "`int4` is not an element of a KV cache; expected f32, bf16, f16 or int8");
    assert_eq!(KvElement::of(DType::F16), KvElement::F16);
}

#[test]
fn what_was_appended_stays_and_truncation_forgets_the_rest() {
    for element in KvElement::ALL {
        let mut cache = KvCache::new(&config(), 2, 6, element, &device());
        let add = |cache: &mut KvCache, from: usize, t: usize| {
            let values: Vec<f32> = (0..2 * t).map(|i| (from + i % t) as f32).collect();
            append(cache, &Layout::contiguous(0, t, &device()), [2, t], &values);
            held(cache, 1, cache.len())
        };
        assert!(cache.is_empty() && cache.rows() == 2 && cache.capacity() == 6 && cache.element() == element);
        near(&add(&mut cache, 1, 4), &[1.0, 2.0, 3.0, 4.0]);
        cache.truncate(1);
        near(&add(&mut cache, 20, 2), &[1.0, 20.0, 21.0]);
        assert_eq!(cache.len(), 3);
        cache.reset();
        near(&add(&mut cache, 30, 6), &[30.0, 31.0, 32.0, 33.0, 34.0, 35.0]);
    }
}

#[test]
fn selected_rows_are_copies_in_the_order_asked_for() {
    for element in KvElement::ALL {
        let mut cache = KvCache::new(&config(), 2, 3, element, &device());
        assert_eq!(cache.select(&[1, 0, 0], 5).rows(), 3);
        append(&mut cache, &Layout::contiguous(0, 3, &device()), [2, 3], &[1.0, 2.0, 3.0, 5.0, 6.0, 7.0]);
        let mut selected = cache.select(&[1, 0, 1], 5);
        assert_eq!((selected.rows(), selected.len(), selected.capacity()), (3, 3, 5));
        append(&mut selected, &Layout::contiguous(3, 1, &device()), [3, 1], &[9.0, 10.0, 11.0]);
        near(&held(&selected, 0, 4), &[5.0, 6.0, 7.0, 9.0]);
        near(&held(&selected, 1, 4), &[1.0, 2.0, 3.0, 10.0]);
        near(&held(&selected, 2, 4), &[5.0, 6.0, 7.0, 11.0]);
    }
}

fn segment(past: usize, tokens: usize, pages: &[u32]) -> Segment {
    Segment { past, tokens, pages: pages.to_vec() }
}

#[test]
fn tokens_of_segments_go_to_the_slots_of_their_pages() {
    for element in KvElement::ALL {
        let mut cache = KvCache::paged(&config(), 5, 2, element, &device());
        let layout = Layout::ragged(vec![segment(1, 3, &[4, 1]), segment(0, 1, &[2])], &device());
        append(&mut cache, &layout, [4, 1], &[1.0, 2.0, 3.0, 4.0]);
        near(&held(&cache, 4, 2)[1..], &[1.0]);
        near(&held(&cache, 1, 2), &[2.0, 3.0]);
        near(&held(&cache, 2, 2)[..1], &[4.0]);
        cache.copy_page(1, 0);
        // Page 7 lies behind and is not there: nothing of it is written.
        append(&mut cache, &Layout::ragged(vec![segment(3, 1, &[7, 1])], &device()), [1, 1], &[9.0]);
        near(&held(&cache, 0, 2), &[2.0, 3.0]);
        near(&held(&cache, 1, 2), &[2.0, 9.0]);
        assert!(cache.is_paged() && cache.is_empty());
    }
}

#[test]
fn int8_keeps_each_head_to_half_a_step_of_its_own_scale() {
    let mut cache = KvCache::paged(&config(), 1, 1, KvElement::Int8, &device());
    let heads = [[1.0, -127.0, 0.4, 63.5, -63.6, 126.6], [0.001, 0.0, -0.002, 0.0005, 0.00127, -0.0]];
    let new = Tensor::<3>::from_data(TensorData::new(heads.concat(), [1, 2, 6]), &device());
    let placed = cache.place([1, 1], &Layout::ragged(vec![segment(0, 1, &[0])], &device()), &device());
    cache.write(0, new, Tensor::zeros([1, 2, 6], &device()), &placed);
    let page = |held: &Held| held.get().page(0, 1).into_data().try_to_vec::<f32>().unwrap();
    // Rows of two words: six numbers, and two codes that stand for nothing.
    let found = page(&cache.layers[0].keys);
    near(&found[..6], &[1.0, -127.0, 0.0, 64.0, -64.0, 127.0]);
    for (found, exact) in found[8..14].iter().zip(heads[1]) {
        assert!((found - exact).abs() <= 0.5001 * 0.002 / 127.0, "{found} for {exact}");
    }
    assert!(page(&cache.layers[0].values).iter().all(|x| *x == 0.0));
}

#[test]
fn misuse_panics_with_both_numbers() {
    let device = device();
    let text = |call: &mut dyn FnMut()| {
        let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        let owned = panic.downcast_ref::<String>().cloned();
        owned.unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
    };
    let mut cache = KvCache::new(&config(), 2, 6, KvElement::F32, &device);
    let place = |cache: &KvCache, size, layout: &Layout| drop(cache.place(size, layout, &device));
    let plain = Layout::contiguous(0, 1, &device);
    assert_eq!(text(&mut || place(&cache, [3, 1], &plain)), "a KV cache of 2 rows got 3");
    assert_eq!(text(&mut || place(&cache, [2, 7], &plain)), "a KV cache of 6 tokens holds 0 and got 7 more");
    place(&cache, [2, 6], &plain);
    assert_eq!(text(&mut || cache.truncate(1)), "truncating a KV cache of 0 tokens to 1");
    let mut paged = KvCache::paged(&config(), 3, 2, KvElement::F32, &device);
    let ragged = |past, tokens, pages: &[u32]| Layout::ragged(vec![segment(past, tokens, pages)], &device);
    assert_eq!(text(&mut || place(&paged, [1, 1], &plain)), "a paged KV cache needs a layout of segments");
    let layout = ragged(0, 1, &[0]);
    assert_eq!(text(&mut || place(&cache, [1, 1], &layout)), "a layout of segments for a contiguous KV cache");
    assert_eq!(text(&mut || place(&paged, [2, 1], &layout)), "segments of 1 tokens for a pass of 2");
    assert_eq!(text(&mut || place(&paged, [2, 1], &ragged(1, 2, &[0]))), "1 pages of 2 slots for 3 tokens");
    assert_eq!(text(&mut || place(&paged, [1, 1], &ragged(2, 1, &[0, 3]))), "page 3 of a KV cache of 3 pages");
    assert_eq!(text(&mut || paged.copy_page(0, 5)), "page 5 of a KV cache of 3 pages");
    assert_eq!(text(&mut || drop(paged.select(&[0], 2))), "rows of a paged KV cache");
}
