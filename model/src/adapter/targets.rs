//! Which modules of a model an adapter touches, by PEFT's rules (`check_target_module_exists`, `_set_trainable`).

use fancy_regex::Regex;

use super::{AdapterConfig, AdapterError, Targets};
use crate::config::ModelConfig;
use crate::decoder::{EMBEDDING, HEAD, parameter_shapes};

/// A module that carries parameters, under its Hugging Face name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// `model.layers.0.self_attn.q_proj` and so on.
    pub name: String,
    /// What it is, with its dimensions.
    pub kind: ModuleKind,
}

/// Kinds of modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKind {
    /// A linear layer.
    Linear {
        /// Rows of its weight.
        out: usize,
        /// Columns of its weight.
        input: usize,
        /// Whether it has a bias.
        bias: bool,
    },
    /// A normalization with its gain.
    Norm {
        /// Entries of the gain.
        width: usize,
    },
    /// The embedding table.
    Embedding {
        /// Rows.
        vocab: usize,
        /// Columns.
        width: usize,
    },
}

/// What an adapter does to one module.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The module.
    pub module: Module,
    /// What is added to it.
    pub change: Change,
}

/// What an adapter adds to a module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// A pair of low-rank matrices.
    LowRank {
        /// Their shared dimension.
        rank: usize,
        /// What their product is multiplied by.
        scale: f64,
    },
    /// A copy of the whole module (`modules_to_save`).
    Whole,
}

/// All modules of a model, in the order of its parameters. The head is one also where it shares the embedding table.
pub fn modules(config: &ModelConfig) -> Vec<Module> {
    let shapes = parameter_shapes(config, config.n_layers);
    let has_bias = |name: &str| shapes.iter().any(|(other, _)| other == &format!("{name}.bias"));
    let module = |(name, shape): &(String, Vec<usize>)| {
        let name = name.strip_suffix(".weight")?.to_string();
        let kind = match *shape.as_slice() {
            [width] => ModuleKind::Norm { width },
            [vocab, width] if EMBEDDING.starts_with(&name) => ModuleKind::Embedding { vocab, width },
            [out, input] => ModuleKind::Linear { out, input, bias: has_bias(&name) },
            _ => return None,
        };
        Some(Module { name, kind })
    };
    let mut all: Vec<Module> = shapes.iter().filter_map(module).collect();
    if config.tied {
        let kind = ModuleKind::Linear { out: config.vocab_size, input: config.width, bias: false };
        all.push(Module { name: head_module().into(), kind });
    }
    all
}

/// `lm_head`.
pub(crate) fn head_module() -> &'static str {
    HEAD.trim_end_matches(".weight")
}

/// What `adapter` does to a model of `config`, in the order of its modules.
///
/// # Errors
/// [`AdapterError::Setting`] when settings cannot be used, or name no module at all.
pub fn plan(adapter: &AdapterConfig, config: &ModelConfig) -> Result<Vec<Planned>, AdapterError> {
    adapter.check()?;
    let (all, rules) = (modules(config), Rules::new(adapter)?);
    let mut planned = Vec::new();
    for module in all {
        if adapter.modules_to_save.iter().any(|end| module.name.ends_with(end.as_str())) {
            planned.push(Planned { module, change: Change::Whole });
        } else if rules.target(&module)? {
            let rank = adapter.rank_of(&module.name)?;
            let change = Change::LowRank { rank, scale: adapter.scale_of(&module.name, rank)? };
            refuse_unsupported(adapter, &module)?;
            planned.push(Planned { module, change });
        }
    }
    let nothing = |key, what: String| {
        let modules = short_names(config).join(", ");
        Err(AdapterError::Setting { key, message: format!("{what} no module of this model ({modules})") })
    };
    if !planned.iter().any(|p| matches!(p.change, Change::LowRank { .. })) {
        return nothing("target_modules", format!("{} matches", said(&adapter.targets)));
    }
    let saved =
        |end: &String| planned.iter().any(|p| p.change == Change::Whole && p.module.name.ends_with(end.as_str()));
    match adapter.modules_to_save.iter().find(|end| !saved(end)) {
        Some(end) => nothing("modules_to_save", format!("`{end}` is")),
        None => Ok(planned),
    }
}

