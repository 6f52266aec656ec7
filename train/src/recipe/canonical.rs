//! One recipe, one text: defaults written out, TOML for people, sorted JSON for the hash

use fornax_base::files::sha256_hex;
use serde::Serialize;
use serde_json::Value;

use super::{DEFAULT_CORPUS_BYTES, RecipeCheckError, Settings, TrainRecipe, check};

pub(super) fn resolve(recipe: &TrainRecipe) -> Result<TrainRecipe, RecipeCheckError> {
    recipe.check()?;
    let mut full = recipe.clone();
    if let Some(shape) = check::model_shape(&recipe.model)? {
        let model = &mut full.model;
        model.n_kv_heads = Some(shape.n_kv_heads);
        model.head_dim = Some(shape.head_dim);
        model.ffn_width = Some(shape.ffn_width);
        model.tied = Some(shape.tied);
        model.rope_theta = Some(shape.rope_theta);
        model.norm_eps = Some(shape.norm_eps);
    }
    let data = &mut full.data;
    if data.is_corpus() {
        data.corpus_bytes.get_or_insert(DEFAULT_CORPUS_BYTES);
    } else if data.source.ends_with(".jsonl") {
        data.text_field.get_or_insert_with(|| "text".to_owned());
    }
    let Settings { train, optimizer, schedule, .. } = recipe.settings().resolved();
    (full.train, full.optimizer, full.schedule) = (train, optimizer, schedule);
    Ok(full)
}

pub(super) fn to_toml(recipe: &TrainRecipe) -> Result<String, RecipeCheckError> {
    Ok(fornax_base::recipe::to_toml(recipe)?)
}

pub(super) fn hash(recipe: &impl Serialize) -> String {
    let mut text = String::new();
    write_sorted(&to_json(recipe), &mut text);
    sha256_hex(text.as_bytes())
}

/// The recipe as JSON. A checked recipe holds numbers, strings and lists alone, which JSON takes.
pub(super) fn to_json(recipe: &impl Serialize) -> Value {
    serde_json::to_value(recipe).unwrap_or(Value::Null)
}

/// Own sorting, because another crate may switch on serde_json's insertion order for the whole build.
fn write_sorted(value: &Value, out: &mut String) {
    let mut write_all = |open, items: Vec<(Option<&String>, &Value)>, close| {
        out.push(open);
        for (index, (key, item)) in items.into_iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            if let Some(key) = key {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
            }
            write_sorted(item, out);
        }
        out.push(close);
    };
    match value {
        Value::Object(map) => {
            let mut items: Vec<_> = map.iter().map(|(key, item)| (Some(key), item)).collect();
            items.sort_by_key(|(key, _)| *key);
            write_all('{', items, '}');
        }
        Value::Array(items) => {
            write_all('[', items.iter().map(|item| (None, item)).collect(), ']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
