use super::*;

/// Examples of `1..=n` tokens and more, each with its number in all of them; the opening half is a prompt.
fn examples(n: usize) -> Arc<Vec<Example>> {
    let example = |at: usize| {
        let length = 2 + at * 5 % 17;
        let trained = (0..length).map(|place| place > length / 2).collect();
        Example { ids: vec![at as u32 + 1; length], trained, row: at as u64 + 1 }
    };
    Arc::new((0..n).map(example).collect())
}

/// Tokens that are inputs or targets of a batch without padding, and targets that count, by example.
fn counts(batches: &[Batch], n: usize) -> Vec<(usize, usize)> {
    let mut counts = vec![(0, 0); n + 1];
    for batch in batches {
        for (at, target) in batch.targets.iter().enumerate() {
            let real = batch.inputs[at] == *target && *target > 0;
            counts[*target as usize].0 += usize::from(real);
            counts[*target as usize].1 += usize::from(batch.mask[at]);
            assert!(real || !batch.mask[at]);
        }
    }
    counts.split_off(1)
}

#[test]
fn an_epoch_has_every_target_once_whatever_the_arrangement() {
    let n = 60;
    let examples = examples(n);
    let expected: Vec<(usize, usize)> =
        examples.iter().map(|example| (example.ids.len() - 1, example.n_trained())).collect();
    for arrangement in [Arrangement::Packed, Arrangement::Padded] {
        let batches = ExampleBatches::new(Arc::clone(&examples), 1, 20, arrangement, 3).unwrap();
        for epoch in 0..3 {
            let mut cursor = Cursor { epoch, window: 0 };
            let all: Vec<Batch> = (0..batches.windows()).map(|_| batches.next_from(&mut cursor)).collect();
            assert_eq!(counts(&all, n), expected, "{arrangement:?}");
        }
        let fixed = ExampleBatches::new(Arc::clone(&examples), 4, 20, arrangement, 3).unwrap().in_order();
        assert_eq!(counts(&fixed, n), expected, "{arrangement:?}");
        assert!(fixed.iter().all(|batch| batch.rows == 4 && batch.inputs.len() == 4 * batch.columns));
    }
}

#[test]
fn a_cursor_resumes_exactly_and_batches_cross_epochs() {
    for arrangement in [Arrangement::Packed, Arrangement::Padded] {
        let batches = || ExampleBatches::new(examples(50), 3, 24, arrangement, 9).unwrap();
        let straight = batches();
        let mut cursor = Cursor::default();
        let mut all = Vec::new();
        let mut cursors = Vec::new();
        for _ in 0..70 {
            cursors.push(cursor);
            all.push(straight.next_from(&mut cursor));
        }
        assert!(cursor.epoch >= 3, "{cursor:?}");
        for at in [0, 1, 13, 44, 69] {
            // Another process, which knows nothing but the cursor.
            let mut cursor = cursors[at];
            assert_eq!(batches().next_from(&mut cursor), all[at]);
        }
        let other = ExampleBatches::new(examples(50), 3, 24, arrangement, 10).unwrap();
        assert_ne!(other.next_from(&mut Cursor::default()), all[0]);
    }
}

#[test]
fn packing_leaves_less_padding_than_rows_of_their_own() {
    let of = |arrangement| ExampleBatches::new(examples(200), 4, 64, arrangement, 1).unwrap().padding();
    let (packed, padded) = (of(Arrangement::Packed), of(Arrangement::Padded));
    assert!(packed < 0.05 && padded > 0.2, "{packed} {padded}");
    // Padded rows are as long as they need to be, in steps.
    let batches = ExampleBatches::new(examples(3), 3, 64, Arrangement::Padded, 1).unwrap();
    assert_eq!(batches.next_from(&mut Cursor::default()).columns, 16);
}

#[test]
fn documents_of_a_packed_row_are_blind_to_each_other() {
    let batches = ExampleBatches::new(examples(20), 1, 40, Arrangement::Packed, 1).unwrap();
    let batch = batches.next_from(&mut Cursor::default());
    let documents = batch.documents.unwrap();
    for at in 1..documents.len() {
        let opens = documents[at] != documents[at - 1];
        // Every token of an example is its number, so that a new number is a new document, which starts anew.
        assert_eq!(
            opens && batch.inputs[at] > 0,
            batch.inputs[at] != batch.inputs[at - 1] && batch.inputs[at] > 0
        );
        assert_eq!(batch.positions[at], if opens { 0 } else { batch.positions[at - 1] + 1 });
    }
}

#[test]
fn rows_of_any_kind_come_once_an_epoch_and_resume() {
    let batches = RowBatches::new(Arc::new((0..10).collect::<Vec<u32>>()), 4, 5).unwrap();
    let mut cursor = Cursor::default();
    let all: Vec<u32> = (0..5).flat_map(|_| batches.next_from(&mut cursor).into_iter().copied()).collect();
    assert_eq!(cursor, Cursor { epoch: 1, window: 10 });
    for epoch in all.chunks(10) {
        let mut sorted = epoch.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<u32>>());
    }
    assert_ne!(all[..10], all[10..]);
    let mut third = Cursor { epoch: 0, window: 8 };
    assert_eq!(batches.next_from(&mut third).into_iter().copied().collect::<Vec<_>>(), all[8..12]);
}

#[test]
fn shapes_without_a_token_are_refused() {
    let none = Arc::new(Vec::<Example>::new());
    let error = ExampleBatches::new(none, 2, 8, Arrangement::Packed, 1).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "0 rows in batches of 2 make no batch, at least 1 of both is needed");
    for (rows, columns) in [(0, 8), (2, 0), (1 << 20, 1 << 20)] {
        assert!(ExampleBatches::new(examples(3), rows, columns, Arrangement::Packed, 1).is_err());
    }
    assert!(RowBatches::new(Arc::new(vec![1]), 0, 1).is_err());
}
