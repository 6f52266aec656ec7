//! Half precision, and runs that continue a model folder.

use std::path::{Path, PathBuf};

use fornax_base::exit::Exit;
use fornax_model::weights::read_config;
use fornax_train::checkpoint;
use fornax_train::recipe::TrainRecipe;

use crate::{Place, checkpoint_bytes, copy_folder, events, finish, finite_checkpoint, resume, validation_losses};

#[test]
fn a_bf16_run_learns_with_parameters_in_f32() {
    let place = Place::new();
    let sets =
        ["train.precision=bf16", "train.steps=40", "checkpoint.every=20", "eval.every=40", "eval.sample_every=40"];
    let run = place.train("run", &place.recipe(&sets));
    let losses = validation_losses(&run);
    println!("bf16: validation loss {losses:?}");
    assert!(losses[1].1 < losses[0].1 - 0.2, "{losses:?}");
    finite_checkpoint(&checkpoint::folder_of(&run, 40));
    // f32 from the same seed is near, and is not the same.
    let single = place.train("single", &place.recipe(&[&sets[1..], &["train.precision=f32"]].concat()));
    let apart = (validation_losses(&single)[1].1 - losses[1].1).abs();
    assert!(apart > 0.0 && apart < 0.1, "bf16 and f32 end {apart} apart");
    let bytes = checkpoint_bytes(&run, 40);
    finish(resume(&run, Some(20), &[]).unwrap());
    assert!(checkpoint_bytes(&run, 40) == bytes, "resume is exact in bf16 too");
}

/// `../shared/data/NAME`, or a line saying that it is absent.
fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("FORNAX_REQUIRE_DATA").as_deref() != Ok("1"), "{} is absent", path.display());
    println!("passed over: {} is absent", path.display());
    None
}

const CONTINUE: &str = r#"
[model]
init = "set by each test"

[data]
source = "set by each test"

[train]
steps = 30
context = 128
batch = 8

[optimizer]
lr = 5e-4

[schedule]
kind = "cosine"
warmup_steps = 5

[eval]
every = 15
tokens = 8192

[checkpoint]
every = 15
"#;

fn continuing(model: &Path, text: &Path, sets: &[&str]) -> TrainRecipe {
    let mut all = vec![format!("model.init={:?}", model.display().to_string())];
    all.push(format!("data.source={:?}", text.display().to_string()));
    all.extend(sets.iter().map(|set| set.to_string()));
    fornax_base::recipe::load(CONTINUE, "the tests' recipe", &all).unwrap()
}

#[test]
fn a_real_checkpoint_gets_better_on_its_text() {
    let (Some(model), Some(text)) = (data("tinystories-656k-hf"), data("tinystories/tiny_stories.txt")) else {
        return;
    };
    let place = Place::new();
    let run = place.train("run", &continuing(&model, &text, &[]));
    let losses = validation_losses(&run);
    println!("tinystories-656k: validation loss {losses:?}");
    assert_eq!(losses.len(), 3);
    // transformers measures 3.55 at the start of this text; knowing nothing would be ln 2048 = 7.6.
    assert!(losses[0].1 < 3.7, "the model came with what it knew: {losses:?}");
    assert!(losses[1].1 < losses[0].1 && losses[2].1 < losses[1].1, "{losses:?}");
    // Shape and tokenizer stay those of the folder.
    let (was, is) = (read_config(&model).unwrap(), read_config(&run.join("model")).unwrap());
    assert_eq!(was, is);
    let tokenizer = |folder: &Path| std::fs::read(folder.join("tokenizer.json")).unwrap();
    assert!(tokenizer(&model) == tokenizer(&run.join("model")));
}

#[test]
fn a_run_from_a_model_folder_resumes_without_it_and_its_text() {
    let place = Place::new();
    let text = place.at("text.txt");
    let made = place.train("made", &place.recipe(&[])).join("model");
    let (model, copy) = (place.at("model"), place.at("copy.txt"));
    copy_folder(&made, &model);
    std::fs::copy(&text, &copy).unwrap();
    let sets = ["train.steps=6", "train.context=8", "train.batch=4", "eval.every=0", "checkpoint.every=3"];
    let recipe = continuing(&model, &copy, &[&sets[..], &["schedule.warmup_steps=1"]].concat());
    let run = place.train("run", &recipe);
    let bytes = checkpoint_bytes(&run, 6);
    std::fs::remove_dir_all(&model).unwrap();
    std::fs::remove_file(&copy).unwrap();
    finish(resume(&run, Some(3), &[]).unwrap());
    assert!(checkpoint_bytes(&run, 6) == bytes);
    assert!(!events(&run).is_empty());
    // A longer context than the model's is refused, and nothing is left.
    let long = continuing(&made, &text, &["train.context=9", "eval.tokens=64"]);
    let error = place.start("long", &long).err().unwrap();
    assert_eq!(error.exit(), Exit::BadInput, "{error}");
    assert!(error.to_string().contains("(9)") && error.to_string().contains("(8)"), "{error}");
}

#[test]
fn another_tokenizer_in_the_run_folder_is_damage() {
    let place = Place::new();
    let run = place.train("run", &place.recipe(&[]));
    let other = place.train("other", &place.recipe(&["tokenizer.kind=bpe", "tokenizer.vocab_size=300"]));
    std::fs::remove_dir_all(run.join("tokenizer")).unwrap();
    copy_folder(&other.join("tokenizer"), &run.join("tokenizer"));
    let error = resume(&run, None, &[]).err().unwrap();
    assert_eq!(error.exit(), Exit::Damaged, "{error}");
}
