use serde::{Deserialize, Serialize};

use super::{RecipeError, load, to_toml};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    steps: u32,
    #[serde(default)]
    name: String,
    optimizer: Optimizer,
    #[serde(default)]
    sources: Vec<Source>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Optimizer {
    lr: f64,
    #[serde(default)]
    beta1: f64,
    #[serde(default)]
    schedule: Schedule,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Schedule {
    #[default]
    Cosine,
    Constant,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    path: String,
    #[serde(default)]
    weight: f64,
}

const TEXT: &str = "steps = 100\n[optimizer]\nlr = 0.001\n[[sources]]\npath = \"a\"\n";

fn with(sets: &[&str]) -> Result<Recipe, RecipeError> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    load(TEXT, "r.toml", &sets)
}

#[track_caller]
fn check(result: Result<Recipe, RecipeError>, sentence: &str, hint: Option<&str>) {
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), sentence);
    assert_eq!(error.hint().as_deref(), hint);
}

fn check_text(text: &str, sentence: &str, hint: Option<&str>) {
    check(load(text, "r.toml", &[]), sentence, hint);
}

#[test]
fn overrides_take_toml_values_and_plain_strings() {
    let recipe = with(&[
        "optimizer.lr=3e-4",
        "optimizer.beta1 = 1",
        "optimizer.schedule=constant",
        "name=a=b c.txt",
        "sources.0.weight=2.5",
        "steps=7",
        "steps=8",
    ])
    .unwrap();
    assert_eq!(recipe.optimizer, Optimizer { lr: 3e-4, beta1: 1.0, schedule: Schedule::Constant });
    assert_eq!((recipe.steps, recipe.name.as_str(), recipe.sources[0].weight), (8, "a=b c.txt", 2.5));
    assert_eq!(with(&["name=\"12\""]).unwrap().name, "12");
    assert_eq!(with(&["sources=[]"]).unwrap().sources, []);
    assert_eq!(with(&["name="]).unwrap().name, "");
    assert_eq!(with(&["name=1\nsteps = 5"]).unwrap().name, "1\nsteps = 5");
}

#[test]
fn overrides_can_give_a_whole_table() {
    let sets = ["steps=1".to_owned(), "optimizer.lr=1".to_owned()];
    let recipe: Recipe = load("", "r.toml", &sets).unwrap();
    assert_eq!((recipe.steps, recipe.optimizer.lr), (1, 1.0));
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    let unknown = |key: &str| format!("recipe `r.toml` has an unknown key `{key}`");
    check(with(&["optimizer.betta1=0.9"]), &unknown("optimizer.betta1"), Some("did you mean `beta1`?"));
    check(with(&["optimzer.lr=1"]), &unknown("optimzer"), Some("did you mean `optimizer`?"));
    check(with(&["Steps=1"]), &unknown("Steps"), Some("did you mean `steps`?"));
    check(
        with(&["sources.0.wait=1"]),
        &unknown("sources.0.wait"),
        Some("the keys known there are `path`, `weight`"),
    );
    check_text(&format!("stpes = 1\n{TEXT}"), &unknown("stpes"), Some("did you mean `steps`?"));
    check_text(
        "steps = 1\noptimizer = { lr = 1, lrr = 2 }",
        &unknown("optimizer.lrr"),
        Some("did you mean `lr`?"),
    );
}

#[test]
fn wrong_values_name_both_sides() {
    check(
        with(&["optimizer.lr=fast"]),
        "key `optimizer.lr` of recipe `r.toml` is the string \"fast\", but a number is expected",
        None,
    );
    check(
        with(&["steps=-1"]),
        "key `steps` of recipe `r.toml` is the whole number -1, but a whole number from 0 to 4294967295 is expected",
        None,
    );
    check(
        with(&["steps=1.5"]),
        "key `steps` of recipe `r.toml` is the number 1.5, but a whole number from 0 to 4294967295 is expected",
        None,
    );
    check(
        with(&["sources=3"]),
        "key `sources` of recipe `r.toml` is the whole number 3, but an array is expected",
        None,
    );
    check(
        with(&["optimizer=3"]),
        "key `optimizer` of recipe `r.toml` is the whole number 3, but a table is expected",
        None,
    );
    check(
        with(&["sources.0.path=[1]"]),
        "key `sources.0.path` of recipe `r.toml` is an array of 1 elements, but a string is expected",
        None,
    );
    check(
        with(&["optimizer.schedule=cosin"]),
        "key `optimizer.schedule` of recipe `r.toml` is `cosin`, but one of `cosine`, `constant` is expected",
        Some("did you mean `cosine`?"),
    );
}

