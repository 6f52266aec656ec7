//! F10: as long as only allowed tokens are taken the automaton lives, and taking them back leads to where it was.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The opening byte chooses the kind; behind the grammar and a byte 0 each byte chooses a token among those allowed.
fuzz_target!(|bytes: &[u8]| {
    let Some((spec, choices)) = fornax_fuzz::grammar(bytes) else { return };
    let Ok(mut grammar) = fornax_fuzz::compiler().compile(&spec) else { return };
    let opening = grammar.mask().unwrap().words().to_vec();
    for choice in choices.iter().take(64) {
        // A grammar may be stuck, or too heavy, which it says again when asked again.
        let Ok(mask) = grammar.mask() else {
            assert!(grammar.mask().is_err());
            return;
        };
        let allowed: Vec<u32> = mask.ids().collect();
        let id = allowed[usize::from(*choice) % allowed.len()];
        assert_eq!(grammar.validate(&[id]), Ok(1));
        let tokens = grammar.tokens();
        grammar.accept(id).unwrap();
        if *choice > 200 {
            grammar.rollback(1).unwrap();
            assert_eq!(grammar.tokens(), tokens);
            assert_eq!(grammar.mask().unwrap().words(), mask.words());
        } else if grammar.is_done() {
            break;
        }
    }
    grammar.rollback(grammar.tokens()).unwrap();
    assert_eq!(grammar.mask().unwrap().words(), opening);
});