/// The names in a list of targets or of modules to save that end no module's name: typing errors, in a recipe.
pub fn unknown_names(adapter: &AdapterConfig, config: &ModelConfig) -> Vec<String> {
    let all = modules(config);
    let known = |name: &String| all.iter().any(|m| &m.name == name || m.name.ends_with(&format!(".{name}")));
    let lists = [Some(&adapter.targets), adapter.exclude.as_ref()];
    let names = lists.into_iter().flatten().filter_map(|targets| match targets {
        Targets::Names(names) => Some(names),
        Targets::AllLinear | Targets::Regex(_) => None,
    });
    names.flatten().filter(|name| !known(name)).cloned().collect()
}

/// Last parts of the names of all modules, each once.
pub fn short_names(config: &ModelConfig) -> Vec<String> {
    let mut names: Vec<String> = modules(config).iter().map(|m| last_part(&m.name).to_string()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// `all-linear` as the list that PEFT stores for it; other targets as they are.
pub(super) fn resolved(targets: &Targets, config: &ModelConfig) -> Targets {
    let Targets::AllLinear = targets else { return targets.clone() };
    let mut names: Vec<String> =
        modules(config).iter().filter(|m| m.is_inner_linear()).map(|m| last_part(&m.name).to_string()).collect();
    names.sort_unstable();
    names.dedup();
    Targets::Names(names)
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn said(targets: &Targets) -> String {
    match targets {
        Targets::AllLinear => "`all-linear`".into(),
        Targets::Names(names) => format!("`{}`", names.join("`, `")),
        Targets::Regex(regex) => format!("the expression `{regex}`"),
    }
}

impl Module {
    fn is_inner_linear(&self) -> bool {
        matches!(self.kind, ModuleKind::Linear { .. }) && self.name != head_module() && self.name != "score"
    }
}

fn refuse_unsupported(adapter: &AdapterConfig, module: &Module) -> Result<(), AdapterError> {
    let refused = |key, message: String| Err(AdapterError::Setting { key, message });
    let name = &module.name;
    match module.kind {
        ModuleKind::Norm { .. } => refused(
            "target_modules",
            format!("`{name}` is a normalization and has no low-rank adapter; modules_to_save trains it whole"),
        ),
        ModuleKind::Embedding { .. } if adapter.dora => {
            refused("use_dora", format!("is not supported on the embedding `{name}`"))
        }
        ModuleKind::Linear { .. } if adapter.dora && name == head_module() => {
            refused("use_dora", format!("is not supported on the output head `{name}`"))
        }
        _ => Ok(()),
    }
}

/// The compiled rules of one adapter.
struct Rules<'a> {
    adapter: &'a AdapterConfig,
    target: Option<Regex>,
    exclude: Option<Regex>,
    saved: Vec<Regex>,
    layers: Vec<Regex>,
}

impl<'a> Rules<'a> {
    fn new(adapter: &'a AdapterConfig) -> Result<Self, AdapterError> {
        let of = |key, targets: &Targets| match targets {
            Targets::Regex(pattern) => compiled(key, pattern).map(Some),
            _ => Ok(None),
        };
        let saved = adapter.modules_to_save.iter();
        let saved = saved.map(|name| compiled("modules_to_save", &format!("(^|.*\\.){name}($|\\..*)")));
        let any = [String::from("[^.]*")];
        let layers = if adapter.layers_pattern.is_empty() { &any[..] } else { &adapter.layers_pattern };
        let layers = layers.iter().map(|p| compiled("layers_pattern", &format!("(?:.*?\\.)?{p}\\.(\\d+)\\..*")));
        Ok(Self {
            adapter,
            target: of("target_modules", &adapter.targets)?,
            exclude: adapter.exclude.as_ref().map_or(Ok(None), |e| of("exclude_modules", e))?,
            saved: saved.collect::<Result<_, _>>()?,
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    fn target(&self, module: &Module) -> Result<bool, AdapterError> {
        let name = module.name.as_str();
        let excluded = match (&self.adapter.exclude, &self.exclude) {
            (Some(Targets::Names(names)), _) => listed(names, name) != Listed::No,
            (Some(Targets::AllLinear), _) => module.is_inner_linear(),
            (_, Some(regex)) => matches_fully("exclude_modules", regex, name)?,
            (_, None) => false,
        };
        if excluded {
            return Ok(false);
        }
        for regex in &self.saved {
            if matches_fully("modules_to_save", regex, name)? {
                return Ok(false);
            }
        }
        match (&self.adapter.targets, &self.target) {
            (Targets::AllLinear, _) => Ok(module.is_inner_linear()),
            (Targets::Names(names), _) => match listed(names, name) {
                Listed::No => Ok(false),
                // A whole name is meant as it stands: the layers are not asked.
                Listed::Whole => Ok(true),
                Listed::End => self.layer(name),
            },
            (_, Some(regex)) => matches_fully("target_modules", regex, name),
            (_, None) => Ok(false),
        }
    }

    /// Whether the layer of a module is among those to transform.
    fn layer(&self, name: &str) -> Result<bool, AdapterError> {
        let Some(chosen) = self.adapter.layers_to_transform.as_ref().filter(|chosen| !chosen.is_empty()) else {
            return Ok(true);
        };
        for regex in &self.layers {
            let found = regex.captures(name).map_err(|e| too_hard("layers_pattern", &e))?;
            let number = found.and_then(|found| found.get(1)?.as_str().parse::<usize>().ok());
            if let Some(number) = number {
                return Ok(chosen.contains(&number));
            }
        }
        Ok(false)
    }
}

#[derive(PartialEq)]
enum Listed {
    No,
    Whole,
    End,
}

fn listed(names: &[String], module: &str) -> Listed {
    let ends = |name: &String| module.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
    match (names.iter().any(|name| name == module), names.iter().any(ends)) {
        (true, _) => Listed::Whole,
        (_, true) => Listed::End,
        _ => Listed::No,
    }
}

/// A pattern that must match in full, as `re.fullmatch` does.
pub(super) fn compiled(key: &'static str, pattern: &str) -> Result<Regex, AdapterError> {
    Regex::new(&format!("\\A(?:{pattern})\\z")).map_err(|error| AdapterError::Setting {
        key,
        message: format!("`{pattern}` is not a regular expression: {error}"),
    })
}

pub(super) fn matches_fully(key: &'static str, regex: &Regex, name: &str) -> Result<bool, AdapterError> {
    regex.is_match(name).map_err(|error| too_hard(key, &error))
}

fn too_hard(key: &'static str, error: &fancy_regex::Error) -> AdapterError {
    AdapterError::Setting { key, message: format!("the expression cannot be matched: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(adapter: &AdapterConfig, layers: usize) -> Vec<String> {
        let config = ModelConfig { qk_norm: true, ..ModelConfig::llama(layers) };
        plan(adapter, &config).unwrap().into_iter().map(|p| p.module.name).collect()
    }

    fn lora(targets: Targets) -> AdapterConfig {
        AdapterConfig::lora(4, 8.0, targets)
    }

    fn list(names: &[&str]) -> Targets {
        Targets::Names(names.iter().map(|name| (*name).into()).collect())
    }

    #[test]
    fn a_list_names_whole_paths_or_their_ends_behind_a_dot() {
        let q = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"];
        assert_eq!(names(&lora(list(&["q_proj"])), 2), q);
        assert_eq!(names(&lora(list(&["self_attn.q_proj"])), 2), q);
        assert_eq!(names(&lora(list(&["model.layers.1.self_attn.q_proj"])), 2), q[1..]);
        // `proj` ends names, but not behind a dot.
        let error = plan(&lora(list(&["proj"])), &ModelConfig::llama(2)).unwrap_err().to_string();
        assert!(error.contains("`proj` matches no module") && error.contains("up_proj"), "{error}");
    }

    #[test]
    fn an_expression_matches_the_whole_name() {
        assert_eq!(names(&lora(Targets::Regex(r".*\.0\..*[qv]_proj".into())), 2).len(), 2);
        assert!(plan(&lora(Targets::Regex("q_proj".into())), &ModelConfig::llama(2)).is_err());
        let look = names(&lora(Targets::Regex(r"(?!.*\.1\.).*(up|down)_proj".into())), 3);
        assert_eq!(look.len(), 4, "{look:?}");
        let error = plan(&lora(Targets::Regex("(".into())), &ModelConfig::llama(1)).unwrap_err().to_string();
        assert!(error.contains("not a regular expression"), "{error}");
    }

    #[test]
    fn all_linear_is_seven_a_layer_and_not_the_head() {
        for tied in [true, false] {
            let config = ModelConfig { tied, ..ModelConfig::llama(3) };
            let planned = plan(&lora(Targets::AllLinear), &config).unwrap();
            assert_eq!(planned.len(), 21);
            let same = plan(&lora(resolved(&Targets::AllLinear, &config)), &config).unwrap();
            assert_eq!(same, planned);
        }
    }

    #[test]
    fn layers_are_asked_for_ends_of_names_only() {
        let some = |targets| AdapterConfig { layers_to_transform: Some(vec![1]), ..lora(targets) };
        assert_eq!(names(&some(list(&["q_proj"])), 3), ["model.layers.1.self_attn.q_proj"]);
        let both = names(&some(list(&["q_proj", "model.layers.2.self_attn.q_proj"])), 3);
        assert_eq!(both, ["model.layers.1.self_attn.q_proj", "model.layers.2.self_attn.q_proj"]);
        let elsewhere = AdapterConfig { layers_pattern: vec!["blocks".into()], ..some(list(&["q_proj"])) };
        assert!(plan(&elsewhere, &ModelConfig::llama(3)).is_err());
        assert!(plan(&some(Targets::AllLinear), &ModelConfig::llama(3)).is_err());
    }

    #[test]
    fn excluded_and_saved_modules_are_no_targets() {
        let adapter = AdapterConfig {
            exclude: Some(list(&["down_proj"])),
            modules_to_save: vec!["up_proj".into(), "lm_head".into(), "norm".into()],
            ..lora(Targets::AllLinear)
        };
        let planned = plan(&adapter, &ModelConfig::llama(1)).unwrap();
        let whole: Vec<&str> =
            planned.iter().filter(|p| p.change == Change::Whole).map(|p| p.module.name.as_str()).collect();
        // `norm` ends the names of all normalizations, as in PEFT.
        assert_eq!(
            whole,
            [
                "model.layers.0.input_layernorm",
                "model.layers.0.post_attention_layernorm",
                "model.layers.0.mlp.up_proj",
                "model.norm",
                "lm_head"
            ]
        );
        assert_eq!(planned.len() - whole.len(), 5);
        let nothing = AdapterConfig { modules_to_save: vec!["score".into()], ..lora(Targets::AllLinear) };
        let error = plan(&nothing, &ModelConfig::llama(1)).unwrap_err().to_string();
        assert!(error.contains("modules_to_save") && error.contains("score"), "{error}");
    }

    #[test]
    fn norms_have_no_low_rank_adapter() {
        let error = plan(&lora(list(&["norm"])), &ModelConfig::llama(1)).unwrap_err().to_string();
        assert!(error.contains("normalization"), "{error}");
    }

    #[test]
    fn the_earliest_pattern_that_matches_counts() {
        let adapter = AdapterConfig {
            rank_pattern: vec![("q_proj".into(), 2), ("layers.0.*".into(), 3)],
            alpha_pattern: vec![("_proj".into(), 1.0), (r"(q|k)_proj".into(), 5.0)],
            ..lora(list(&["q_proj", "k_proj"]))
        };
        let planned = plan(&adapter, &ModelConfig::llama(2)).unwrap();
        let of = |at: usize| planned[at].change;
        // Names in order: layer 0 q, k, layer 1 q, k. `_proj` stands behind no dot and matches nothing.
        assert_eq!(of(0), Change::LowRank { rank: 2, scale: 2.5 });
        assert_eq!(of(1), Change::LowRank { rank: 3, scale: 5.0 / 3.0 });
        assert_eq!(of(2), Change::LowRank { rank: 2, scale: 2.5 });
        assert_eq!(of(3), Change::LowRank { rank: 4, scale: 1.25 });
    }
}
