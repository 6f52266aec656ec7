//! Typos and wild values

use fornax_base::recipe::{RecipeError, load};
use proptest::prelude::*;

use super::{FULL, SHORT, TrainRecipe, every_key};

/// K3: every key, every position, one letter replaced, left out, doubled or swapped with the next.
#[test]
fn k3_every_typo_of_a_key_names_the_right_key() {
    /// One letter from two keys at once, so that either may be meant.
    const EITHER_BETA: [&str; 2] = ["optimizer.beta", "optimizer.betaq"];
    let keys = every_key();
    let siblings = |key: &str| -> Vec<String> {
        let (section, _) = key.rsplit_once('.').unwrap_or(("", key));
        let same = |other: &&String| other.rsplit_once('.').map_or("", |parts| parts.0) == section;
        keys.iter().filter(same).cloned().collect()
    };
    let (mut tried, mut wrong) = (0, Vec::new());
    for key in &keys {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        for typo in typos(name) {
            let typed = if section.is_empty() { typo.clone() } else { format!("{section}.{typo}") };
            if siblings(key).contains(&typed) {
                continue;
            }
            tried += 1;
            let error = load::<TrainRecipe>(FULL, "r.toml", &[format!("{typed}=1")]).unwrap_err();
            assert!(matches!(error, RecipeError::UnknownKey { .. }), "{typed}: {error}");
            let hint = error.hint().unwrap();
            let may_be_beta1 = EITHER_BETA.contains(&typed.as_str()) && hint.contains("`beta1`");
            let is_right = hint.starts_with("did you mean") && hint.contains(&format!("`{name}`"));
            if !is_right && !may_be_beta1 {
                wrong.push(format!("{typed}: {hint}"));
            }
        }
    }
    assert!(tried > 1000, "only {tried} typos were tried");
    assert!(wrong.is_empty(), "{} of {tried}: {wrong:#?}", wrong.len());
}

fn typos(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut typos = Vec::new();
    for at in 0..letters.len() {
        let mut replaced = letters.clone();
        replaced[at] = if letters[at] == 'q' { 'x' } else { 'q' };
        let mut missing = letters.clone();
        missing.remove(at);
        let mut doubled = letters.clone();
        doubled.insert(at, letters[at]);
        let mut swapped = letters.clone();
        if at + 1 < letters.len() {
            swapped.swap(at, at + 1);
        }
        typos.extend([replaced, missing, doubled, swapped]);
    }
    let words = typos.into_iter().map(String::from_iter);
    words.filter(|word| word != name && !word.is_empty()).collect()
}

fn judge(text: &str, sets: &[String]) -> Result<(), TestCaseError> {
    let Ok(recipe) = load::<TrainRecipe>(text, "fuzz", sets) else {
        return Ok(());
    };
    if recipe.check().is_err() {
        prop_assert!(recipe.resolved_toml().is_err() && recipe.hash().is_err());
        return Ok(());
    }
    let resolved = recipe.resolved().unwrap();
    prop_assert!(resolved.check().is_ok());
    let again: TrainRecipe = load(&recipe.resolved_toml().unwrap(), "fuzz", &[]).unwrap();
    prop_assert_eq!(again, resolved);
    for step in [0, 1, recipe.train.steps - 1, recipe.train.steps] {
        let lr = recipe.schedule().lr_at(step, recipe.train.steps);
        prop_assert!(lr.is_finite() && lr >= 0.0 && lr <= recipe.optimizer.lr * 1.000_001);
    }
    Ok(())
}

fn values() -> impl Strategy<Value = String> {
    let numbers = prop_oneof![
        any::<i64>().prop_map(|x| x.to_string()),
        (0_i64..70).prop_map(|x| x.to_string()),
        any::<f64>().prop_map(|x| format!("{x:?}")),
        (0.0..1.0_f64).prop_map(|x| format!("{x:?}")),
    ];
    let words = prop::sample::select(vec![
        "\"\"",
        "true",
        "[]",
        "\"corpus\"",
        "\"bpe\"",
        "\"file\"",
        "\"wsd\"",
        "\"cosine\"",
        "\"constant\"",
        "9223372036854775807",
        "18446744073709551615",
        "-1",
        "nan",
        "inf",
        "1e308",
        "5e-324",
        "{}",
        "[\"a\"]",
        "1979-05-27",
        "\"\\u0000\"",
    ]);
    prop_oneof![2 => numbers, 1 => words.prop_map(str::to_owned)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// F16: an error, or a recipe that passes its check and survives the run folder.
    #[test]
    fn f16_changed_values_give_an_error_or_a_checked_recipe(
        sets in prop::collection::vec((prop::sample::select(every_key()), values()), 0..4),
        is_full in any::<bool>(),
    ) {
        let sets: Vec<String> = sets.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        judge(if is_full { FULL } else { SHORT }, &sets)?;
    }

    #[test]
    fn f16_damaged_text_gives_an_error_or_a_checked_recipe(
        cuts in prop::collection::vec((0..FULL.len(), any::<u8>()), 1..6), noise in any::<Vec<u8>>(),
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (at, byte) in cuts {
            bytes[at] = byte;
        }
        judge(&String::from_utf8_lossy(&bytes), &[])?;
        judge(&String::from_utf8_lossy(&noise), &[])?;
    }
}