#[test]
fn missing_keys_are_named_in_full() {
    check_text(
        "steps = 1\n[optimizer]\n",
        "recipe `r.toml` lacks the key `optimizer.lr`",
        Some("add `optimizer.lr`, or give it with `--set optimizer.lr=...`"),
    );
    check_text(
        "",
        "recipe `r.toml` lacks the key `steps`",
        Some("add `steps`, or give it with `--set steps=...`"),
    );
}

#[test]
fn syntax_errors_have_their_place() {
    let error = load::<Recipe>("steps = 1\nnäme = = 2\n", "r.toml", &[]).unwrap_err();
    assert!(
        matches!(
            error,
            RecipeError::Syntax { line: 2, column: 8, .. } | RecipeError::Syntax { line: 2, column: 2, .. }
        ),
        "{error:?}"
    );
    let error = load::<Recipe>("a = 1\na = 2\n", "r.toml", &[]).unwrap_err();
    assert!(matches!(error, RecipeError::Syntax { line: 2, column: 1, .. }), "{error:?}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn bad_overrides_say_why() {
    let hint = Some("write an override as `table.key=value`");
    check(with(&["steps"]), "the override `steps` cannot be applied: it has no `=`", hint);
    check(with(&["=1"]), "the override `=1` cannot be applied: its key `` has an empty part", hint);
    check(with(&["a..b=1"]), "the override `a..b=1` cannot be applied: its key `a..b` has an empty part", hint);
    check(
        with(&["steps.x=1"]),
        "the override `steps.x=1` cannot be applied: `steps` is a whole number and has no key `x`",
        hint,
    );
    check(
        with(&["sources.1.path=b"]),
        "the override `sources.1.path=b` cannot be applied: `sources` is an array of 1 elements without an element `1`",
        hint,
    );
}

#[test]
fn a_written_recipe_reads_back_equal() {
    let recipe = with(&["name=x"]).unwrap();
    let text = to_toml(&recipe).unwrap();
    assert_eq!(load::<Recipe>(&text, "again", &[]).unwrap(), recipe);
    #[derive(Serialize)]
    struct Large {
        seed: u64,
    }
    let error = to_toml(&Large { seed: u64::MAX }).unwrap_err();
    assert!(matches!(error, RecipeError::NotToml { .. }), "{error:?}");
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Layer {
    Norm { epsilon: f64 },
}

#[derive(Debug, Deserialize)]
struct Tagged {
    layer: Layer,
}

/// Serde's path ends at the tag, but neither the key nor the value may be a wrong one.
#[test]
fn tagged_structs_are_named_as_far_as_serde_tells() {
    let sentence = |text: &str| load::<Tagged>(text, "r.toml", &[]).unwrap_err().to_string();
    assert_eq!(
        sentence("layer = { kind = 'norm', epsilon = 'x' }"),
        "key `layer` of recipe `r.toml` is string \"x\", but a number is expected"
    );
    assert_eq!(
        sentence("layer = { kind = 'norm', epsilon = 1, size = 2 }"),
        "recipe `r.toml` has an unknown key `layer.size`"
    );
    assert_eq!(sentence("layer = { kind = 'norm' }"), "recipe `r.toml` lacks the key `layer.epsilon`");
    let Layer::Norm { epsilon } = load::<Tagged>("layer = { kind = 'norm', epsilon = 2 }", "", &[]).unwrap().layer;
    assert_eq!(epsilon, 2.0);
}
