//! Which adapter each row of a batch uses, and the dropout of a pass.
//!
//! Shapes: b rows of the batch, t tokens of a row, n rows (b * t), c channels.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::{Device, Int, Tensor, TensorData};
use fornax_base::rng::rng;

use super::AdapterId;

/// What every module of one forward pass is told.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    pub(crate) choice: Choice,
    pub(crate) dropout: Option<DropoutKey>,
}

/// The adapter of each row.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    /// One for all rows, or none.
    All(Option<AdapterId>),
    /// Rows that differ.
    PerRow(Arc<Groups>),
}

/// Rows of a batch by their adapter.
#[derive(Debug)]
pub(crate) struct Groups {
    groups: Vec<Group>,
    /// For each row, where it stands when the groups follow each other.
    back_b: Tensor<1, Int>,
    rows: usize,
}

#[derive(Debug)]
struct Group {
    adapter: Option<AdapterId>,
    count: usize,
    rows: Tensor<1, Int>,
}

impl Choice {
    /// The choice of `per_row`, an adapter for each of `rows` rows.
    ///
    /// # Panics
    /// Panics when the numbers of rows differ.
    pub(crate) fn per_row(per_row: &[Option<AdapterId>], rows: usize, device: &Device) -> Self {
        assert!(per_row.len() == rows, "adapters for {} rows, but the batch has {rows}", per_row.len());
        match per_row {
            [one, others @ ..] if others.iter().all(|other| other == one) => Choice::All(*one),
            _ => Choice::PerRow(Arc::new(Groups::new(per_row, device))),
        }
    }

    pub(crate) fn uses(&self, adapter: AdapterId) -> bool {
        match self {
            Choice::All(one) => *one == Some(adapter),
            Choice::PerRow(groups) => groups.groups.iter().any(|group| group.adapter == Some(adapter)),
        }
    }
}

impl Groups {
    fn new(per_row: &[Option<AdapterId>], device: &Device) -> Self {
        let mut adapters = per_row.to_vec();
        adapters.sort_unstable();
        adapters.dedup();
        let indices = |values: Vec<usize>| -> Tensor<1, Int> {
            let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
            let n = values.len();
            Tensor::from_data(TensorData::new(values, [n]), device)
        };
        let (mut back, mut placed, mut groups) = (vec![0; per_row.len()], 0, Vec::new());
        for adapter in adapters {
            let rows: Vec<usize> = (0..per_row.len()).filter(|&row| per_row[row] == adapter).collect();
            for &row in &rows {
                back[row] = placed;
                placed += 1;
            }
            groups.push(Group { adapter, count: rows.len(), rows: indices(rows) });
        }
        Self { groups, back_b: indices(back), rows: per_row.len() }
    }

    /// Runs `f` on the rows of each adapter; the results come back in the order of the batch. Inputs are (b * x, c)
    /// for any x and c.
    pub(crate) fn by_group<const K: usize>(
        &self,
        inputs: [Tensor<2>; K],
        mut f: impl FnMut(Option<AdapterId>, [Tensor<2>; K]) -> Tensor<2>,
    ) -> Tensor<2> {
        let pick = |x: &Tensor<2>, group: &Group| {
            let [n, c] = x.dims();
            let row = n / self.rows * c;
            let picked = x.clone().reshape([self.rows, row]).select(0, group.rows.clone());
            picked.reshape([n / self.rows * group.count, c])
        };
        let parts: Vec<Tensor<2>> =
            self.groups.iter().map(|g| f(g.adapter, std::array::from_fn(|k| pick(&inputs[k], g)))).collect();
        self.join(parts)
    }

    /// As `by_group` of token ids (b * t).
    pub(crate) fn by_group_of_ids(
        &self,
        ids_n: Tensor<1, Int>,
        mut f: impl FnMut(Option<AdapterId>, Tensor<1, Int>) -> Tensor<2>,
    ) -> Tensor<2> {
        let t = ids_n.dims()[0] / self.rows;
        let ids_bt = ids_n.reshape([self.rows, t]);
        let pick = |g: &Group| ids_bt.clone().select(0, g.rows.clone()).reshape([g.count * t]);
        self.join(self.groups.iter().map(|g| f(g.adapter, pick(g))).collect())
    }

    fn join(&self, parts: Vec<Tensor<2>>) -> Tensor<2> {
        let all = Tensor::cat(parts, 0);
        let [n, c] = all.dims();
        all.reshape([self.rows, n / self.rows * c]).select(0, self.back_b.clone()).reshape([n, c])
    }
}

/// What the dropout masks of a training pass are a function of, beside the module: the run's seed, the step, the
/// micro-batch, and how many forward passes were made before in it. Clones count on together.
#[derive(Debug, Clone)]
pub(crate) struct Dropout {
    seed: u64,
    step: u64,
    micro_batch: u64,
    forwards: Arc<AtomicU64>,
}

/// The key of one forward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DropoutKey {
    seed: u64,
    step: u64,
    micro_batch: u64,
    forward: u64,
}

impl Dropout {
    pub(crate) fn new(seed: u64, step: u64, micro_batch: u64) -> Self {
        Self { seed, step, micro_batch, forwards: Arc::default() }
    }

