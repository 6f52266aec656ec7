//! F9: any regular expression, JSON schema, GBNF or Lark grammar compiles or is an error that reads well, within limits.
#![no_main]

use fornax_infer::grammar::GrammarSpec;
use libfuzzer_sys::fuzz_target;

// The opening byte chooses the kind.
fuzz_target!(|bytes: &[u8]| {
    let Some((spec, _)) = fornax_fuzz::grammar(bytes) else { return };
    if let Err(error) = fornax_fuzz::compiler().compile(&spec) {
        let message = error.to_string();
        assert!(message.len() < 2000 && !message.contains(char::is_control), "{message:?}");
    } else if let GrammarSpec::JsonSchema(schema) = spec {
        assert!(schema.is_object() || schema == true);
    }
});
