//! W5 and W6: whole files that do not fit their configuration, or hold no numbers; and the forms of a tied
//! head.

use burn::tensor::{DType, Device};
use fornax_model::ModelConfig;
use fornax_model::weights::{LoadOptions, TensorFile, WeightsError, from_tensors, read_config};
use serde_json::json;

use super::folder::{Folder, SINGLE, Stored, parameters, parity, tensors_of};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// A fixture with its tensors changed is refused as not fitting, with so many problems.
fn mismatch(folder: &Folder, n: usize, parts: &[&str]) {
    let error = folder.error();
    let WeightsError::Mismatch { problems, .. } = &error else { panic!("{error:?}") };
    assert_eq!(problems.len(), n, "{problems:#?}");
    folder.says(&["the weights in `FOLDER` do not fit its config.json:"]);
    folder.says(parts);
}

fn named<'a>(tensors: &'a mut [Stored], name: &str) -> &'a mut Stored {
    tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
}

#[test]
fn w5_the_vocabulary_differs() {
    let folder = Folder::of("llama2");
    folder.configure(json!({"vocab_size": 102}));
    let expected = format!("`{EMBEDDING}` is [101, 32], expected [102, 32]");
    mismatch(&folder, 2, &[&expected, "`lm_head.weight` is [101, 32], expected [102, 32]"]);
}

#[test]
fn w5_the_head_width_differs() {
    let folder = Folder::of("llama2");
    folder.configure(json!({"head_dim": 10}));
    mismatch(&folder, 8, &["`model.layers.1.self_attn.o_proj.weight` is [32, 32], expected [32, 40]"]);
}

#[test]
fn w5_a_layer_is_missing_or_too_many() {
    let folder = Folder::of("llama2");
    folder.configure(json!({"num_hidden_layers": 3}));
    mismatch(&folder, 9, &["`model.layers.2.mlp.down_proj.weight` [32, 56] is missing"]);
    folder.configure(json!({"num_hidden_layers": 1}));
    mismatch(&folder, 9, &["`model.layers.1.mlp.down_proj.weight` is stored but not part of this model"]);
    folder.configure(json!({"num_hidden_layers": 4096}));
    mismatch(&folder, 4094 * 9, &["and 36826 more"]);
}

#[test]
fn w5_biases_are_missing_or_too_many() {
    let folder = Folder::of("llama2");
    folder.configure(json!({"attention_bias": true}));
    mismatch(&folder, 8, &["`model.layers.0.self_attn.o_proj.bias` [32] is missing"]);
    let folder = Folder::of("llama-bias");
    folder.configure(json!({"attention_bias": false, "mlp_bias": false}));
    mismatch(&folder, 14, &["`model.layers.0.mlp.up_proj.bias` is stored but not part of this model"]);
}

#[test]
fn w5_dtypes_that_are_no_weights() {
    for (dtype, size) in [("I64", 8), ("F64", 8), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1)] {
        let folder = Folder::of("llama2");
        folder.change(|tensors| {
            let norm = named(tensors, "model.norm.weight");
            (norm.dtype, norm.bytes) = (dtype.into(), vec![0; 32 * size]);
        });
        mismatch(&folder, 1, &["`model.norm.weight` is ", dtype, "expected F32, F16 or BF16"]);
    }
}

/// Everything that differs is one message, with what is found and what is expected.
#[test]
fn w5_all_mismatches_are_one_message() {
    let folder = Folder::of("llama2");
    folder.change(|tensors| {
        tensors.retain(|tensor| !tensor.name.starts_with("model.layers.1.mlp."));
        named(tensors, "model.norm.weight").name = "model.norm.gain".into();
        named(tensors, EMBEDDING).shape = vec![32, 101];
        let norm = named(tensors, "model.layers.0.input_layernorm.weight");
        (norm.dtype, norm.bytes) = ("I64".into(), vec![0; 256]);
        let query = named(tensors, "model.layers.0.self_attn.q_proj.weight");
        query.shape = vec![1024];
    });
    mismatch(
        &folder,
        8,
        &[
            "`model.layers.1.mlp.gate_proj.weight` [56, 32] is missing",
            "`model.layers.1.mlp.up_proj.weight` [56, 32] is missing",
            "`model.layers.1.mlp.down_proj.weight` [32, 56] is missing",
            "`model.norm.weight` [32] is missing",
            "`model.norm.gain` is stored but not part of this model",
            "`model.embed_tokens.weight` is [32, 101], expected [101, 32]",
            "`model.layers.0.input_layernorm.weight` is I64, expected F32, F16 or BF16",
            "`model.layers.0.self_attn.q_proj.weight` is [1024], expected [32, 32]",
        ],
    );
}

/// Old checkpoints carry the rotary frequencies; they are computed, not read.
#[test]
fn rotary_buffers_are_passed_over() {
    let folder = Folder::of("llama2");
    let before = parameters(&folder.loads());
    folder.change(|tensors| {
        let name = "model.layers.0.self_attn.rotary_emb.inv_freq".into();
        tensors.push(Stored { name, dtype: "F32".into(), shape: vec![4], bytes: vec![0xff; 16] });
    });
    assert_eq!(parameters(&folder.loads()), before);
}

