//! F4: any text is an error that reads well, or a configuration that fits and is written back equal.
#![no_main]

use fornax_model::ModelConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match ModelConfig::from_hf_json(text) {
    Ok(config) => {
        assert!(config.check().is_ok());
        assert!(config.n_parameters() < 1 << 50);
        let written = config.to_hf_json();
        assert_eq!(ModelConfig::from_hf_json(&written).ok().as_ref(), Some(&config), "{written}");
    }
    Err(error) => {
        let message = error.to_string();
        assert!(message.len() < 2000 && !message.contains(char::is_control), "{message:?}");
    }
});
