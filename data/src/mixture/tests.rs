use proptest::prelude::*;

use super::*;

#[test]
fn shares_hold_after_every_row() {
    for weights in [
        vec![1.0],
        vec![0.7, 0.3],
        vec![1.0, 1.0, 1.0],
        vec![5.0, 3.0, 1.0, 0.5, 0.25, 0.25],
        vec![1e-6, 1.0],
        vec![1.0; 40],
        [vec![1e-3; 30], vec![1.0]].concat(),
    ] {
        let shares = Shares::new(&weights).unwrap();
        let mut counts = vec![0u64; weights.len()];
        for row in 0..5000 {
            let (source, before) = shares.of_row(row);
            assert_eq!(before, counts[source], "{weights:?} row {row}");
            counts[source] += 1;
            assert_eq!(counts, shares.counts(row + 1), "{weights:?} row {row}");
            for (count, share) in counts.iter().zip(shares.shares()) {
                let off = (*count as f64 - share * (row + 1) as f64).abs();
                assert!(off <= shares.tolerance() + 1e-6, "{weights:?} row {row}: off by {off}");
            }
        }
    }
    assert_eq!(Shares::new(&[0.7, 0.3]).unwrap().tolerance(), 0.5);
}

#[test]
fn weights_that_are_no_shares_are_refused() {
    for weights in [vec![], vec![0.0, 1.0], vec![-1.0], vec![f64::NAN], vec![f64::INFINITY], vec![1.0; 1001]] {
        assert!(Shares::new(&weights).is_err(), "{} weights", weights.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_row_of_any_weights_is_dealt_once(weights in prop::collection::vec(1e-9f64..1e9, 1..20), row in any::<u64>()) {
        let row = row >> 8;
        let shares = Shares::new(&weights).unwrap();
        let (source, before) = shares.of_row(row);
        let (counts, after) = (shares.counts(row), shares.counts(row + 1));
        prop_assert_eq!(counts[source], before);
        prop_assert_eq!(counts.iter().sum::<u64>(), row);
        prop_assert_eq!(after[source], before + 1);
        prop_assert_eq!(after.iter().sum::<u64>(), row + 1);
    }
}
