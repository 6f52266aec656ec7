//! Masks, ends, taking back, and getting stuck.

use super::*;

fn regex(text: &str) -> Grammar {
    shared_bytes_compiler().compile(&GrammarSpec::Regex(text.to_owned())).unwrap()
}

fn allowed(grammar: &mut Grammar) -> String {
    let mask = grammar.mask().unwrap();
    let ids: Vec<u32> = mask.ids().collect();
    assert_eq!(ids.len(), mask.count());
    ids.into_iter().map(|id| if id == END { '$' } else { char::from(u8::try_from(id).unwrap()) }).collect()
}

#[test]
fn the_end_is_allowed_exactly_where_the_text_may_end() {
    let mut grammar = regex("a(bc)?");
    assert_eq!(allowed(&mut grammar), "a");
    assert_eq!(grammar.accept(END), Err(refused(END, 0)));
    grammar.accept(u32::from(b'a')).unwrap();
    assert_eq!(allowed(&mut grammar), "b$");
    grammar.accept(u32::from(b'b')).unwrap();
    assert_eq!(allowed(&mut grammar), "c");
    assert!(!grammar.is_done() && !grammar.may_end().unwrap());
    grammar.accept(u32::from(b'c')).unwrap();
    // Nothing more can come: it is done without a token that says so.
    assert!(grammar.is_done());
    assert_eq!(allowed(&mut grammar), "$");
    assert_eq!(grammar.accept(u32::from(b'c')), Err(refused(u32::from(b'c'), 3)));
    grammar.accept(END).unwrap();
    assert!(grammar.is_done());
    assert_eq!(grammar.accept(END), Err(refused(END, 4)));
}

fn refused(id: u32, tokens: usize) -> GrammarError {
    GrammarError::NotAllowed { kind: "regular expression", id, tokens }
}

#[test]
fn a_refused_token_changes_nothing() {
    let mut grammar = regex("[ab]+c");
    grammar.accept(u32::from(b'a')).unwrap();
    for id in [u32::from(b'd'), END, 257, u32::MAX] {
        assert_eq!(grammar.accept(id), Err(refused(id, 1)));
        assert_eq!(allowed(&mut grammar), "abc");
    }
    assert_eq!(grammar.tokens(), 1);
}

#[test]
fn tokens_are_taken_back_even_behind_the_end() {
    let mut grammar = regex("ab|acd?");
    let fresh = allowed(&mut grammar.clone());
    for text in ["ab$", "ac$", "acd$", "ab", "a"] {
        let mut masks = Vec::new();
        for byte in text.bytes() {
            masks.push(allowed(&mut grammar));
            grammar.accept(if byte == b'$' { END } else { u32::from(byte) }).unwrap();
        }
        for before in masks.iter().rev() {
            grammar.rollback(1).unwrap();
            assert_eq!(&allowed(&mut grammar), before, "{text}");
        }
        for byte in text.bytes() {
            grammar.accept(if byte == b'$' { END } else { u32::from(byte) }).unwrap();
        }
        grammar.rollback(text.len()).unwrap();
        assert_eq!(allowed(&mut grammar), fresh);
        assert_eq!(grammar.rollback(1), Err(GrammarError::Rollback { asked: 1, tokens: 0 }));
    }
}

#[test]
fn validate_counts_the_allowed_beginning() {
    let mut grammar = regex("abc?");
    let ids = |text: &str| -> Vec<u32> {
        text.bytes().map(|byte| if byte == b'$' { END } else { u32::from(byte) }).collect()
    };
    for (text, expected) in [("abc", 3), ("abd", 2), ("ab$", 3), ("ab$a", 3), ("a$", 1), ("", 0), ("x", 0)] {
        assert_eq!(grammar.validate(&ids(text)), Ok(expected), "{text}");
    }
    assert_eq!(grammar.validate(&[97, 9999, 98]), Ok(1));
    ids("abc").into_iter().for_each(|id| grammar.accept(id).unwrap());
    assert_eq!(grammar.validate(&ids("$a")), Ok(1));
    assert_eq!(grammar.validate(&ids("a")), Ok(0));
    grammar.accept(END).unwrap();
    assert_eq!(grammar.validate(&ids("$")), Ok(0));
}

