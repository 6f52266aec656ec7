//! Attention over groups, masks, windows, documents and a past, against repeated keys and a mask written
//! out slot by slot.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use fornax_model::ops::{self, AttentionMask};

use crate::check::{Op, check, check_bf16, devices, tensor, values};

/// One shape with one mask.
struct Case {
    b: usize,
    /// Query heads and key-value heads.
    heads: [usize; 2],
    past: usize,
    t: usize,
    d: usize,
    window: Option<usize>,
    /// Documents of every token, row by row.
    documents: Option<Vec<i32>>,
}

impl Case {
    /// Slot by slot, the rule in words: not the future, not beyond the window, not another document.
    fn hidden(&self, device: &Device) -> Tensor<3, Bool> {
        let (t, s) = (self.t, self.past + self.t);
        let mut hidden = Vec::new();
        for row in 0..self.b {
            for query in self.past..s {
                for key in 0..s {
                    let future = key > query;
                    let too_old = self.window.is_some_and(|window| key + window <= query);
                    let foreign = self.documents.as_ref().is_some_and(|d| d[row * t + query] != d[row * t + key]);
                    hidden.push(future || too_old || foreign);
                }
            }
        }
        Tensor::from_data(TensorData::new(hidden, [self.b, t, s]), device)
    }

    fn mask(&self, device: &Device) -> AttentionMask {
        let documents = self.documents.clone();
        let documents =
            documents.map(|d| Tensor::<2, Int>::from_data(TensorData::new(d, [self.b, self.t]), device));
        AttentionMask::new(self.past, self.t, self.window, documents.as_ref(), device)
    }

    fn shaped(&self, x: &[Tensor<1>]) -> [Tensor<4>; 3] {
        let (b, [h, g], t, s, d) = (self.b, self.heads, self.t, self.past + self.t, self.d);
        let keys = |x: &Tensor<1>| x.clone().reshape([b, g, s, d]);
        [x[0].clone().reshape([b, h, t, d]), keys(&x[1]), keys(&x[2])]
    }

    fn run(&self, device: &Device) {
        let (b, [h, g], t, s, d) = (self.b, self.heads, self.t, self.past + self.t, self.d);
        let (mask, hidden, scale) = (self.mask(device), self.hidden(device), 1.0 / (d as f32).sqrt());
        let run = |x: &[Tensor<1>]| {
            let [q, k, v] = self.shaped(x);
            ops::attention(q, k, v, &mask, scale).reshape([b * h * t * d])
        };
        let composed = |x: &[Tensor<1>]| {
            let [q, k, v] = self.shaped(x);
            let repeat = |x: Tensor<4>| x.unsqueeze_dim::<5>(2).repeat_dim(2, h / g).reshape([b, h, s, d]);
            let hidden = hidden.clone().unsqueeze_dim::<4>(1).expand([b, h, t, s]);
            let scores = q.matmul(repeat(k).swap_dims(2, 3)) * scale;
            let weights = softmax(scores.mask_fill(hidden, -1e30), 3);
            weights.matmul(repeat(v)).reshape([b * h * t * d])
        };
        let documents = if self.documents.is_some() { ", documents" } else { "" };
        let name = format!(
            "attention b {b} h {h}/{g} past {} t {t} d {d} window {:?}{documents}",
            self.past, self.window
        );
        let keys = b * g * s * d;
        let op = Op { name, lengths: vec![b * h * t * d, keys, keys], run: &run, composed: &composed };
        check(&op, device);
        check_bf16(&op, DType::BF16, device);
    }
}

#[test]
fn causal_with_groups_of_one_two_and_three() {
    for device in devices() {
        for (b, heads, t, d) in
            [(1, [1, 1], 1, 2), (2, [3, 3], 5, 3), (1, [4, 2], 7, 5), (2, [6, 2], 17, 4), (3, [3, 1], 33, 7)]
        {
            Case { b, heads, past: 0, t, d, window: None, documents: None }.run(&device);
        }
    }
}

#[test]
fn sliding_windows() {
    for device in devices() {
        for (window, t) in [(1, 5), (3, 7), (3, 33), (7, 7), (100, 17)] {
            Case { b: 2, heads: [2, 1], past: 0, t, d: 6, window: Some(window), documents: None }.run(&device);
        }
    }
}

#[test]
fn behind_a_past() {
    for device in devices() {
        for (past, t, window) in
            [(1, 1, None), (16, 1, None), (7, 5, None), (7, 5, Some(3)), (32, 3, Some(1)), (5, 1, Some(3))]
        {
            Case { b: 2, heads: [6, 3], past, t, d: 5, window, documents: None }.run(&device);
        }
    }
}

#[test]
fn documents() {
    // Lengths that differ between the rows, a document of one token, and a row of one document.
    let rows: [&[usize]; 3] = [&[3, 1, 7], &[11], &[5, 6]];
    let ids = |row: &[usize]| -> Vec<i32> {
        row.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i as i32, n)).collect()
    };
    let documents: Vec<i32> = rows.iter().flat_map(|row| ids(row)).collect();
    for device in devices() {
        for window in [None, Some(1), Some(3), Some(100)] {
            let documents = Some(documents.clone());
            Case { b: 3, heads: [4, 2], past: 0, t: 11, d: 6, window, documents }.run(&device);
        }
    }
}

/// One query behind a past sees all of it: a mask is not needed, and gives what a hidden-nothing mask gives.
#[test]
fn one_token_without_a_window_equals_plain_attention() {
    for device in devices() {
        let at = |name: &str, shape: [usize; 4]| {
            let n = shape.iter().product();
            tensor(&crate::check::normals(name, n), DType::F32, &device).reshape(shape)
        };
        let (q, k, v) = (at("q", [2, 2, 1, 4]), at("k", [2, 2, 9, 4]), at("v", [2, 2, 9, 4]));
        let mask = AttentionMask::new(8, 1, None, None, &device);
        let out = ops::attention(q.clone(), k.clone(), v.clone(), &mask, 0.5);
        let plain = softmax(q.matmul(k.swap_dims(2, 3)) * 0.5, 3).matmul(v);
        assert!(crate::check::relative(&values(out), &values(plain)) < crate::check::COMPOSED_TOLERANCE);
    }
}
