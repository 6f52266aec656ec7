#![allow(clippy::print_stdout, reason = "a test that measures or is passed over says so")]

use std::collections::HashSet;

use super::*;

/// Documents of varying length whose tokens tell their place: token `i` is `i`.
fn stream(n: u64) -> Arc<TokenStream> {
    let mut starts = vec![0];
    let mut at = 0;
    for length in [5u64, 1, 17, 40, 2, 3, 90].iter().cycle() {
        at += length;
        if at >= n {
            break;
        }
        starts.push(at);
    }
    Arc::new(TokenStream::from_tokens((0..n as u32).collect(), starts))
}

fn batches(n: u64, rows: usize, columns: usize, packing: Packing, seed: u64) -> Batches {
    Batches::new(stream(n), rows, columns, packing, seed).unwrap()
}

fn take(batches: &Batches, cursor: &mut Cursor, n: usize) -> Vec<Batch> {
    (0..n).map(|_| batches.next_from(cursor)).collect()
}

#[test]
fn any_cut_of_the_sequence_gives_the_same_batches() {
    for packing in [Packing::Wrap, Packing::Documents] {
        // 3 rows do not divide the windows of an epoch, so that batches cross epochs.
        let batches = batches(200, 3, 16, packing, 9);
        let mut end = Cursor::default();
        let straight = take(&batches, &mut end, 40);
        assert!(end.epoch > 5, "{end:?}");
        for cut in 0..=40 {
            let mut cursor = Cursor::default();
            let mut pieces = take(&batches, &mut cursor, cut);
            let stored = serde_json::to_string(&cursor).unwrap();
            let mut resumed: Cursor = serde_json::from_str(&stored).unwrap();
            pieces.extend(take(&batches, &mut resumed, 40 - cut));
            assert!(pieces == straight, "cut after {cut}");
            assert_eq!(resumed, end);
        }
    }
}

#[test]
fn an_epoch_covers_each_window_once_in_seeded_order() {
    for (n, columns) in [(200u64, 16usize), (17, 16), (18, 16), (33, 16), (1000, 7), (2, 1)] {
        for seed in 0..5 {
            let batches = batches(n, 1, columns, Packing::Wrap, seed);
            for epoch in 0..4 {
                let windows = batches.windows(epoch);
                assert!(windows >= 1);
                let mut cursor = Cursor { epoch, window: 0 };
                let firsts: Vec<u64> =
                    take(&batches, &mut cursor, windows as usize).iter().map(|b| u64::from(b.inputs[0])).collect();
                assert_eq!(cursor, Cursor { epoch, window: windows });
                let mut sorted = firsts.clone();
                sorted.sort_unstable();
                let offset = sorted[0];
                assert!(offset < columns as u64);
                let expected: Vec<u64> = (0..windows).map(|w| offset + w * columns as u64).collect();
                assert_eq!(sorted, expected, "n {n} columns {columns} seed {seed} epoch {epoch}");
                // No further window would fit.
                assert!(offset + (windows + 1) * columns as u64 + 1 > n);
            }
        }
    }
}

#[test]
fn order_and_offset_change_with_seed_and_epoch() {
    let firsts = |seed, epoch| -> Vec<u32> {
        let batches = batches(2000, 1, 16, Packing::Wrap, seed);
        let mut cursor = Cursor { epoch, window: 0 };
        take(&batches, &mut cursor, 100).iter().map(|batch| batch.inputs[0]).collect()
    };
    let distinct: HashSet<Vec<u32>> =
        [firsts(1, 0), firsts(1, 1), firsts(2, 0), firsts(2, 1)].into_iter().collect();
    assert_eq!(distinct.len(), 4);
    assert_eq!(firsts(1, 1), firsts(1, 1));
    let offsets: HashSet<u32> =
        (0..50).map(|epoch| firsts(3, epoch).iter().min().copied().unwrap() % 16).collect();
    assert!(offsets.len() > 8, "{offsets:?}");
}

#[test]
fn a_cursor_behind_the_end_of_its_epoch_goes_on_with_the_next() {
    let batches = batches(200, 2, 16, Packing::Wrap, 1);
    let mut from_start = Cursor { epoch: 5, window: 0 };
    let mut from_beyond = Cursor { epoch: 4, window: u64::MAX };
    assert_eq!(batches.next_from(&mut from_start), batches.next_from(&mut from_beyond));
    assert_eq!(from_start, from_beyond);
}

#[test]
fn wrap_trains_everything_and_counts_positions_along_the_row() {
    let batch = batches(200, 3, 16, Packing::Wrap, 2).next_from(&mut Cursor::default());
    assert_eq!((batch.rows, batch.columns, batch.n_targets()), (3, 16, 48));
    assert_eq!(batch.documents, None);
    for row in 0..3 {
        let at = row * 16..(row + 1) * 16;
        assert_eq!(batch.positions[at.clone()], (0..16).collect::<Vec<u32>>());
        for (input, target) in batch.inputs[at.clone()].iter().zip(&batch.targets[at]) {
            assert_eq!(*target, input + 1);
        }
    }
}

