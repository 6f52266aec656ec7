//! The parameters of a model by name, whatever their rank: what optimizers, checkpoints and exporters see.

use burn::tensor::{Gradients, Tensor};

use crate::adapter::{AdapterId, Branch, PerAdapter};
use crate::embedding::Embedding;
use crate::norm::RmsNorm;
use crate::projection::Projection;

/// A visit of every parameter in a fixed order: the name as Hugging Face spells it, and the tensor.
pub type Visit<'a> = &'a mut dyn FnMut(&str, ParameterMut<'_>);

/// A visit that is told whose each parameter is: an adapter's, or the base's (`None`).
pub(crate) type VisitOwned<'a> = &'a mut dyn FnMut(&str, Option<AdapterId>, ParameterMut<'_>);

/// A visit of every module that carries parameters, in the same order, by its name.
pub(crate) type VisitModules<'a> = &'a mut dyn FnMut(&str, ModuleMut<'_>);

/// One module, open for replacement.
#[derive(Debug)]
pub(crate) enum ModuleMut<'a> {
    Embedding(&'a mut Embedding),
    Projection(&'a mut Projection),
    Norm(&'a mut RmsNorm),
    /// The head of a model whose head is the embedding table: only what adapters make of it is its own.
    TiedHead(&'a mut PerAdapter<Branch>),
}

impl ModuleMut<'_> {
    pub(crate) fn visit_owned(self, name: &str, visit: VisitOwned<'_>) {
        match self {
            ModuleMut::Embedding(embedding) => embedding.visit_owned(name, visit),
            ModuleMut::Projection(projection) => projection.visit_owned(name, visit),
            ModuleMut::Norm(norm) => norm.visit_owned(name, visit),
            ModuleMut::TiedHead(branches) => {
                for (adapter, suffix, branch) in branches.iter_mut() {
                    branch.visit(name, suffix, adapter, visit);
                }
            }
        }
    }
}

/// One parameter, open for replacement.
#[derive(Debug)]
pub enum ParameterMut<'a> {
    /// A bias or a normalization gain.
    Vector(&'a mut Tensor<1>),
    /// A weight matrix or an embedding table.
    Matrix(&'a mut Tensor<2>),
}

impl ParameterMut<'_> {
    /// Dimensions.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            ParameterMut::Vector(tensor) => tensor.dims().to_vec(),
            ParameterMut::Matrix(tensor) => tensor.dims().to_vec(),
        }
    }

    /// The values as one vector, off the autodiff graph.
    pub fn flat(&self) -> Tensor<1> {
        match self {
            ParameterMut::Vector(tensor) => (**tensor).clone().without_autodiff(),
            ParameterMut::Matrix(tensor) => {
                let n: usize = tensor.dims().iter().product();
                (**tensor).clone().without_autodiff().reshape([n])
            }
        }
    }

    /// Whether a gradient is wanted.
    pub fn is_trainable(&self) -> bool {
        match self {
            ParameterMut::Vector(tensor) => tensor.is_require_grad(),
            ParameterMut::Matrix(tensor) => tensor.is_require_grad(),
        }
    }

    /// Whether gradients flow through it: it wants one itself, or was computed from what does.
    pub fn is_tracked(&self) -> bool {
        match self {
            ParameterMut::Vector(tensor) => tensor.is_tracked(),
            ParameterMut::Matrix(tensor) => tensor.is_tracked(),
        }
    }

    /// The gradient as one vector, taken out of `gradients`; `None` where backward did not reach it.
    pub fn take_gradient(&self, gradients: &mut Gradients) -> Option<Tensor<1>> {
        match self {
            ParameterMut::Vector(tensor) => tensor.grad_remove(gradients),
            ParameterMut::Matrix(tensor) => {
                let n: usize = tensor.dims().iter().product();
                tensor.grad_remove(gradients).map(|gradient| gradient.reshape([n]))
            }
        }
    }

    /// Replaces the values; the shape, and whether a gradient is wanted, stay.
    pub fn set_flat(&mut self, values_n: Tensor<1>) {
        match self {
            ParameterMut::Vector(tensor) => **tensor = like(tensor, values_n),
            ParameterMut::Matrix(tensor) => {
                let shape = tensor.dims();
                **tensor = like(tensor, values_n.reshape(shape));
            }
        }
    }

    /// As `set_flat` of what `new` makes of the values: in their own buffer where the op can and no one else
    /// holds it.
    pub fn update_flat(&mut self, new: impl FnOnce(Tensor<1>) -> Tensor<1>) {
        match self {
            ParameterMut::Vector(tensor) => tensor.inplace(|tensor| updated(tensor, new)),
            ParameterMut::Matrix(tensor) => tensor.inplace(|tensor| {
                let shape = tensor.dims();
                updated(tensor, |values| new(values.reshape([shape[0] * shape[1]])).reshape(shape))
            }),
        }
    }

    /// Puts the parameter on the autodiff device and asks for its gradient, or takes it off.
    pub fn set_trainable(&mut self, trainable: bool) {
        match self {
            ParameterMut::Vector(tensor) => **tensor = tracked((**tensor).clone(), trainable),
            ParameterMut::Matrix(tensor) => **tensor = tracked((**tensor).clone(), trainable),
        }
    }
}

fn updated<const D: usize>(old: Tensor<D>, new: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let (on_graph, trainable) = (old.is_autodiff(), old.is_require_grad());
    let new = new(old.without_autodiff());
    if on_graph { tracked(new, trainable) } else { new }
}

fn like<const D: usize>(old: &Tensor<D>, new: Tensor<D>) -> Tensor<D> {
    if old.is_autodiff() { tracked(new, old.is_require_grad()) } else { new }
}

fn tracked<const D: usize>(tensor: Tensor<D>, trainable: bool) -> Tensor<D> {
    let plain = tensor.without_autodiff();
    if trainable { plain.autodiff().require_grad() } else { plain }
}
