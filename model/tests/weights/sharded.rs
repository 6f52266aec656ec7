//! W7: shard indexes that lead out of their folder, lie, or are no indexes.

use std::fs::File;
use std::os::unix::fs::symlink;

use fornax_model::weights::WeightsError;
use serde_json::{Value, json};

use super::folder::{Folder, INDEX, SINGLE, file_of, parameters, tensors_of};

const FIRST: &str = "model-00001-of-00004.safetensors";
const SECOND: &str = "model-00002-of-00004.safetensors";

fn sharded() -> Folder {
    Folder::of("llama3-sharded")
}

fn index_of(folder: &Folder) -> Value {
    serde_json::from_slice(&std::fs::read(folder.path().join(INDEX)).unwrap()).unwrap()
}

/// The fixture with the shard of one tensor renamed in its index.
fn naming(shard: &str) -> Folder {
    let folder = sharded();
    let mut index = index_of(&folder);
    index["weight_map"]["model.norm.weight"] = json!(shard);
    folder.write(INDEX, index.to_string());
    folder
}

#[test]
fn the_fixture_loads() {
    let single = Folder::of("llama3");
    let mut all = parameters(&sharded().loads());
    let same = parameters(&single.loads());
    assert_eq!(all.keys().collect::<Vec<_>>(), same.keys().collect::<Vec<_>>());
    all.retain(|name, values| same[name] != *values);
    assert!(all.is_empty(), "{:?}", all.keys());
}

#[test]
fn w7_names_that_lead_out() {
    for (name, part) in [
        ("../x.safetensors", "leads out of `FOLDER`"),
        ("a/../../x.safetensors", "leads out of `FOLDER`"),
        ("/etc/x.safetensors", "leads out of `FOLDER`"),
        ("C:\\x.safetensors", "a backslash"),
        ("C:x.safetensors", "a drive"),
        ("..\\x.safetensors", "a backslash"),
        ("x\0.safetensors", "a NUL byte"),
    ] {
        let folder = naming(name);
        assert!(matches!(folder.error(), WeightsError::Shard { .. }), "{name:?}");
        folder.says(&["FOLDER/model.safetensors.index.json", "not inside its folder", part]);
    }
    for name in ["../x", "/etc/passwd", "C:\\x", "", ".", "pytorch_model.bin"] {
        let folder = naming(name);
        assert!(matches!(folder.error(), WeightsError::Index { .. }), "{name:?}");
        folder.says(&["FOLDER/model.safetensors.index.json", &format!("`{name}` is not a safetensors file")]);
    }
    let long = "x".repeat(1 << 20) + ".safetensors";
    naming(&long).says(&["1048588 bytes in one path"]);
}

#[test]
fn w7_links_that_lead_out() {
    let outside = sharded();
    let folder = sharded();
    folder.remove(SECOND);
    symlink(outside.path().join(SECOND), folder.path().join(SECOND)).unwrap();
    assert!(matches!(folder.error(), WeightsError::Shard { .. }));
    folder.says(&[SECOND, "leads out of `FOLDER` through the link `FOLDER/model-00002"]);
    let folder = naming("sub/model.safetensors");
    symlink(outside.path(), folder.path().join("sub")).unwrap();
    folder.says(&["leads out of `FOLDER` through the link `FOLDER/sub`"]);
    let folder = sharded();
    std::fs::rename(folder.path().join(SECOND), folder.path().join("elsewhere")).unwrap();
    symlink("elsewhere", folder.path().join(SECOND)).unwrap();
    folder.loads();
}

#[test]
fn w7_a_tensor_in_two_shards() {
    let folder = sharded();
    let norm = tensors_of(&folder.path().join(FIRST)).swap_remove(0);
    let mut second = tensors_of(&folder.path().join(SECOND));
    second.push(norm.clone());
    folder.write(SECOND, file_of(&second));
    folder.says(&["FOLDER", &format!("`{}` is stored in two shards", norm.name)]);
    // One file under two names is the same thing twice.
    naming(&format!("./{FIRST}")).says(&["is stored in two shards"]);
}

#[test]
fn w7_a_listed_tensor_is_absent() {
    let folder = sharded();
    let mut tensors = tensors_of(&folder.path().join(SECOND));
    let gone = tensors.remove(0);
    folder.write(SECOND, file_of(&tensors));
    folder.says(&[&format!("`{}` {:?} is missing", gone.name, gone.shape)]);
}

#[test]
fn w7_a_shard_is_absent_or_broken() {
    let folder = sharded();
    folder.remove(SECOND);
    folder.says(&["FOLDER/model-00002-of-00004.safetensors", "No such file"]);
    folder.write(SECOND, [0; 5]);
    folder.says(&["FOLDER/model-00002-of-00004.safetensors", "5 bytes long"]);
    folder.remove(SECOND);
    folder.pipe(SECOND);
    folder.says(&["FOLDER/model-00002-of-00004.safetensors", "is a pipe"]);
}

#[test]
fn w7_very_many_shards() {
    let folder = sharded();
    let map: serde_json::Map<String, Value> =
        (0..100_000).map(|i| (format!("t{i}"), json!(format!("s{i}.safetensors")))).collect();
    folder.write(INDEX, json!({ "weight_map": map }).to_string());
    folder.says(&["it names 100000 shards, at most 10000"]);
}

#[test]
fn w7_texts_that_are_no_index() {
    for (text, part) in [
        (String::new(), "EOF"),
        ("[]".into(), "expected a JSON object with a weight_map"),
        ("{}".into(), "missing field `weight_map`"),
        ("{\"weight_map\": {}}".into(), "its weight_map is empty"),
        ("{\"weight_map\": {\"a\": 1}}".into(), "expected a string"),
        ("{\"weight_map\": [\"a\"]}".into(), "expected a map"),
        (format!("{{\"x\": {}", "[".repeat(10_000)), "EOF"),
    ] {
        let folder = sharded();
        folder.write(INDEX, text);
        assert!(matches!(folder.error(), WeightsError::Index { .. }));
        folder.says(&["FOLDER/model.safetensors.index.json", "is not a valid shard index", part]);
    }
    let folder = sharded();
    File::options().write(true).open(folder.path().join(INDEX)).unwrap().set_len(1 << 40).unwrap();
    folder.says(&["1099511627776 bytes long", "at most 67108864"]);
    folder.remove(INDEX);
    folder.pipe(INDEX);
    folder.says(&[INDEX, "is a pipe"]);
}

/// A single file wins over an index, as in transformers.
#[test]
fn a_single_file_wins() {
    let folder = sharded();
    folder.write(INDEX, "no index");
    folder.copy(&super::folder::parity("llama3"), SINGLE);
    folder.loads();
}
