//! F4: whatever stands in a `config.json`, the answer is an error or a configuration that fits.

use std::time::{Duration, Instant};

use fornax_model::config::MAX_LAYERS;
use fornax_model::{Family, ModelConfig};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{valid, with};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        // Of at most 15 digits: serde_json reads longer ones into a float to within a unit in the last place.
        (-999_999_999_999_999i64..=999_999_999_999_999).prop_map(Value::from),
        (any::<i32>(), 0i32..5).prop_map(|(n, bits)| Value::from(f64::from(n) / 2f64.powi(bits))),
        prop::sample::select(&[u64::MAX, 1 << 63, 1 << 32, 1 << 31, 4096, 4097][..]).prop_map(Value::from),
        prop::sample::select(&[i64::MIN, i64::MIN + 1, -1, -2][..]).prop_map(Value::from),
        prop::sample::select(&[1e300, 1e-300, 1e39, 1e-46, -0.0, 0.5][..]).prop_map(Value::from),
        (0u64..300).prop_map(Value::from),
        (0u32..64).prop_map(|bits| Value::from(1u64 << bits)),
        (0u32..100_000).prop_map(|n| Value::from(f64::from(n) / 1024.0)),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(&["qwen2", "yarn", "llama3", "linear", "sliding_attention", "bfloat16"][..])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,8}", inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Keys that are read, beside those of [`valid`]; a dot leads into a nested object.
const MORE_KEYS: [&str; 21] = [
    "final_logit_softcapping",
    "head_dim",
    "pad_token_id",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "dtype",
    "num_experts",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "rope_parameters",
    "rope_parameters.rope_type",
    "rope_parameters.rope_theta",
    "rope_parameters.factor",
    "rope_parameters.original_max_position_embeddings",
    "rope_parameters.low_freq_factor",
    "rope_parameters.high_freq_factor",
    "rope_parameters.beta_fast",
    "rope_parameters.attention_factor",
    "rope_parameters.truncate",
];

fn mutated() -> impl Strategy<Value = Value> {
    let mut keys: Vec<String> = valid().as_object().unwrap().keys().cloned().collect();
    keys.extend(MORE_KEYS.map(str::to_string));
    let family = prop::sample::select(&Family::ALL[..]);
    let changes = prop::collection::vec((prop::sample::select(keys), any_json()), 0..4);
    (family, changes).prop_map(|(family, changes)| {
        let mut config = with(json!({
            "model_type": family.model_type(),
            "architectures": [family.architecture()],
            "rope_parameters": {"rope_type": "yarn", "factor": 2.0},
        }));
        for (key, value) in changes {
            match key.split_once('.') {
                Some((outer, inner)) if config[outer].is_object() => config[outer][inner] = value,
                Some(_) => {}
                None => config[&key] = value,
            }
        }
        config
    })
}

/// An error that reads well, or a configuration that fits; quickly.
fn holds(text: &str) -> Result<(), TestCaseError> {
    let start = Instant::now();
    match ModelConfig::from_hf_json(text) {
        Ok(config) => {
            prop_assert!(config.n_parameters() < 1 << 50);
            prop_assert!(config.windows.len() as u64 <= MAX_LAYERS);
            let written = config.to_hf_json();
            let again = ModelConfig::from_hf_json(&written).ok();
            prop_assert_eq!(again.as_ref(), Some(&config), "{}", written);
        }
        Err(error) => {
            let message = error.to_string();
            prop_assert!(message.len() < 2000 && !message.contains(char::is_control), "{message:?}");
        }
    }
    prop_assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    /// F4, by fields: any value anywhere.
    #[test]
    fn any_field_may_hold_any_value(config in mutated()) {
        holds(&config.to_string())?;
    }

    /// F4, by characters: a cut and a few replaced characters.
    #[test]
    fn any_text_may_come(
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..4),
    ) {
        let mut text: Vec<char> = valid().to_string().chars().collect();
        for (at, c) in noise {
            let at = at.index(text.len());
            text[at] = c;
        }
        holds(&text.iter().collect::<String>())?;
        holds(&text[..cut.index(text.len())].iter().collect::<String>())?;
    }
}
