//! Strangers' `config.json`: what is read, what is refused, and how the refusal reads.

#[path = "config/any.rs"]
mod any;
#[path = "config/published.rs"]
mod published;

use std::path::Path;
use std::time::{Duration, Instant};

use burn::tensor::DType;
use fornax_model::config::MAX_LAYERS;
use fornax_model::rope::RopeScaling;
use fornax_model::{ConfigError, Family, ModelConfig};
use serde_json::{Value, json};

fn valid() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 40,
        "max_position_embeddings": 64,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_scaling": null,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
        "torch_dtype": "float32",
        "vocab_size": 97
    })
}

fn with(fields: Value) -> Value {
    let mut config = valid();
    for (key, value) in fields.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn read(config: &Value) -> ModelConfig {
    ModelConfig::from_hf_json(&config.to_string()).unwrap_or_else(|e| panic!("{config}: {e}"))
}

fn error(text: &str) -> ConfigError {
    let start = Instant::now();
    let error = ModelConfig::from_hf_json(text).expect_err("refused");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}: {error}", start.elapsed());
    error
}

fn says(error: &ConfigError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    assert!(message.len() < 1000, "{} bytes long", message.len());
}

/// A valid configuration with these fields is refused as not supported, saying so.
fn unsupported(fields: Value, parts: &[&str]) {
    let error = error(&with(fields).to_string());
    assert!(matches!(error, ConfigError::Unsupported { .. }), "{error:?}");
    says(&error, parts);
    says(&error, &["not supported (supported: "]);
}

/// ... as outside its range.
fn out_of_range(fields: Value, parts: &[&str]) {
    let error = error(&with(fields).to_string());
    assert!(matches!(error, ConfigError::OutOfRange { .. }), "{error:?}");
    says(&error, parts);
    says(&error, &["expected"]);
}

/// ... as of the wrong type.
fn wrong_type(fields: Value, parts: &[&str]) {
    let error = error(&with(fields).to_string());
    assert!(matches!(error, ConfigError::Json { .. }), "{error:?}");
    says(&error, parts);
    says(&error, &["expected"]);
}

/// A configuration without this key names it.
fn required(mut config: Value, key: &'static str) {
    config.as_object_mut().unwrap().remove(key);
    let error = error(&config.to_string());
    assert!(matches!(error, ConfigError::Missing { key: k } if k == key), "{error:?}");
    says(&error, &[key]);
}

#[test]
fn fixtures_read_equal_in_both_forms_and_after_writing() {
    let parity = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity");
    let mut n = 0;
    for entry in std::fs::read_dir(parity).unwrap() {
        let folder = entry.unwrap().path();
        let form = |file: &str| {
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            ModelConfig::from_hf_json(&text).unwrap_or_else(|e| panic!("{}/{file}: {e}", folder.display()))
        };
        let config = form("config.json");
        assert_eq!(config, form("config_v4.json"), "{}", folder.display());
        let written = config.to_hf_json();
        assert_eq!(ModelConfig::from_hf_json(&written).unwrap(), config, "{written}");
        assert_eq!(ModelConfig::from_hf_json(&written).unwrap().to_hf_json(), written);
        n += 1;
    }
    assert_eq!(n, 16);
}

#[test]
fn the_plain_configuration_is_read() {
    let config = read(&valid());
    assert_eq!(config.family, Family::Llama);
    assert_eq!((config.width, config.n_heads, config.n_kv_heads), (32, 4, 2));
    assert_eq!((config.head_dim, config.ffn_width, config.context), (8, 40, 64));
    assert_eq!((config.vocab_size, config.n_layers), (97, 2));
    assert_eq!(config.windows, [None, None]);
    assert_eq!((config.bos_id, config.eos_ids, config.pad_id), (Some(1), vec![2], None));
    assert_eq!(config.dtype, DType::F32);
}

