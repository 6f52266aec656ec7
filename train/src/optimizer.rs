//! AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), state in f32, by parameter name.
//!
//! Shapes: n elements of one parameter, flattened.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use fornax_model::parameters::ParameterMut;

use crate::recipe::OptimizerRecipe;

/// The optimizer and its moments.
#[derive(Debug)]
pub struct AdamW {
    recipe: OptimizerRecipe,
    moments: BTreeMap<String, Moments>,
    /// Updates applied; the bias corrections depend on it.
    updates: u64,
}

/// Running means of a parameter's gradient and of its square.
#[derive(Debug, Clone)]
struct Moments {
    mean_n: Tensor<1>,
    square_n: Tensor<1>,
}

/// Suffixes of the two moments' names in a checkpoint; PyTorch's names.
const MEAN: &str = "exp_avg";
const SQUARE: &str = "exp_avg_sq";

impl AdamW {
    /// An optimizer that has not made an update yet.
    pub fn new(recipe: &OptimizerRecipe) -> Self {
        Self { recipe: recipe.clone(), moments: BTreeMap::new(), updates: 0 }
    }

    /// Updates applied.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Begins the next update; call once a step, before [`AdamW::update`] of each parameter.
    pub fn begin(&mut self) {
        self.updates += 1;
    }

    /// Applies one update: `p -= lr * (m / c1) / (sqrt(v / c2) + eps)`, after the decay `p *= 1 - lr * wd`
    /// for matrices; biases and gains are not decayed. The arithmetic is torch.optim.AdamW's.
    pub fn update(&mut self, name: &str, parameter: &mut ParameterMut<'_>, gradient_n: Tensor<1>, lr: f64) {
        let OptimizerRecipe { beta1, beta2, eps, weight_decay, .. } = self.recipe;
        let moments = self
            .moments
            .remove(name)
            .unwrap_or_else(|| Moments { mean_n: gradient_n.zeros_like(), square_n: gradient_n.zeros_like() });
        let mean_n = moments.mean_n * beta1 + gradient_n.clone() * (1.0 - beta1);
        let square_n = moments.square_n * beta2 + gradient_n.square() * (1.0 - beta2);
        let steps = self.updates as i32;
        let (correction1, correction2) = (1.0 - beta1.powi(steps), 1.0 - beta2.powi(steps));
        let root_n = square_n.clone().sqrt() / correction2.sqrt() + eps;
        let mut values_n = parameter.flat();
        if weight_decay != 0.0 && parameter.shape().len() > 1 {
            values_n = values_n * (1.0 - lr * weight_decay);
        }
        parameter.set_flat(values_n - mean_n.clone() / root_n * (lr / correction1));
        self.moments.insert(name.to_string(), Moments { mean_n, square_n });
    }

    /// The moments as named tensors, in order of name.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>, Tensor<1>)> {
        let named = |name: &str, part: &str, tensor: &Tensor<1>| {
            (format!("{name}.{part}"), tensor.dims().to_vec(), tensor.clone())
        };
        self.moments
            .iter()
            .flat_map(|(name, m)| [named(name, MEAN, &m.mean_n), named(name, SQUARE, &m.square_n)])
            .collect()
    }

    /// Takes up the state of a checkpoint: `tensor(name)` gives each moment of each of `parameters`
    /// (name and number of elements); `None` from it means the checkpoint lacks it.
    ///
    /// # Errors
    /// The name of a moment that is missing, or has another number of elements.
    pub fn restore(
        &mut self,
        updates: u64,
        parameters: &[(String, usize)],
        mut tensor: impl FnMut(&str) -> Option<Tensor<1>>,
    ) -> Result<(), String> {
        self.updates = updates;
        self.moments.clear();
        if updates == 0 {
            return Ok(());
        }
        for (name, n) in parameters {
            let mut part = |part: &str| {
                let name = format!("{name}.{part}");
                let found = tensor(&name).ok_or_else(|| format!("`{name}` is missing"))?;
                match found.dims()[0] == *n {
                    true => Ok(found),
                    false => Err(format!("`{name}` has {} elements, expected {n}", found.dims()[0])),
                }
            };
            let moments = Moments { mean_n: part(MEAN)?, square_n: part(SQUARE)? };
            self.moments.insert(name.clone(), moments);
        }
        Ok(())
    }
}