#[test]
fn g3_a_grammar_without_possible_tokens_is_stuck() {
    // The vocabulary cannot write "é"; the grammar wants it after "a".
    let words: Vec<Vec<u8>> = vec![b"a".to_vec(), b"b".to_vec(), b"\xff<end>".to_vec()];
    let environment = vocabulary::trie(&words, &[2]).unwrap();
    let compiler = GrammarCompiler::of_environment(&environment, GrammarLimits::default()).unwrap();
    let mut grammar = compiler.compile(&GrammarSpec::Regex("aé".to_owned())).unwrap();
    grammar.accept(0).unwrap();
    let stuck = grammar.mask().unwrap_err();
    assert_eq!(stuck, GrammarError::Stuck { kind: "regular expression", tokens: 1 });
    assert_eq!(stuck.code(), "grammar_stuck");
    // It says so again instead of going on.
    assert_eq!(grammar.mask().unwrap_err(), stuck);
    assert_eq!(grammar.accept(0), Err(stuck.clone()));
    assert_eq!(grammar.clone().mask().unwrap_err(), stuck);
    // One that is stuck from the start is not even accepted.
    let error = compiler.compile(&GrammarSpec::Regex("é".to_owned())).unwrap_err();
    assert_eq!(error.code(), "grammar_stuck");
}

#[test]
fn a_text_that_cannot_go_on_has_ended_without_a_token_for_it() {
    let words: Vec<Vec<u8>> = vec![b"a".to_vec(), b"b".to_vec()];
    let environment = vocabulary::trie(&words, &[]).unwrap();
    let compiler = GrammarCompiler::of_environment(&environment, GrammarLimits::default()).unwrap();
    let mut grammar = compiler.compile(&GrammarSpec::Regex("ab(é)*".to_owned())).unwrap();
    grammar.accept(0).unwrap();
    grammar.accept(1).unwrap();
    assert!(!grammar.is_done());
    assert_eq!(grammar.mask().unwrap().count(), 0);
    assert!(grammar.is_done());
    grammar.rollback(1).unwrap();
    assert_eq!(grammar.mask().unwrap().ids().collect::<Vec<_>>(), [1]);
}

#[test]
fn clones_go_their_own_ways() {
    let mut one = regex("(ab|ba)+");
    one.accept(u32::from(b'a')).unwrap();
    let mut other = one.clone();
    one.accept(u32::from(b'b')).unwrap();
    assert_eq!(allowed(&mut other), "b");
    assert_eq!(allowed(&mut one), "ab$");
}

#[test]
fn the_mask_is_what_validate_says_for_every_token_of_real_vocabularies() {
    for name in ["tokenizer-gpt2", "llama.cpp-vocab/ggml-vocab-llama-spm.gguf", "tokenizer-smollm2"] {
        let Some(path) = shared(name) else { return };
        let tokenizer = Tokenizer::load(&path).unwrap();
        let end: Vec<u32> = tokenizer.eos_id().into_iter().collect();
        let size = tokenizer.vocab_size() + 5;
        let compiler = GrammarCompiler::new(&tokenizer, size, &end, GrammarLimits::default()).unwrap();
        let schema = json!({"type": "object", "properties": {"é": {"type": "string"}}, "required": ["é"]});
        let mut grammar = compiler.compile(&GrammarSpec::JsonSchema(schema)).unwrap();
        let text = r#"{"é": "na"#;
        for id in tokenizer
            .encode(text, false)
            .unwrap()
            .into_iter()
            .skip_while(|id| tokenizer.spelled(*id).iter().all(|byte| *byte == b' '))
        {
            // SentencePiece puts a space before the text.
            let spelled = tokenizer.spelled(id);
            let mask = grammar.mask().unwrap();
            if mask.allows(id) {
                grammar.accept(id).unwrap();
            } else {
                assert!(spelled.starts_with(b" "), "{name}: {:?}", String::from_utf8_lossy(&spelled));
                for byte in spelled.trim_ascii() {
                    let one = (0..size as u32).find(|id| tokenizer.spelled(*id) == [*byte]).unwrap();
                    grammar.accept(one).unwrap();
                }
            }
        }
        let mask = grammar.mask().unwrap();
        assert!(mask.count() > 1000 && mask.words().len() == size.div_ceil(32), "{name}: {}", mask.count());
        for id in (0..size as u32).step_by(7) {
            assert_eq!(mask.allows(id), grammar.validate(&[id]) == Ok(1), "{name}: token {id}");
        }
        assert!(!mask.allows(end[0]) && !mask.allows(size as u32 - 1));
    }
}

#[test]
fn a_grammar_tells_when_nothing_can_be_taken_back() {
    let lark = |text: &str| shared_bytes_compiler().compile(&GrammarSpec::Lark(text.to_owned())).unwrap();
    assert!(lark("start: /[a-z]+/ \"!\"").can_roll_back());
    assert!(!lark("start: words \"!\"\nwords[stop=\"\\n\"]: /[a-z]+/").can_roll_back());
}
