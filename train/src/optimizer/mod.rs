//! The optimizer: one rule for each parameter, state in f32, by parameter name.
//!
//! Shapes: n elements of one parameter, flattened.

mod adamw;
mod lion;
mod muon;

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor};
use fornax_model::decoder::{EMBEDDING, HEAD, SCORE};
use fornax_model::parameters::ParameterMut;

use crate::recipe::{NewtonSchulzPrecision, OptimizerKind, OptimizerRecipe};

/// How one parameter is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Muon,
    AdamW,
    Lion,
}

/// What an update leaves for the next one of the same parameter.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "handles: one for each parameter, a few hundred in all")]
enum State {
    AdamW(adamw::Moments),
    /// The momentum, n.
    Muon(Tensor<1>),
    /// The mean of gradients, n.
    Lion(Tensor<1>),
}

/// An optimizer and the state of every parameter.
#[derive(Debug)]
pub struct Optimizer {
    recipe: OptimizerRecipe,
    states: BTreeMap<String, State>,
    updates: u64,
}

/// Name, shape and values (n) of a tensor of state.
type Named = (String, Vec<usize>, Tensor<1>);

impl Optimizer {
    /// An optimizer that has not made an update yet.
    pub fn new(recipe: &OptimizerRecipe) -> Self {
        Self { recipe: recipe.clone(), states: BTreeMap::new(), updates: 0 }
    }

    /// Updates applied.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Begins the next update; call once a step, before [`Optimizer::update`] of each parameter.
    pub fn begin(&mut self) {
        self.updates += 1;
    }

    /// Applies one update to one parameter, by the rule of its group. `lr` is the schedule's rate of this
    /// step; Muon's follows it in proportion. Matrices are decayed, `p *= 1 - lr * weight_decay` with the
    /// rate of the group, before they move; biases and gains are not.
    /// The gradient is `gradient_n` times `scale`.
    pub fn update(
        &mut self,
        name: &str,
        parameter: &mut ParameterMut<'_>,
        gradient_n: Tensor<1>,
        scale: f64,
        lr: f64,
    ) {
        let shape = parameter.shape();
        let rule = rule(self.recipe.kind, name, &shape);
        let state = self.states.remove(name).unwrap_or_else(|| State::new(rule, &gradient_n));
        let lr = match rule {
            Rule::Muon => self.recipe.muon_lr() * (lr / self.recipe.lr),
            Rule::AdamW | Rule::Lion => lr,
        };
        let decay = if shape.len() > 1 { 1.0 - lr * self.recipe.weight_decay } else { 1.0 };
        let mut moved_on = None;
        parameter.update_flat(|values_n| {
            let (values_n, state) = match (state, shape.as_slice()) {
                (State::AdamW(moments), _) => {
                    let settings = self.adamw(lr, decay);
                    let (values_n, moments) = adamw::step(values_n, gradient_n, scale, moments, settings);
                    (values_n, State::AdamW(moments))
                }
                (State::Lion(mean_n), _) => {
                    let (values_n, mean_n) =
                        lion::step(values_n, gradient_n * scale, mean_n, self.lion(lr, decay));
                    (values_n, State::Lion(mean_n))
                }
                (State::Muon(momentum_n), &[r, c]) => {
                    let settings = self.muon(lr, decay);
                    let (values_n, momentum_n) =
                        muon::step(values_n, gradient_n * scale, momentum_n, [r, c], settings);
                    (values_n, State::Muon(momentum_n))
                }
                // `rule` gives Muon to matrices alone.
                (state @ State::Muon(_), _) => (values_n, state),
            };
            moved_on = Some(state);
            values_n
        });
        self.states.extend(moved_on.map(|state| (name.to_string(), state)));
    }

    /// Peak rate of a group.
    fn rate(&self, rule: Rule) -> f64 {
        match rule {
            Rule::Muon => self.recipe.muon_lr(),
            Rule::AdamW | Rule::Lion => self.recipe.lr,
        }
    }

    fn adamw(&self, lr: f64, decay: f64) -> adamw::Settings {
        let (beta1, beta2, eps) = (self.recipe.beta1, self.recipe.beta2(), self.recipe.eps());
        adamw::Settings { lr, beta1, beta2, eps, updates: self.updates, decay }
    }

    fn lion(&self, lr: f64, decay: f64) -> lion::Settings {
        lion::Settings { lr, beta1: self.recipe.beta1, beta2: self.recipe.beta2(), decay }
    }