#[test]
fn what_is_not_implemented_is_refused() {
    unsupported(json!({"model_type": "gpt_neox"}), &["model_type", "gpt_neox", "llama, mistral, qwen2, qwen3"]);
    unsupported(
        json!({"architectures": ["LlamaForTokenClassification"]}),
        &["architectures", "LlamaForTokenClassification", "LlamaForCausalLM"],
    );
    // transformers' default is two labels; one makes a reward model.
    unsupported(
        json!({"architectures": ["LlamaForSequenceClassification"]}),
        &["num_labels = 2", "a reward model"],
    );
    unsupported(
        json!({"model_type": "mistral"}),
        &["architectures", "LlamaForCausalLM", "supported: MistralForCausalLM"],
    );
    unsupported(json!({"hidden_act": "gelu"}), &["hidden_act = gelu", "silu"]);
    unsupported(json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor = 0.5", "supported: 1"]);
    unsupported(
        json!({"quantization_config": {"bits": 4, "quant_method": "gptq"}}),
        &["quantization_config", "gptq", "absent"],
    );
    unsupported(json!({"auto_map": {"AutoModel": "modeling.Evil"}}), &["auto_map", "modeling.Evil", "absent"]);
    unsupported(json!({"num_local_experts": 8}), &["num_local_experts = 8", "0"]);
    unsupported(json!({"num_experts": 64}), &["num_experts = 64", "0"]);
    unsupported(json!({"attn_logit_softcapping": 50.0}), &["attn_logit_softcapping = 50.0", "absent"]);
    unsupported(json!({"torch_dtype": "float64"}), &["dtype = float64", "float32, float16, bfloat16"]);
    unsupported(
        json!({"layer_types": ["full_attention", "linear_attention"]}),
        &["layer_types = linear_attention", "full_attention"],
    );
}

#[test]
fn a_softcap_is_read_written_and_named_as_what_transformers_ignores() {
    let config = read(&with(json!({"final_logit_softcapping": 30.0})));
    assert_eq!(config.logit_softcap, Some(30.0));
    assert_eq!(ModelConfig::from_hf_json(&config.to_hf_json()).unwrap(), config);
    let sentence = config.transformers_differs().unwrap();
    assert!(sentence.contains("final_logit_softcapping = 30") && sentence.contains("`llama`"), "{sentence}");
    let none = read(&with(json!({"final_logit_softcapping": null})));
    assert_eq!((none.logit_softcap, none.transformers_differs()), (None, None));
    assert!(!none.to_hf_json().contains("softcapping"));
    for value in [0.0, -1.0, 1e39, 1e-46] {
        out_of_range(json!({"final_logit_softcapping": value}), &["final_logit_softcapping", "positive finite"]);
    }
    wrong_type(json!({"final_logit_softcapping": "30"}), &["final_logit_softcapping"]);
}

#[test]
fn rotary_settings_that_are_not_implemented_are_refused() {
    for kind in ["dynamic", "longrope", "su", "mrope", "proportional"] {
        let parts = ["rope_scaling.rope_type", kind, "default, linear, llama3, yarn"];
        unsupported(json!({"rope_scaling": {"type": kind, "factor": 2.0}}), &parts);
        unsupported(json!({"rope_scaling": {"rope_type": kind, "factor": 2.0}}), &parts);
        let parameters = json!({"rope_type": kind, "rope_theta": 1e4, "factor": 2.0});
        unsupported(json!({"rope_parameters": parameters}), &["rope_parameters.rope_type", kind, "yarn"]);
    }
    unsupported(
        json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
        &["partial_rotary_factor = 0.5", "supported: 1"],
    );
    wrong_type(
        json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
        &["rope_parameters.full_attention", "all layers"],
    );
    wrong_type(json!({"rope_scaling": "linear"}), &["rope_scaling", "linear", "map"]);
    wrong_type(json!({"rope_scaling": {"type": 5, "factor": 2.0}}), &["rope_type", "a string", "5"]);
    wrong_type(
        json!({"rope_scaling": {"type": "linear", "factor": "2"}}),
        &["rope_scaling.factor", "a number", "\"2\""],
    );
    wrong_type(
        json!({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": "no"}}),
        &["rope_scaling.truncate", "a bool", "\"no\""],
    );
}

#[test]
fn rotary_numbers_have_ranges() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    });
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16});
    let (bad, positive) = (|v: f64| json!(v), "a positive finite number");
    for (map, key, value, expected) in [
        (&llama3, "factor", bad(-8.0), positive),
        (&llama3, "factor", bad(0.0), positive),
        (&llama3, "low_freq_factor", bad(-1.0), positive),
        (&llama3, "high_freq_factor", bad(1.0), positive),
        (&llama3, "original_max_position_embeddings", bad(32.5), "a whole number, 1 to"),
        (&llama3, "original_max_position_embeddings", bad(-32.0), "a whole number, 1 to"),
        (&yarn, "factor", bad(1e300), positive),
        (&yarn, "factor", bad(1e-300), positive),
        (&yarn, "attention_factor", bad(-1.0), positive),
        (&yarn, "beta_fast", bad(-32.0), positive),
        (&yarn, "beta_slow", bad(-1.0), positive),
        (&yarn, "mscale", bad(-1.0), positive),
        (&yarn, "mscale_all_dim", bad(-1.0), positive),
        (&yarn, "original_max_position_embeddings", json!(10u64.pow(18)), "1 to 2147483647"),
    ] {
        let mut map = map.clone();
        read(&with(json!({"rope_scaling": map.clone()})));
        map[key] = value;
        out_of_range(json!({"rope_scaling": map}), &[key, expected]);
    }
    out_of_range(json!({"rope_scaling": yarn, "rope_theta": 1.0}), &["rope_theta", "positive"]);
    for key in ["factor", "low_freq_factor", "high_freq_factor"] {
        let mut map = llama3.clone();
        map.as_object_mut().unwrap().remove(key);
        let message = error(&with(json!({"rope_scaling": map})).to_string());
        assert!(matches!(message, ConfigError::Missing { key: k } if k == key), "{message:?}");
    }
    let untyped = error(&with(json!({"rope_scaling": {"factor": 2.0}})).to_string());
    assert!(matches!(untyped, ConfigError::Missing { key: "rope_type" }), "{untyped:?}");
}

