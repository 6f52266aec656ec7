//! F16: any text is an error, or a recipe that passes its check and survives the run folder.
#![no_main]

use fornax_base::recipe::load;
use fornax_train::recipe::TrainRecipe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(recipe) = load::<TrainRecipe>(text, "fuzz", &[]) else { return };
    if recipe.check().is_err() {
        assert!(recipe.resolved_toml().is_err() && recipe.hash().is_err());
        return;
    }
    let resolved = recipe.resolved().unwrap();
    assert!(resolved.check().is_ok());
    let again: TrainRecipe = load(&recipe.resolved_toml().unwrap(), "fuzz", &[]).unwrap();
    assert_eq!(again, resolved);
    for step in [0, 1, recipe.train.steps - 1, recipe.train.steps] {
        let lr = recipe.schedule().lr_at(step, recipe.train.steps);
        assert!(lr.is_finite() && lr >= 0.0 && lr <= recipe.optimizer.lr * 1.000_001, "{lr} at {step}");
    }
});
