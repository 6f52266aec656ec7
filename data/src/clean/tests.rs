use super::*;

fn options(change: impl FnOnce(&mut CleanOptions)) -> CleanOptions {
    let mut options = CleanOptions::default();
    change(&mut options);
    options
}

fn judge(options: &CleanOptions, text: &str) -> Result<String, Reason> {
    clean(options, text.to_owned()).map(|(text, _)| text)
}

#[test]
fn nothing_asked_changes_nothing() {
    for text in ["a", "  x \r\n\u{7}", "{ lorem ipsum }", "a a a a a a a a a a"] {
        assert_eq!(judge(&CleanOptions::default(), text), Ok(text.to_owned()));
    }
    assert_eq!(judge(&CleanOptions::default(), " \n"), Err(Reason::Empty));
}

#[test]
fn each_limit_drops_for_its_reason() {
    let words = |n: usize| vec!["word"; n].join(" ");
    type Change = fn(&mut CleanOptions);
    let cases: [(Change, &str, &str, Reason); 11] = [
        (|o| o.min_chars = Some(3), "äöü", "äö", Reason::FewChars),
        (|o| o.max_chars = Some(3), "äöü", "äöüß", Reason::ManyChars),
        (|o| o.min_words = Some(3), &words(3), &words(2), Reason::FewWords),
        (|o| o.max_words = Some(3), &words(3), &words(4), Reason::ManyWords),
        (|o| o.min_mean_word = Some(3.0), "abc abc", "abc ab", Reason::ShortWords),
        (|o| o.max_mean_word = Some(3.0), "abc abc", "abcd abc", Reason::LongWords),
        (|o| o.max_symbols = Some(0.25), "# a b c", "# # a b", Reason::Symbols),
        (|o| o.min_alphabetic = Some(0.5), "a 1", "a 1 2", Reason::NotAlphabetic),
        (|o| o.max_bullets = Some(0.5), "- a\nb", "- a\n• b\n* c\nd", Reason::Bullets),
        (|o| o.max_ellipses = Some(0.5), "a...\nb", "a…\nb...\nc", Reason::Ellipses),
        (|o| o.max_control = Some(0.5), "a\u{7}", "a\u{7}\u{FFFD}", Reason::ControlChars),
    ];
    for (change, good, bad, reason) in cases {
        let options = options(change);
        assert!(judge(&options, good).is_ok(), "{good:?} for {reason:?}");
        assert_eq!(judge(&options, bad), Err(reason), "{bad:?}");
    }
}

#[test]
fn repairs_are_made_and_counted() {
    let composed = options(|o| o.nfc = true);
    let (text, repairs) = clean(&composed, "e\u{301}a".to_owned()).unwrap();
    assert_eq!((text.as_str(), repairs.nfc), ("\u{e9}a", 1));
    assert_eq!(clean(&composed, "\u{e9}a".to_owned()).unwrap().1.nfc, 0);
    let plain = options(|o| o.strip_control = true);
    let (text, repairs) = clean(&plain, "a\u{7}\tb\r\nc\u{9b}".to_owned()).unwrap();
    assert_eq!((text.as_str(), repairs.control_chars), ("a\tb\r\nc", 2));
    assert_eq!(judge(&plain, "\u{7}"), Err(Reason::Empty));
}

#[test]
fn c4_keeps_sentences() {
    let c4 = options(|o| o.c4_lines = true);
    let text = "Menu\nThis line is a whole sentence. And another one!\nPlease enable JavaScript to see this page.\n\
                هذه جملة كاملة من خمس كلمات؟\nno closing mark in this long line";
    let (kept, repairs) = clean(&c4, text.to_owned()).unwrap();
    assert_eq!(kept, "This line is a whole sentence. And another one!\nهذه جملة كاملة من خمس كلمات؟");
    assert_eq!(repairs.lines, 3);
    assert_eq!(judge(&c4, "Two sentences are in this line. That is not enough."), Err(Reason::FewSentences));
    assert_eq!(judge(&c4, "fn main() { }"), Err(Reason::Braces));
    assert_eq!(judge(&c4, "Lorem ipsum dolor sit amet."), Err(Reason::PlaceholderText));
}

/// Numbers worked out by hand from the definitions of table A1.
#[test]
fn repetition_follows_table_a1() {
    let repetition = options(|o| o.repetition = true);
    let different: String = (0..200).map(|i| format!("word{i} ")).collect();
    assert!(judge(&repetition, &different).is_ok());
    // 3 of 10 lines stand there before: 0.30 is not above the limit, 4 of 11 are.
    let lines = |twice: usize| {
        let mut lines: Vec<String> = (0..7).map(|i| format!("line {i} {}", "abcdefgh ".repeat(i + 3))).collect();
        lines.extend((0..twice).map(|_| "x".to_owned()));
        lines.join("\n")
    };
    // The repetitions of `abcdefgh` would fall to the n-gram rules, so lines alone are looked at.
    let of = |text: &str| judge(&repetition, text).unwrap_err();
    assert_ne!(of(&lines(4)), Reason::RepeatedLines, "3 of 11 lines");
    assert_eq!(of(&lines(6)), Reason::RepeatedLines, "5 of 13 lines");
    // One bigram of 8 characters, four times, in 32 letters and 7 spaces: 32 / 39.
    assert_eq!(of(&["abcd efgh"; 4].join(" ")), Reason::TopNgram);
    // Two runs of five words stand there twice: 50 characters of 273, and 20 of them in no four-gram more than twice.
    let text = |filler: usize| {
        let words = |from: usize, n: usize| (from..from + n).map(|i| format!("f{i:05} ")).collect::<String>();
        let (one, two) = ("aaaaa bbbbb ccccc ddddd eeeee ", "ggggg hhhhh iiiii jjjjj kkkkk ");
        let part = filler / 2;
        format!("{one}{two}{}{two}{}{one}", words(0, part), words(100, filler - part)).trim().to_owned()
    };
    assert_eq!(text(22).chars().count(), 273);
    assert_eq!(of(&text(22)), Reason::RepeatedNgrams, "50 of 273 is above 0.15");
    assert_eq!(text(40).chars().count(), 399);
    assert!(judge(&repetition, &text(40)).is_ok(), "50 of 399 is not");
}

#[test]
fn gophers_limits_leave_those_given_alone() {
    let gopher = options(|o| o.min_words = Some(5)).with_gopher();
    assert_eq!((gopher.min_words, gopher.max_words, gopher.min_alphabetic), (Some(5), Some(100_000), Some(0.8)));
    assert!(gopher.repetition && gopher.wrong().is_none());
}

#[test]
fn limits_that_cannot_be_met_are_named() {
    let wrong = |change: fn(&mut CleanOptions)| options(change).wrong().unwrap();
    assert!(wrong(|o| o.max_symbols = Some(1.5)).contains("max_symbols is 1.5, a number from 0 to 1"));
    assert!(wrong(|o| o.min_mean_word = Some(f64::NAN)).contains("min_mean_word is NaN"));
    let pair = wrong(|o| {
        o.min_words = Some(5);
        o.max_words = Some(4);
    });
    assert_eq!(pair, "min_words (5) is greater than max_words (4)");
}