    fn muon(&self, lr: f64, decay: f64) -> muon::Settings {
        muon::Settings {
            lr,
            momentum: self.recipe.momentum(),
            nesterov: self.recipe.nesterov(),
            ns_steps: self.recipe.ns_steps(),
            dtype: match self.recipe.ns_precision() {
                NewtonSchulzPrecision::F32 => DType::F32,
                NewtonSchulzPrecision::Bf16 => DType::BF16,
            },
            adjust: self.recipe.adjust_lr_fn(),
            decay,
        }
    }

    /// The state as named tensors, in order of name.
    pub fn tensors(&self) -> Vec<Named> {
        let mut all = Vec::new();
        for (name, state) in &self.states {
            for (part, tensor) in state.parts() {
                all.push((format!("{name}.{part}"), tensor.dims().to_vec(), tensor.clone()));
            }
        }
        all
    }

    /// Takes up the state of a checkpoint: `tensor(name)` gives each tensor of each of `parameters` (name and
    /// shape); `None` from it means the checkpoint lacks it.
    ///
    /// # Errors
    /// The name of a tensor that is missing, or has another number of elements.
    pub fn restore(
        &mut self,
        updates: u64,
        parameters: &[(String, Vec<usize>)],
        mut tensor: impl FnMut(&str) -> Option<Tensor<1>>,
    ) -> Result<(), String> {
        self.updates = updates;
        self.states.clear();
        if updates == 0 {
            return Ok(());
        }
        for (name, shape) in parameters {
            let n: usize = shape.iter().product();
            let mut part = |part: &str| {
                let name = format!("{name}.{part}");
                let found = tensor(&name).ok_or_else(|| format!("`{name}` is missing"))?;
                match found.dims()[0] == n {
                    true => Ok(found),
                    false => Err(format!("`{name}` has {} elements, expected {n}", found.dims()[0])),
                }
            };
            let state = match rule(self.recipe.kind, name, shape) {
                Rule::AdamW => {
                    let [mean, square] = adamw::NAMES;
                    State::AdamW(adamw::Moments { mean_n: part(mean)?, square_n: part(square)? })
                }
                Rule::Muon => State::Muon(part(muon::NAME)?),
                Rule::Lion => State::Lion(part(lion::NAME)?),
            };
            self.states.insert(name.clone(), state);
        }
        Ok(())
    }

    /// The groups over `parameters` (name and shape) in words, for the log: rule, peak rate, tensors, elements.
    pub fn describe(&self, parameters: &[(String, Vec<usize>)]) -> String {
        let mut groups: BTreeMap<Rule, (usize, usize)> = BTreeMap::new();
        for (name, shape) in parameters {
            let (tensors, elements) = groups.entry(rule(self.recipe.kind, name, shape)).or_default();
            *tensors += 1;
            *elements += shape.iter().product::<usize>();
        }
        let line = |(rule, (tensors, elements)): (&Rule, &(usize, usize))| {
            format!("{} (lr {}): {elements} parameters in {tensors} tensors", rule.word(), self.rate(*rule))
        };
        groups.iter().map(line).collect::<Vec<_>>().join("; ")
    }
}

impl State {
    fn new(rule: Rule, like_n: &Tensor<1>) -> Self {
        match rule {
            Rule::AdamW => State::AdamW(adamw::Moments::zeros(like_n)),
            Rule::Muon => State::Muon(like_n.zeros_like()),
            Rule::Lion => State::Lion(like_n.zeros_like()),
        }
    }

    /// The tensors with their names' last part in a checkpoint.
    fn parts(&self) -> Vec<(&'static str, &Tensor<1>)> {
        match self {
            State::AdamW(moments) => adamw::NAMES.into_iter().zip([&moments.mean_n, &moments.square_n]).collect(),
            State::Muon(momentum_n) => vec![(muon::NAME, momentum_n)],
            State::Lion(mean_n) => vec![(lion::NAME, mean_n)],
        }
    }
}

impl Rule {
    fn word(self) -> &'static str {
        match self {
            Rule::Muon => "muon",
            Rule::AdamW => "adamw",
            Rule::Lion => "lion",
        }
    }
}

/// Muon is for the matrices between the embedding and the head, whose rows and columns are both hidden; for the
/// others, and for gains and biases, its authors use AdamW.
fn rule(kind: OptimizerKind, name: &str, shape: &[usize]) -> Rule {
    match kind {
        OptimizerKind::AdamW => Rule::AdamW,
        OptimizerKind::Lion => Rule::Lion,
        OptimizerKind::Muon if shape.len() == 2 && ![EMBEDDING, HEAD, SCORE].contains(&name) => Rule::Muon,
        OptimizerKind::Muon => Rule::AdamW,
    }
}

/// Values times the decay; untouched, to the bit, where it is 1.
fn decayed(values_n: Tensor<1>, decay: f64) -> Tensor<1> {
    if decay == 1.0 { values_n } else { values_n * decay }
}