    /// The key of the next forward pass.
    pub(crate) fn next(&self) -> DropoutKey {
        let forward = self.forwards.fetch_add(1, Ordering::Relaxed);
        DropoutKey { seed: self.seed, step: self.step, micro_batch: self.micro_batch, forward }
    }
}

impl Pass {
    /// x_nc with a share of its entries zeroed and the others enlarged in return; `None` where nothing is dropped.
    pub(crate) fn drop(&self, x_nc: &Tensor<2>, share: f64, module: &str) -> Option<Tensor<2>> {
        let key = self.dropout.filter(|_| share > 0.0)?;
        let mask_nc = key.mask(x_nc.dims(), share, module);
        let device = x_nc.device().without_autodiff();
        Some(x_nc.clone() * Tensor::from_data(mask_nc, (&device, x_nc.dtype())))
    }
}

impl DropoutKey {
    /// 0 with the probability `share` (to a multiple of 2^-16), else `1 / (1 - share)`.
    fn mask(&self, [n, c]: [usize; 2], share: f64, module: &str) -> TensorData {
        let dropped = (share * 65_536.0).round() as u32;
        let kept = (1.0 / (1.0 - share)) as f32;
        let purpose = format!("dropout {module} {} {}", self.micro_batch, self.forward);
        let mut random = rng(self.seed, self.step, &purpose);
        let mut values = Vec::with_capacity(n * c + 1);
        while values.len() < n * c {
            let bits = random.next_u32();
            values.extend([bits & 0xffff, bits >> 16].map(|b| if b < dropped { 0.0 } else { kept }));
        }
        values.truncate(n * c);
        TensorData::new(values, [n, c])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;

    fn mask(key: DropoutKey, share: f64, module: &str) -> Vec<f32> {
        key.mask([40, 101], share, module).try_to_vec::<f32>().unwrap()
    }

    #[test]
    fn masks_are_a_function_of_seed_step_micro_batch_forward_and_module() {
        let key = DropoutKey { seed: 1, step: 2, micro_batch: 3, forward: 4 };
        let one = mask(key, 0.3, "a");
        assert_eq!(one, mask(key, 0.3, "a"));
        let others = [
            mask(DropoutKey { seed: 2, ..key }, 0.3, "a"),
            mask(DropoutKey { step: 3, ..key }, 0.3, "a"),
            mask(DropoutKey { micro_batch: 4, ..key }, 0.3, "a"),
            mask(DropoutKey { forward: 5, ..key }, 0.3, "a"),
            mask(key, 0.3, "b"),
        ];
        assert!(others.iter().all(|other| other != &one));
    }

    #[test]
    fn the_share_is_dropped_and_the_sum_is_kept() {
        for share in [0.05, 0.5, 0.9] {
            let key = DropoutKey { seed: 1, step: 0, micro_batch: 0, forward: 0 };
            let mask = mask(key, share, "a");
            let n = mask.len() as f64;
            let dropped = mask.iter().filter(|v| **v == 0.0).count() as f64 / n;
            // Five standard deviations of a share of 4,040.
            let bound = 5.0 * (share * (1.0 - share) / n).sqrt();
            assert!((dropped - share).abs() < bound, "{dropped} of {share}");
            let kept = mask.iter().find(|v| **v != 0.0).unwrap();
            assert!((f64::from(*kept) * (1.0 - share) - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn forward_passes_of_clones_count_on_together() {
        let dropout = Dropout::new(1, 2, 3);
        let twin = dropout.clone();
        assert_eq!([dropout.next().forward, twin.next().forward, dropout.next().forward], [0, 1, 2]);
    }

    #[test]
    fn rows_come_back_in_their_order() {
        let device = Device::flex();
        let [a, b] = [AdapterId(0), AdapterId(1)];
        let per_row = [Some(b), None, Some(a), Some(b), None];
        let Choice::PerRow(groups) = Choice::per_row(&per_row, 5, &device) else { panic!("rows differ") };
        let x: Vec<f32> = (0..5 * 2 * 3).map(|v| v as f32).collect();
        let x_nc = Tensor::<2>::from_data(TensorData::new(x.clone(), [10, 3]), &device);
        let factor = |adapter: Option<AdapterId>| adapter.map_or(1.0, |id| if id == a { 10.0 } else { 100.0 });
        let y_nc = groups.by_group([x_nc], |adapter, [x]| x * factor(adapter));
        let expected: Vec<f32> = x.iter().enumerate().map(|(i, x)| x * factor(per_row[i / 6])).collect();
        assert_eq!(y_nc.into_data().try_to_vec::<f32>().unwrap(), expected);
        let ids = Tensor::<1, Int>::from_data(TensorData::new((0..10).collect::<Vec<i32>>(), [10]), &device);
        let y_nc = groups.by_group_of_ids(ids, |adapter, ids| {
            let n = ids.dims()[0];
            ids.float().cast(DType::F32).reshape([n, 1]) * factor(adapter)
        });
        let expected: Vec<f32> = (0..10).map(|i| i as f32 * factor(per_row[i / 2])).collect();
        assert_eq!(y_nc.into_data().try_to_vec::<f32>().unwrap(), expected);
    }

    #[test]
    fn rows_that_agree_are_no_groups() {
        let one = Some(AdapterId(3));
        assert!(matches!(Choice::per_row(&[one, one], 2, &Device::flex()), Choice::All(found) if found == one));
    }
}
