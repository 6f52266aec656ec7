use proptest::prelude::*;

use super::*;

fn tokenizer() -> Arc<Tokenizer> {
    let text = "Once upon a time, Lily met a naïve 🦀 crab. 你好, said the crab; 你好! said Lily. ".repeat(20);
    let mut documents = std::iter::once(Ok(text));
    Arc::new(Tokenizer::train_bpe(&mut documents, 330, &mut |_| {}).unwrap())
}

fn stream(tokenizer: &Arc<Tokenizer>, stop: &[&str], include: bool, min_tokens: usize) -> TextStream {
    let stop = StopStrings::new(stop, include).unwrap();
    TextStream::new(Arc::clone(tokenizer), &[], TextOptions { skip_special: true, stop, min_tokens }).unwrap()
}

/// A token whose log-probability tells its place.
fn token(place: usize, id: u32) -> Sampled {
    Sampled { id, log_prob: -(place as f32), top: Vec::new() }
}

fn pieces(mut stream: TextStream, ids: &[u32]) -> Vec<TextPiece> {
    let mut pieces = Vec::new();
    for (place, id) in ids.iter().enumerate() {
        pieces.extend(stream.push(token(place, *id)).unwrap());
    }
    pieces.push(stream.finish().unwrap());
    pieces
}

fn text(pieces: &[TextPiece]) -> String {
    pieces.iter().map(|piece| piece.text.as_str()).collect()
}

fn places(pieces: &[TextPiece]) -> Vec<usize> {
    pieces.iter().flat_map(|piece| &piece.tokens).map(|token| -token.sampled.log_prob as usize).collect()
}

#[test]
fn tokens_come_with_the_text_they_make() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("Lily é🜚 END", false).unwrap();
    let found = pieces(stream(&tokenizer, &["END!"], false, 0), &ids);
    assert_eq!(text(&found), "Lily é🜚 END");
    assert_eq!(places(&found), (0..ids.len()).collect::<Vec<_>>());
    for piece in &found {
        assert!(!piece.text.contains('\u{fffd}') && piece.stopped.is_none());
    }
    // The four bytes of the sign come as one piece with four tokens, which all begin where it does.
    let sign = found.iter().find(|piece| piece.text.contains('🜚')).unwrap();
    assert_eq!(sign.tokens.len(), tokenizer.encode("🜚", false).unwrap().len());
    let offset = "Lily é".len();
    assert!(sign.tokens.iter().all(|token| token.offset == offset), "{sign:?}");
    // What might have been a stop string comes at the end.
    assert_eq!(found.last().unwrap().text, "END");
    assert_eq!(found.last().unwrap().tokens.len(), tokenizer.encode("END", false).unwrap().len());
}

#[test]
fn a_stop_string_ends_the_text_and_cuts_tokens_off() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("Lily said the crab; Lily", false).unwrap();
    let found = pieces(stream(&tokenizer, &["id the c"], false, 0), &ids);
    assert_eq!(text(&found), "Lily sa");
    assert!(found[found.len() - 2..].iter().all(|piece| piece.stopped == Some(0)), "{found:?}");
    let kept = places(&found);
    assert_eq!(kept, (0..kept.len()).collect::<Vec<_>>());
    let shown = tokenizer.decode(&ids[..kept.len()], true).unwrap();
    assert!(shown.starts_with("Lily sa") && shown.len() < "Lily said the crab".len(), "{shown}");
    let with = pieces(stream(&tokenizer, &["id the c"], true, 0), &ids);
    assert_eq!(text(&with), "Lily said the c");
    assert!(places(&with).len() > kept.len());
    // In the text of the leading tokens nothing is looked for.
    let late = pieces(stream(&tokenizer, &["Lily"], false, 2), &ids);
    assert_eq!(text(&late), "Lily said the crab; ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pieces_are_the_whole_text_up_to_a_stop_string(
        words in prop::collection::vec("Lily|crab|é🜚|🦀 |a |END|ENDE|NDE|\u{fffd}", 0..12),
        cut in 0usize..4,
        include in any::<bool>(),
    ) {
        let tokenizer = tokenizer();
        let mut ids = tokenizer.encode(&words.concat(), false).unwrap();
        ids.truncate(ids.len().saturating_sub(cut));
        let whole = tokenizer.decode(&ids, true).unwrap();
        let found = pieces(stream(&tokenizer, &["ENDE", "DE"], include, 0), &ids);
        let mut search = StopStrings::new(&["ENDE", "DE"], include).unwrap();
        let expected = search.push(&whole);
        let expected = expected.emit + &search.finish();
        prop_assert_eq!(text(&found), expected.as_str());
        prop_assert_eq!(found.last().unwrap().stopped, search.stopped());
        // Tokens come once, in order, and all of them where nothing was cut off.
        let places = places(&found);
        prop_assert_eq!(&places, &(0..places.len()).collect::<Vec<_>>());
        prop_assert!(search.stopped().is_some() || places.len() == ids.len());
        let mut length = 0;
        for piece in &found {
            length += piece.text.len();
            for token in &piece.tokens {
                prop_assert!(token.offset <= length);
            }
        }
    }
}