/// An empty or null object of one form leaves the word to the other.
#[test]
fn an_empty_scaling_does_not_hide_the_parameters() {
    let parameters = json!({"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0});
    for empty in [json!({}), json!(null)] {
        let config = read(&with(json!({"rope_scaling": empty, "rope_parameters": parameters})));
        assert_eq!(config.rope_scaling, RopeScaling::Linear { factor: 2.0 });
        assert_eq!(config.rope_theta, 500.0);
    }
}

const SIZES: [&str; 7] = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
];

#[test]
fn sizes_have_types_and_ranges() {
    for key in SIZES.into_iter().chain(["head_dim"]) {
        wrong_type(json!({key: -1}), &[&format!("`{key}`"), "-1", "expected u64"]);
        wrong_type(json!({key: "32"}), &[&format!("`{key}`"), "\"32\"", "expected u64"]);
        wrong_type(json!({key: 32.5}), &[&format!("`{key}`"), "32.5", "expected u64"]);
        wrong_type(json!({key: 1e30}), &[&format!("`{key}`"), "1e+30", "expected u64"]);
        wrong_type(json!({key: [32]}), &[&format!("`{key}`"), "sequence", "expected u64"]);
        out_of_range(json!({key: 0}), &[key, "= 0", "1 to "]);
        out_of_range(json!({key: 10u64.pow(18)}), &[key, "1000000000000000000", "1 to "]);
        out_of_range(json!({key: u64::MAX}), &[key, "18446744073709551615", "1 to "]);
        out_of_range(json!({key: 1u64 << 31}), &[key, "2147483648", "1 to "]);
    }
    out_of_range(json!({"num_hidden_layers": MAX_LAYERS + 1}), &["num_hidden_layers = 4097", "1 to 4096"]);
    for key in SIZES.into_iter().filter(|key| *key != "num_key_value_heads") {
        required(valid(), key);
    }
    required(valid(), "model_type");
}

#[test]
fn numbers_that_do_not_fit_each_other_are_refused() {
    out_of_range(
        json!({"num_attention_heads": 5, "num_key_value_heads": 5}),
        &["hidden_size = 32", "num_attention_heads (5)"],
    );
    out_of_range(json!({"head_dim": 7}), &["head_dim = 7", "an even number"]);
    out_of_range(json!({"num_key_value_heads": 3}), &["num_key_value_heads = 3", "num_attention_heads (4)"]);
    out_of_range(json!({"num_key_value_heads": 8}), &["num_key_value_heads = 8", "num_attention_heads (4)"]);
    out_of_range(json!({"head_dim": 1u64 << 30}), &["num_attention_heads * head_dim", "4294967296", "2147483647"]);
    out_of_range(
        json!({"vocab_size": i32::MAX, "hidden_size": i32::MAX - 3, "head_dim": 2}),
        &["number of parameters", "2^50"],
    );
    for key in ["rms_norm_eps", "rope_theta", "initializer_range"] {
        out_of_range(json!({key: -0.5}), &[key, "-0.5", "positive"]);
        out_of_range(json!({key: 0}), &[key, "= 0", "positive"]);
        out_of_range(json!({key: 1e300}), &[key, "positive finite"]);
        wrong_type(json!({key: "1e-5"}), &[key, "1e-5", "expected f64"]);
    }
    wrong_type(json!({"tie_word_embeddings": "yes"}), &["tie_word_embeddings", "yes", "a boolean"]);
}

#[test]
fn token_ids_are_checked() {
    assert_eq!(read(&with(json!({"eos_token_id": [2, 3, 96]}))).eos_ids, [2, 3, 96]);
    let absent = read(&with(json!({"bos_token_id": -1, "eos_token_id": [-1], "pad_token_id": null})));
    assert_eq!((absent.bos_id, absent.eos_ids, absent.pad_id), (None, Vec::new(), None));
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        out_of_range(json!({key: 97}), &[key, "97", "0 to 96"]);
        out_of_range(json!({key: -2}), &[key, "-2", "below vocab_size"]);
        out_of_range(json!({key: 1u64 << 32}), &[key, "4294967296", "below vocab_size"]);
        out_of_range(json!({key: "</s>"}), &[key, "</s>", "below vocab_size"]);
        out_of_range(json!({key: 2.5}), &[key, "2.5", "below vocab_size"]);
    }
    out_of_range(json!({"eos_token_id": [2, 97]}), &["eos_token_id", "97", "0 to 96"]);
}