/// The mask written out by hand: tokens are their own place in the stream, so the document of each is known.
fn check_documents(batch: &Batch, stream: &TokenStream) {
    let mut starts = Vec::new();
    stream.document_starts(0..stream.len(), &mut starts);
    let document = |token: u32| starts.partition_point(|start| *start <= u64::from(token)) - 1;
    let documents = batch.documents.as_ref().unwrap();
    for row in 0..batch.rows {
        let first = batch.inputs[row * batch.columns];
        for column in 0..batch.columns {
            let at = row * batch.columns + column;
            let (input, target) = (batch.inputs[at], batch.targets[at]);
            assert_eq!(target, input + 1);
            assert_eq!(documents[at] as usize, document(input) - document(first));
            let begin = starts[document(input)].max(u64::from(first));
            assert_eq!(u64::from(batch.positions[at]), u64::from(input) - begin);
            assert_eq!(batch.mask[at], document(input) == document(target), "input {input}");
        }
    }
}

#[test]
fn documents_restart_and_mask_the_way_into_the_next() {
    for columns in [1, 2, 5, 16, 64] {
        let stream = stream(400);
        let batches = Batches::new(Arc::clone(&stream), 3, columns, Packing::Documents, 4).unwrap();
        let mut cursor = Cursor::default();
        let mut masked = 0;
        for batch in take(&batches, &mut cursor, 100) {
            check_documents(&batch, &stream);
            masked += batch.inputs.len() - batch.n_targets();
        }
        assert!(masked > 0);
    }
}

#[test]
fn documents_by_hand() {
    let stream = Arc::new(TokenStream::from_tokens(vec![10, 11, 12, 20, 30, 31, 32], vec![0, 3, 4]));
    let batch = Batches::new(stream, 1, 6, Packing::Documents, 0).unwrap().next_from(&mut Cursor::default());
    assert_eq!(batch.inputs, [10, 11, 12, 20, 30, 31]);
    assert_eq!(batch.targets, [11, 12, 20, 30, 31, 32]);
    assert_eq!(batch.mask, [true, true, false, false, true, true]);
    assert_eq!(batch.positions, [0, 1, 2, 0, 0, 1]);
    assert_eq!(batch.documents, Some(vec![0, 0, 0, 1, 2, 2]));
}

#[test]
fn validation_predicts_each_token_at_most_once_in_order() {
    for (n, rows, columns, max_tokens) in [
        (200u64, 3, 16, 1000u64),
        (200, 3, 16, 199),
        (200, 3, 16, 100),
        (200, 4, 7, 1),
        (17, 2, 16, 16),
        (33, 2, 16, 32),
    ] {
        for packing in [Packing::Wrap, Packing::Documents] {
            let batches = validation_batches(&stream(n), rows, columns, max_tokens, packing).unwrap();
            let mut predicted = Vec::new();
            for batch in &batches {
                let full = rows * columns;
                assert!(
                    [batch.inputs.len(), batch.targets.len(), batch.mask.len(), batch.positions.len()]
                        == [full; 4]
                );
                assert!(batch.documents.as_ref().is_none_or(|documents| documents.len() == full));
                let trained = (0..full).filter(|i| batch.mask[*i]);
                predicted.extend(trained.map(|i| {
                    assert_eq!(batch.targets[i], batch.inputs[i] + 1);
                    batch.targets[i]
                }));
            }
            let last = max_tokens.min(n - 1) as u32;
            let mut expected: Vec<u32> = (1..=last).collect();
            if packing == Packing::Documents {
                let mut starts = Vec::new();
                stream(n).document_starts(0..n, &mut starts);
                expected.retain(|token| !starts.contains(&u64::from(*token)));
            }
            assert_eq!(predicted, expected, "{n} {rows} {columns} {max_tokens} {packing:?}");
            // No batch is padding alone.
            assert_eq!(batches.len() as u64, u64::from(last).div_ceil((rows * columns) as u64));
        }
    }
}

#[test]
fn padding_of_a_validation_row_goes_on_after_the_last_document() {
    let stream = TokenStream::from_tokens(vec![10, 11, 20, 21, 22, 23, 24], vec![0, 2]);
    let batches = validation_batches(&stream, 2, 4, 100, Packing::Documents).unwrap();
    assert_eq!(batches.len(), 1);
    let batch = &batches[0];
    assert_eq!(batch.inputs, [10, 11, 20, 21, 22, 23, 0, 0]);
    assert_eq!(batch.targets, [11, 20, 21, 22, 23, 24, 0, 0]);
    assert_eq!(batch.mask, [true, false, true, true, true, true, false, false]);
    assert_eq!(batch.positions, [0, 1, 0, 1, 0, 1, 2, 3]);
    assert_eq!(batch.documents, Some(vec![0, 0, 1, 1, 0, 0, 0, 0]));
}