/// Checks warning and refusal of weights with these little-endian values put into two tensors.
fn not_finite(fixture: &str, values: &[&[u8]]) {
    let folder = Folder::of(fixture);
    let width = values[0].len();
    folder.change(|tensors| {
        for (i, value) in values.iter().enumerate() {
            let norm = named(tensors, "model.norm.weight");
            norm.bytes[2 * i * width..][..width].copy_from_slice(value);
        }
        named(tensors, HEAD).bytes[..width].copy_from_slice(values[0]);
    });
    let options = LoadOptions { dtype: Some(DType::F32), strict: false };
    let loaded = folder.load_as(options).unwrap();
    let norm = format!("`model.norm.weight` holds {} values that are NaN or infinite", values.len());
    let head = "`lm_head.weight` holds 1 values that are NaN or infinite".to_string();
    assert_eq!(loaded.warnings, [norm.clone(), head.clone()]);
    let error = folder.load_as(LoadOptions { dtype: None, strict: true }).unwrap_err();
    assert!(matches!(error, WeightsError::NotFinite { .. }), "{error:?}");
    for part in [norm, head, folder.path().display().to_string()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
}

#[test]
fn w6_values_that_are_not_finite() {
    let [nan, signaling] = [f32::NAN, f32::from_bits(0x7f80_0001)].map(f32::to_le_bytes);
    let [up, down] = [f32::INFINITY, f32::NEG_INFINITY].map(f32::to_le_bytes);
    not_finite("llama2", &[&nan, &signaling, &up, &down]);
    let [nan, up, down] = [0x7e00u16, 0x7c00, 0xfc00].map(u16::to_le_bytes);
    not_finite("llama3-f16", &[&nan, &up, &down]);
    let [nan, up, down] = [0x7fc0u16, 0x7f80, 0xff80].map(u16::to_le_bytes);
    not_finite("llama3-bf16", &[&nan, &up, &down]);
}

#[test]
fn w6_the_greatest_finite_values_are_finite() {
    let folder = Folder::of("llama2");
    folder.change(|tensors| {
        let values = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0, 1e-45];
        named(tensors, "model.norm.weight").bytes[..20].copy_from_slice(&values.map(f32::to_le_bytes).concat());
    });
    folder.loads();
}

/// A tied fixture with its one matrix stored under these names, the copies changed by `change`.
fn tied(names: &[&str], change: impl Fn(usize, &mut Stored)) -> Folder {
    let folder = Folder::of("smollm2");
    folder.change(|tensors| {
        let at = tensors.iter().position(|tensor| tensor.name == EMBEDDING).unwrap();
        let embedding = tensors.remove(at);
        for (i, name) in names.iter().enumerate() {
            let mut copy = Stored { name: name.to_string(), ..embedding.clone() };
            change(i, &mut copy);
            tensors.push(copy);
        }
    });
    folder
}

#[test]
fn a_tied_head_may_be_stored_in_three_ways() {
    let expected = parameters(&Folder::of("smollm2").loads());
    for names in [&[EMBEDDING][..], &[HEAD], &[EMBEDDING, HEAD]] {
        assert_eq!(parameters(&tied(names, |_, _| {}).loads()), expected, "{names:?}");
    }
}

#[test]
fn a_tied_head_that_differs_is_refused() {
    let differ = "`lm_head.weight` and `model.embed_tokens.weight` differ although tie_word_embeddings is true";
    let other = tied(&[EMBEDDING, HEAD], |i, copy| copy.bytes[17] ^= i as u8);
    mismatch(&other, 1, &[differ]);
    let other_dtype = tied(&[EMBEDDING, HEAD], |i, copy| {
        if i == 1 {
            (copy.dtype, copy.shape) = ("F16".into(), vec![107, 96]);
        }
    });
    mismatch(&other_dtype, 1, &[differ]);
    let other_shape = tied(&[EMBEDDING, HEAD], |i, copy| {
        if i == 1 {
            copy.shape.reverse();
        }
    });
    mismatch(&other_shape, 1, &[differ]);
}

#[test]
fn a_tied_matrix_that_does_not_fit_is_refused() {
    mismatch(&tied(&[], |_, _| {}), 1, &["`model.embed_tokens.weight` [107, 48] is missing"]);
    let turned = tied(&[HEAD], |_, copy| copy.shape.reverse());
    mismatch(&turned, 1, &["is [48, 107], expected [107, 48]"]);
}

#[test]
fn an_untied_model_needs_both() {
    for (stored, missing) in [(EMBEDDING, HEAD), (HEAD, EMBEDDING)] {
        let folder = tied(&[stored], |_, _| {});
        folder.configure(json!({"tie_word_embeddings": false}));
        mismatch(&folder, 1, &[&format!("`{missing}` [107, 48] is missing")]);
    }
    let both = tied(&[EMBEDDING, HEAD], |i, copy| copy.bytes[17] ^= i as u8);
    both.configure(json!({"tie_word_embeddings": false}));
    let all = parameters(&both.loads());
    assert_ne!(all[EMBEDDING], all[HEAD]);
}

/// The way checkpoints are read.
#[test]
fn tensors_at_hand_are_checked_alike() {
    let folder = Folder::of("llama2");
    let config = read_config(folder.path()).unwrap();
    let read = |config: &ModelConfig| {
        let file = TensorFile::open(&folder.path().join(SINGLE)).unwrap();
        from_tensors(config, &file, &Device::flex())
    };
    let expected: Vec<_> = tensors_of(&parity("llama2").join(SINGLE));
    let all = parameters(&read(&config).unwrap());
    assert_eq!(all.len(), expected.len());
    assert!(expected.iter().all(|tensor| all[&tensor.name] == tensor.bytes));
    let mut wider = config.clone();
    wider.vocab_size += 1;
    let error = read(&wider).unwrap_err();
    assert!(matches!(&error, WeightsError::Mismatch { problems, .. } if problems.len() == 2), "{error}");
}