fn qwen(fields: Value) -> Value {
    let mut config =
        with(json!({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "layer_types": null}));
    for (key, value) in fields.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn layer_types_are_checked() {
    let sliding = json!({"use_sliding_window": true, "sliding_window": 6, "max_window_layers": 1});
    assert_eq!(read(&qwen(sliding)).windows, [None, Some(6)]);
    let listed = json!({
        "use_sliding_window": true, "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
    });
    assert_eq!(read(&qwen(listed)).windows, [Some(6), None]);
    let short = error(&qwen(json!({"layer_types": ["full_attention"]})).to_string());
    says(&short, &["layer_types", "1 entries", "num_hidden_layers (2)"]);
    let unknown = json!({"layer_types": ["full_attention", "chunked_attention"]});
    says(&error(&qwen(unknown).to_string()), &["chunked_attention", "full_attention, sliding_attention"]);
    let no_window = json!({"layer_types": ["full_attention", "sliding_attention"]});
    says(&error(&qwen(no_window).to_string()), &["sliding_attention", "no sliding window"]);
}

/// transformers slides over 4096 tokens where the key is absent, and not at all where it is null.
#[test]
fn an_absent_window_is_the_default_of_transformers() {
    let asked = json!({"use_sliding_window": true, "max_window_layers": 0});
    assert_eq!(read(&qwen(asked)).windows, [Some(4096), Some(4096)]);
    let null = json!({"use_sliding_window": true, "max_window_layers": 0, "sliding_window": null});
    assert_eq!(read(&qwen(null)).windows, [None, None]);
    assert_eq!(read(&qwen(json!({}))).windows, [None, None]);
    let mistral = json!({"model_type": "mistral", "architectures": ["MistralForCausalLM"]});
    assert_eq!(read(&with(mistral.clone())).windows, [Some(4096); 2]);
    let mut null = mistral;
    null["sliding_window"] = json!(null);
    assert_eq!(read(&with(null)).windows, [None, None]);
}

#[test]
fn a_window_for_each_layer_is_checked_in_built_configurations() {
    let mut config = read(&valid());
    config.n_layers = 3;
    says(&config.check().unwrap_err(), &["2 entries", "(3)"]);
}

#[test]
fn texts_that_are_no_configuration_are_refused() {
    for (text, part) in [
        (String::new(), "EOF"),
        ("\u{feff}{}".into(), "expected value"),
        ("[]".into(), "expected a JSON object, found []"),
        ("null".into(), "expected a JSON object, found null"),
        ("{\"vocab_size\": 1e999}".into(), "number out of range"),
        ("{\"vocab_size\": 0x10}".into(), "expected `,` or `}`"),
        ("{\"vocab_size\": NaN}".into(), "expected value"),
        (valid().to_string() + "{}", "trailing characters"),
        ("[".repeat(10_000), "recursion limit"),
        ("{\"a\":".repeat(10_000), "recursion limit"),
        (format!("{{\"a\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000)), "recursion limit"),
    ] {
        let error = error(&text);
        assert!(matches!(error, ConfigError::Json { .. }), "{error:?}");
        says(&error, &[part]);
    }
}

#[test]
fn keys_that_stand_twice_are_refused() {
    let twice = valid().to_string().replacen('{', "{\"hidden_size\": 64, ", 1);
    says(&error(&twice), &["`hidden_size` stands twice", "expected once"]);
    let nested = valid()
        .to_string()
        .replace("\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0,\"factor\":4.0}");
    says(&error(&nested), &["`factor` stands twice"]);
}

/// What a stranger wrote reaches the terminal short and without control characters.
#[test]
fn messages_stay_short_and_plain() {
    let long = "x".repeat(1 << 20);
    for config in [
        with(json!({"model_type": long})),
        with(json!({"vocab_size": long})),
        with(json!({"eos_token_id": long})),
        with(json!({"rope_scaling": {"type": long}})),
        with(json!({"rope_scaling": {"type": "linear", "factor": long}})),
        with(json!({"layer_types": [long, long]})),
        with(json!({"quantization_config": {"x": long}})),
        json!([long]),
    ] {
        says(&error(&config.to_string()), &["x"]);
    }
    let escape = error(&with(json!({"model_type": "\u{1b}[31mred\nline"})).to_string()).to_string();
    assert!(!escape.contains(char::is_control), "{escape:?}");
}