#[test]
fn too_little_data_and_bad_shapes_are_errors_with_their_numbers() {
    let text =
        |n, rows, columns| Batches::new(stream(n), rows, columns, Packing::Wrap, 0).unwrap_err().to_string();
    assert!(text(16, 1, 16).contains("has 16 tokens, at least 17 are needed"));
    assert!(text(0, 1, 16).contains("has 0 tokens, at least 17 are needed"));
    assert!(text(100, 0, 16).contains("0 rows x 16 columns"));
    assert!(text(100, 1, 0).contains("1 rows x 0 columns"));
    assert!(text(100, usize::MAX, 2).contains("must hold between 1 and 2147483647 tokens"));
    assert!(validation_batches(&stream(16), 1, 16, 5, Packing::Wrap).is_err());
    assert!(validation_batches(&stream(100), 1, 16, 0, Packing::Wrap).is_err());
}

#[test]
fn packing_is_written_in_lower_case() {
    assert_eq!(serde_json::to_string(&Packing::Documents).unwrap(), "\"documents\"");
    assert_eq!(serde_json::from_str::<Packing>("\"wrap\"").unwrap(), Packing::Wrap);
}

#[test]
fn throughput_is_printed() {
    let stream =
        Arc::new(TokenStream::from_tokens((0..1_000_000).collect(), (0..2500).map(|i| i * 400).collect()));
    for packing in [Packing::Wrap, Packing::Documents] {
        let batches = Batches::new(Arc::clone(&stream), 8, 256, packing, 1).unwrap();
        let start = std::time::Instant::now();
        let taken = take(&batches, &mut Cursor::default(), 500);
        let tokens: usize = taken.iter().map(|batch| batch.inputs.len()).sum();
        assert_eq!(tokens, 500 * 8 * 256);
        println!(
            "{packing:?}: {:.1} M tokens/s in this build",
            tokens as f64 / start.elapsed().as_secs_f64() / 1e6
        );
    }
}

#[test]
fn a_mixture_keeps_its_shares_and_any_cut_gives_the_same_batches() {
    let weights = [0.6, 0.3, 0.1];
    // Sources are told apart by their tokens: 0.., 1000.., 2000...
    let shifted = |n: u64, by: u32| {
        let tokens = (0..n as u32).map(|token| token + by).collect();
        Arc::new(TokenStream::from_tokens(tokens, vec![0, 20, 50]))
    };
    let streams = [shifted(400, 0), shifted(130, 1000), shifted(90, 2000)];
    for packing in [Packing::Wrap, Packing::Documents] {
        let mixed: Vec<_> = streams.iter().cloned().zip(weights).collect();
        let batches = Batches::mixed(mixed, 7, 16, packing, 3).unwrap();
        let mut end = Cursor::default();
        let straight = take(&batches, &mut end, 60);
        assert_eq!(end, Cursor { epoch: 0, window: 420 });
        for cut in 0..=60 {
            let mut cursor = Cursor::default();
            let mut pieces = take(&batches, &mut cursor, cut);
            let stored = serde_json::to_string(&cursor).unwrap();
            let mut resumed: Cursor = serde_json::from_str(&stored).unwrap();
            pieces.extend(take(&batches, &mut resumed, 60 - cut));
            assert!(pieces == straight, "cut after {cut}");
        }
        let rows = straight.iter().flat_map(|batch| batch.inputs.chunks(16));
        let mut seen: Vec<Vec<u32>> = vec![Vec::new(); 3];
        for (n, row) in rows.enumerate() {
            let source = (row[0] / 1000) as usize;
            assert!(row.iter().all(|token| (*token / 1000) as usize == source), "a row of two sources");
            seen[source].push(row[0]);
            for (source, weight) in weights.iter().enumerate() {
                let off = (seen[source].len() as f64 - weight * (n + 1) as f64).abs();
                assert!(off <= 1.0 + 1e-9, "source {source} is off by {off} after {} rows", n + 1);
            }
        }
        // Within an epoch no window comes twice: 24, 7 and 4 windows.
        for (rows, windows) in seen.iter().zip([24, 7, 4]) {
            for epoch in rows.chunks(windows) {
                let different: HashSet<_> = epoch.iter().collect();
                assert_eq!(different.len(), epoch.len());
            }
        }
        let passes = batches.passes(420);
        assert!((passes[0] - 252.0 / 24.0).abs() < 0.05 && (passes[2] - 42.0 / 4.0).abs() < 0.5, "{passes:?}");
    }
}

#[test]
fn a_mixture_of_one_is_the_stream_itself() {
    let mixed = Batches::mixed(vec![(stream(200), 3.0)], 3, 16, Packing::Documents, 9).unwrap();
    let (mut a, mut b) = (Cursor::default(), Cursor::default());
    assert_eq!(take(&mixed, &mut a, 40), take(&batches(200, 3, 16, Packing::Documents, 9), &mut b, 40));
    assert_eq!(a, b);
}
