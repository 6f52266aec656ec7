//! The sections of preference objectives: defaults, and every key that cannot be or would do nothing.

use fornax_base::recipe::load;
use fornax_post_train::recipe::FinetuneRecipe;

fn recipe(objective: &str, rest: &str) -> Result<FinetuneRecipe, String> {
    let text = format!(
        "objective = \"{objective}\"\n{rest}\n[model]\nbase = \"m\"\n[data]\nsource = \"d.jsonl\"\n\
         [train]\nsteps = 10\ncontext = 64\nbatch = 8\n"
    );
    let recipe: FinetuneRecipe = load(&text, "r.toml", &[]).map_err(|error| error.to_string())?;
    let checked = recipe.resolved();
    checked.map_err(|error| std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string))
}

#[test]
fn defaults_are_those_of_trl() {
    let dpo = recipe("dpo", "").unwrap();
    assert_eq!(
        text(&dpo.dpo.unwrap()),
        "beta = 0.1\nloss = [\"sigmoid\"]\nreference_free = false\nprecompute_ref_log_probs = false\n"
    );
    assert_eq!(dpo.optimizer.lr, Some(1e-6));
    let one = recipe("dpo", "dpo = { loss = \"ipo\" }").unwrap();
    assert_eq!(one.dpo, recipe("dpo", "dpo = { loss = [\"ipo\"] }").unwrap().dpo);
    assert_eq!(text(&recipe("orpo", "").unwrap().orpo.unwrap()), "beta = 0.1\n");
    let cpo = "beta = 0.1\nloss = \"sigmoid\"\ncpo_alpha = 1.0\nalpha = 0.0\n";
    assert_eq!(text(&recipe("cpo", "").unwrap().cpo.unwrap()), cpo);
    let kto = "beta = 0.1\nloss = \"kto\"\ndesirable_weight = 1.0\nundesirable_weight = 1.0\n";
    assert_eq!(text(&recipe("kto", "").unwrap().kto.unwrap()), kto);
    assert_eq!(text(&recipe("reward", "").unwrap().reward.unwrap()), "center_rewards_coefficient = 0.0\n");
}

fn text(section: &impl serde::Serialize) -> String {
    fornax_base::recipe::to_toml(section).unwrap()
}

#[test]
fn what_cannot_be_is_refused() {
    let cases = [
        ("dpo", "dpo = { beta = 0 }", "`dpo.beta` is 0, but a number above 0 is expected"),
        ("dpo", "dpo = { loss = [] }", "`dpo.loss` is an empty list, but at least one loss is expected"),
        ("dpo", "dpo = { loss = \"sigmoyd\" }", "sigmoyd"),
        ("dpo", "dpo = { gamma = 1 }", "recipe `r.toml` has an unknown key `dpo.gamma`"),
        (
            "dpo",
            "dpo = { loss = [\"sigmoid\", \"sft\"], loss_weights = [1.0] }",
            "`dpo.loss_weights` is a list of 1, but one number for each of the 2 losses of `dpo.loss` is expected",
        ),
        (
            "dpo",
            "dpo = { loss_weights = [-1.0] }",
            "`dpo.loss_weights` is -1, but a list of numbers of at least 0 is expected",
        ),
        (
            "dpo",
            "dpo = { loss = \"robust\", label_smoothing = 0.5 }",
            "`dpo.label_smoothing` is 0.5, but a number from 0 to below 0.5 is expected",
        ),
        (
            "dpo",
            "dpo = { loss = \"exo_pair\", label_smoothing = 0 }",
            "`dpo.label_smoothing` is 0, but a number above 0 and below 0.5 is expected",
        ),
        (
            "dpo",
            "dpo = { loss = \"ipo\", label_smoothing = 0.1 }",
            "`dpo.label_smoothing` is given, but has no effect because no loss of `dpo.loss` reads it: those that do \
             are sigmoid, robust, exo_pair, aot and aot_unpaired",
        ),
        (
            "dpo",
            "dpo = { discopop_tau = 0.1 }",
            "`dpo.discopop_tau` is given, but has no effect because `dpo.loss` does not name `discopop`",
        ),
        (
            "dpo",
            "dpo = { reference_free = true, precompute_ref_log_probs = true }",
            "`dpo.reference_free` and `dpo.precompute_ref_log_probs` are both given, but without a reference there is \
             nothing to compute",
        ),
        ("orpo", "orpo = { beta = -1 }", "`orpo.beta` is -1, but a number above 0 is expected"),
        (
            "cpo",
            "cpo = { simpo_gamma = 1.0 }",
            "`cpo.simpo_gamma` is given, but has no effect because `cpo.loss` is not `simpo`",
        ),
        (
            "cpo",
            "cpo = { loss = \"hinge\", label_smoothing = 0.1 }",
            "`cpo.label_smoothing` is given, but has no effect because `cpo.loss` is neither `sigmoid` nor `simpo`",
        ),
        (
            "kto",
            "kto = { desirable_weight = -0.5 }",
            "`kto.desirable_weight` is -0.5, but a number of at least 0 is expected",
        ),
        (
            "reward",
            "reward = { center_rewards_coefficient = -1 }",
            "`reward.center_rewards_coefficient` is -1, but a number of at least 0 is expected",
        ),
        (
            "reward",
            "adapter = { r = 8 }",
            "`adapter` and `objective = \"reward\"` are both given, but a reward model is trained whole",
        ),
        ("dpo", "orpo = { beta = 0.1 }", "`orpo` is given, but has no effect because `objective` is another one"),
        ("sft", "dpo = {}", "`dpo` is given, but has no effect because `objective` is another one"),
    ];
    for (objective, section, expected) in cases {
        let error = recipe(objective, section).unwrap_err();
        assert!(error.contains(expected), "{objective}, {section}: {error}");
    }
    let alone = "train = { steps = 10, context = 64, batch = 8, micro_batch = 1 }";
    let text =
        format!("objective = \"kto\"\n{alone}\nmodel = {{ base = \"m\" }}\ndata = {{ source = \"d.jsonl\" }}\n");
    let recipe: FinetuneRecipe = load(&text, "r.toml", &[]).unwrap();
    let error = recipe.resolved().unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("`train.micro_batch` is 1, but at least 2"), "{cause}");
}
