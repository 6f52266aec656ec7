use proptest::prelude::*;

use super::*;

/// The whole text searched: what comes out of it, and which string ended it.
fn search(text: &str, stops: &[String], include: bool) -> (String, Option<usize>) {
    let ends = text.char_indices().map(|(place, c)| place + c.len_utf8());
    for end in ends {
        let complete = (0..stops.len()).filter(|i| text[..end].ends_with(&stops[*i]));
        // Of equal ones the leading.
        let found = complete.max_by_key(|i| (stops[*i].len(), std::cmp::Reverse(*i)));
        if let Some(found) = found {
            let keep = if include { end } else { end - stops[found].len() };
            return (text[..keep].to_owned(), Some(found));
        }
    }
    (text.to_owned(), None)
}

/// What comes out of pieces of these lengths in characters, over and over.
fn stream(text: &str, stops: &[String], include: bool, lengths: &[usize]) -> (String, Option<usize>) {
    let mut matcher = StopStrings::new(stops, include).unwrap();
    let mut characters = text.chars();
    let mut out = String::new();
    for length in lengths.iter().cycle() {
        let piece: String = characters.by_ref().take(*length).collect();
        let empty = piece.is_empty() && *length > 0;
        out += &matcher.push(&piece).emit;
        // What is held back is the beginning of a stop string, never a whole one.
        let held = &matcher.held;
        assert!(held.is_empty() || stops.iter().any(|stop| stop.len() > held.len() && stop.starts_with(held)));
        if empty {
            break;
        }
    }
    out += &matcher.finish();
    (out, matcher.stopped())
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,30}", "[abé]{0,30}", "[éè🦀🦁a]{0,20}", any::<String>()]
}

fn stops() -> impl Strategy<Value = Vec<String>> {
    let stop = prop_oneof!["[ab]{1,5}", "[abé]{1,4}", "[éè🦀🦁]{1,3}", "(ab){1,4}a?"];
    prop::collection::vec(stop, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Reliability property F14.
    #[test]
    fn a_stream_is_stopped_where_a_search_in_the_whole_text_stops_it(
        text in text(),
        stops in stops(),
        include in any::<bool>(),
        lengths in prop::collection::vec(0usize..5, 1..6).prop_map(|mut lengths| { lengths.push(1); lengths }),
    ) {
        prop_assert_eq!(stream(&text, &stops, include, &lengths), search(&text, &stops, include));
    }
}

#[track_caller]
fn check(pieces: &[&str], stops: &[&str], expected: &[&str], stopped: Option<usize>) {
    let mut matcher = StopStrings::new(stops, false).unwrap();
    let mut found: Vec<String> = pieces.iter().map(|piece| matcher.push(piece).emit).collect();
    found.push(matcher.finish());
    assert_eq!(found, expected);
    assert_eq!(matcher.stopped(), stopped);
}

#[test]
fn text_comes_as_soon_as_it_cannot_be_a_stop_string() {
    check(&["one ", "END", "!"], &["END!"], &["one ", "", "", ""], Some(0));
    check(&["one E", "N", "d"], &["END"], &["one ", "", "ENd", ""], None);
    check(&["one E", "N"], &["END"], &["one ", "", "EN"], None);
    check(&["a", "b"], &[], &["a", "b", ""], None);
}

#[test]
fn overlapping_stop_strings_are_found() {
    // The end of a failed match is the beginning of another, of the same string or of the next one.
    check(&["aa", "ab"], &["aab"], &["", "a", ""], Some(0));
    check(&["xab", "cd"], &["abce", "bcd"], &["x", "a", ""], Some(1));
    // What is complete earlier counts, though another began before it; at one place the longest counts.
    check(&["abcd"], &["abcd", "bc"], &["a", ""], Some(1));
    check(&["ab", "c"], &["bc", "abc", "c"], &["", "", ""], Some(1));
}

#[test]
fn half_a_character_is_never_given() {
    // è and é share their first byte, the crab and the lion three.
    check(&["è", "é"], &["é"], &["è", "", ""], Some(0));
    check(&["🦁🦀", "x"], &["🦀🦁"], &["🦁", "🦀x", ""], None);
}

#[test]
fn the_stop_string_is_part_of_the_text_where_asked() {
    let mut stop = StopStrings::new(&["</s>", "b"], true).unwrap();
    assert_eq!(stop.push("ac</"), Held { emit: "ac".to_owned(), stopped: None });
    assert_eq!(stop.push("s> and on"), Held { emit: "</s>".to_owned(), stopped: Some(0) });
    assert_eq!(stop.push("b"), Held { emit: String::new(), stopped: Some(0) });
    assert_eq!(stop.pass("b"), Held { emit: String::new(), stopped: Some(0) });
    assert_eq!(stop.finish(), "");
}

#[test]
fn nothing_is_looked_for_in_what_passes() {
    let mut stop = StopStrings::new(&["END"], false).unwrap();
    assert_eq!(stop.push("E").emit, "");
    assert_eq!(stop.pass("ND EN").emit, "END EN");
    assert_eq!(stop.push("D END").emit, "D ");
    assert_eq!(stop.stopped(), Some(0));
}

#[test]
fn strings_that_cannot_be_looked_for_are_refused() {
    let error = |strings: &[String]| StopStrings::new(strings, false).unwrap_err().to_string();
    assert_eq!(error(&["a".into(), String::new()]), "stop string 1 is empty, expected at least 1 character");
    assert_eq!(error(&vec!["a".into(); 65]), "65 stop strings were given, expected at most 64");
    assert_eq!(error(&["a".repeat(4097)]), "stop string 0 has 4097 bytes, expected at most 4096");
}
