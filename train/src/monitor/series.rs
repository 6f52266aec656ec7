//! A curve of any length in bounded memory
//!
//! Knows numbers alone. Points fall into buckets; when all buckets are full, neighbours are merged and the next bucket
//! takes twice as many points. A bucket keeps its extremes, so a spike of one step in a million stays visible.

use std::ops::RangeInclusive;

/// Most buckets a curve holds; below it every point stands for itself. A curve takes half a megabyte.
const CAPACITY: usize = 1 << 14;

/// Neighbouring points as one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Step of its opening point.
    pub first: u64,
    /// Step of its last point.
    pub last: u64,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    sum: f64,
    /// Number of points.
    pub points: u32,
}

impl Bucket {
    fn new(step: u64, value: f64) -> Self {
        Bucket { first: step, last: step, min: value, max: value, sum: value, points: 1 }
    }

    /// Mean of the points.
    pub fn mean(&self) -> f64 {
        self.sum / f64::from(self.points)
    }

    fn merge(&mut self, later: &Bucket) {
        self.last = later.last;
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
        self.sum += later.sum;
        self.points += later.points;
    }
}

/// Values by rising step.
#[derive(Debug, Clone)]
pub struct Series {
    buckets: Vec<Bucket>,
    points_per_bucket: u32,
    last: Option<(u64, f64)>,
}

impl Default for Series {
    fn default() -> Self {
        Series { buckets: Vec::new(), points_per_bucket: 1, last: None }
    }
}

impl Series {
    /// Adds a value. One that is not finite, or not of a later step than the last, is left out.
    pub fn push(&mut self, step: u64, value: f64) {
        if !value.is_finite() || self.last.is_some_and(|(last, _)| step <= last) {
            return;
        }
        self.last = Some((step, value));
        let point = Bucket::new(step, value);
        match self.buckets.last_mut() {
            Some(open) if open.points < self.points_per_bucket => open.merge(&point),
            _ => {
                if self.buckets.len() == CAPACITY {
                    self.halve();
                }
                self.buckets.push(point);
            }
        }
    }

    fn halve(&mut self) {
        let pairs = self.buckets.as_chunks::<2>().0;
        self.buckets = pairs
            .iter()
            .map(|[early, late]| {
                let mut both = *early;
                both.merge(late);
                both
            })
            .collect();
        self.points_per_bucket = self.points_per_bucket.saturating_mul(2);
    }

    /// The newest point as (step, value).
    pub fn last(&self) -> Option<(u64, f64)> {
        self.last
    }

    /// Steps of the oldest and the newest point.
    pub fn span(&self) -> Option<(u64, u64)> {
        Some((self.buckets.first()?.first, self.buckets.last()?.last))
    }

    /// All buckets in order.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The buckets that touch `steps`, and one more on each side, so that a line can enter and leave.
    pub fn around(&self, steps: &RangeInclusive<f64>) -> &[Bucket] {
        let start = self.buckets.partition_point(|bucket| (bucket.last as f64) < *steps.start());
        let end = self.buckets.partition_point(|bucket| bucket.first as f64 <= *steps.end());
        &self.buckets[start.saturating_sub(1)..(end + 1).min(self.buckets.len())]
    }

    /// The exponential moving average, as (step, value) at the end of each bucket: `weight` in [0, 1) is what the past
    /// counts at each point, and the start is corrected for the missing past, as in TensorBoard (and Adam,
    /// arXiv:1412.6980, section 3). In a merged bucket its points count as equal.
    pub fn smoothed(&self, weight: f64) -> Vec<(u64, f64)> {
        let (mut mean, mut missing) = (0.0, 1.0);
        let smooth = |bucket: &Bucket| {
            let past = weight.powi(i32::try_from(bucket.points).unwrap_or(i32::MAX));
            mean = past * mean + (1.0 - past) * bucket.mean();
            missing *= past;
            (bucket.last, mean / (1.0 - missing))
        };
        self.buckets.iter().map(smooth).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_points_keep_their_extremes_in_little_memory() {
        let mut series = Series::default();
        for step in 1..=1_000_000 {
            let value = match step {
                700_001 => 1e6,
                300_007 => -5.0,
                step => (step as f64 / 1e5).sin(),
            };
            series.push(step, value);
        }
        assert!(series.buckets().len() <= CAPACITY);
        let points: u64 = series.buckets().iter().map(|bucket| u64::from(bucket.points)).sum();
        assert_eq!(points, 1_000_000);
        assert_eq!(series.span(), Some((1, 1_000_000)));
        let holds = |step: u64| move |bucket: &&Bucket| bucket.first <= step && step <= bucket.last;
        assert_eq!(series.buckets().iter().find(holds(700_001)).unwrap().max, 1e6);
        assert_eq!(series.buckets().iter().find(holds(300_007)).unwrap().min, -5.0);
        assert_eq!(series.last(), Some((1_000_000, 10.0_f64.sin())));
        let part = series.around(&(500_000.0..=501_000.0));
        assert!(part.len() > 10 && part[0].last < 500_000 && part[part.len() - 1].first > 501_000, "{part:?}");
    }

    #[test]
    fn what_is_not_finite_or_not_later_is_left_out() {
        let mut series = Series::default();
        for (step, value) in [(5, 1.0), (6, f64::NAN), (6, f64::INFINITY), (5, 9.0), (4, 9.0), (6, 2.0)] {
            series.push(step, value);
        }
        assert_eq!(series.buckets(), [Bucket::new(5, 1.0), Bucket::new(6, 2.0)]);
        assert!(Series::default().around(&(0.0..=1.0)).is_empty());
    }

    #[test]
    fn smoothing_by_hand() {
        let mut series = Series::default();
        for (step, value) in [(1, 4.0), (2, 2.0), (3, 0.0)] {
            series.push(step, value);
        }
        // Corrected for the start: (0.5 * 4 * 0.5 + 0.5 * 2) / 0.75, and so on.
        assert_eq!(series.smoothed(0.5), [(1, 4.0), (2, 2.0 / 0.75), (3, 1.0 / 0.875)]);
        assert_eq!(series.smoothed(0.0), [(1, 4.0), (2, 2.0), (3, 0.0)]);
    }
}
