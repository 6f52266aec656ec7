//! Adapters: small trained parts on a frozen model, by PEFT's settings, names and arithmetic.
//!
//! A projection with adapters ([`Adapted`]) computes `x Wᵀ + s (drop(x) Aᵀ) Bᵀ` on activations; the sum `W + s B A` is
//! made by [`Decoder::merged`] alone. Several adapters may be loaded: one is active, and [`Layout::adapter_per_row`]
//! chooses for each row. `config` is what PEFT calls `LoraConfig`, `targets` finds the modules, `branch` computes, `choice`
//! sorts rows and draws dropout, `merge` folds adapters in; the files are in [`weights::peft`].
//!
//! [`Layout::adapter_per_row`]: crate::Layout::adapter_per_row
//! [`weights::peft`]: crate::weights::peft

mod branch;
mod choice;
mod config;
mod error;
mod merge;
mod targets;

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::numbers::grouped;
use fornax_base::rng::rng;

use crate::decoder::Decoder;
use crate::embedding::EmbeddingBranch;
use crate::parameters::ModuleMut;
use crate::projection::Projection;

pub use branch::Adapted;
pub(crate) use branch::{Branch, PerAdapter, Source};
pub(crate) use choice::{Choice, Dropout, Pass};
pub use config::{AdapterConfig, Init, MAX_RANK, Targets};
pub use error::AdapterError;
pub use merge::largest_logit_difference;
pub(crate) use targets::head_module;
pub use targets::{Change, Module, ModuleKind, Planned, modules, plan, short_names, unknown_names};

/// Name of an adapter whose parameters carry no name.
pub const DEFAULT_NAME: &str = "default";

/// One of the adapters loaded on a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterId(pub(crate) u32);

/// The adapters on a decoder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Adapters {
    loaded: Vec<Loaded>,
    active: Option<AdapterId>,
    /// Number of the next one; numbers do not come again.
    next: u32,
}

#[derive(Debug, Clone)]
struct Loaded {
    id: AdapterId,
    name: String,
    config: Arc<AdapterConfig>,
}

impl Adapters {
    pub(crate) fn active(&self) -> Option<AdapterId> {
        self.active
    }

    /// Whether a parameter of that owner is to be trained.
    pub(crate) fn trains(&self, owner: Option<AdapterId>) -> bool {
        match owner {
            None => self.loaded.is_empty(),
            Some(_) => owner == self.active,
        }
    }
}

/// Shape by shape, the values of an adapter's tensors by their names on disk.
type Tensors<'a> = &'a mut dyn FnMut(&str, &[usize]) -> Result<Option<Tensor<1>>, AdapterError>;

impl Decoder {
    /// Puts a new adapter on the model and makes it the active one. It begins without any effect: A is drawn from
    /// `seed` as the configuration says, B is zero, modules to save are copies. Nothing is trainable afterwards until
    /// [`Decoder::trainable`].
    ///
    /// # Errors
    /// [`AdapterError::Setting`], also for names in lists that this model does not have; [`AdapterError::Name`] and
    /// [`AdapterError::Taken`].
    pub fn attach(&mut self, name: &str, config: AdapterConfig, seed: u64) -> Result<AdapterId, AdapterError> {
        let unknown = unknown_names(&config, self.config());
        if !unknown.is_empty() {
            let message = format!(
                "`{}` names no module of this model ({})",
                unknown.join("`, `"),
                short_names(self.config()).join(", ")
            );
            return Err(AdapterError::Setting { key: "target_modules", message });
        }
        let (init, device) = (config.init, self.device().without_autodiff());
        self.attach_from(name, config, &mut |tensor, shape| Ok(initial(init, seed, tensor, shape, &device)))
    }

    /// As [`Decoder::attach`], with tensors from elsewhere.
    pub(crate) fn attach_from(
        &mut self,
        name: &str,
        mut config: AdapterConfig,
        tensors: Tensors<'_>,
    ) -> Result<AdapterId, AdapterError> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(good) {
            return Err(AdapterError::Name { name: name.into() });
        }
        if self.adapters.loaded.iter().any(|loaded| loaded.name == name) {
            return Err(AdapterError::Taken { name: name.into() });
        }
        let planned = plan(&config, self.config())?;
        let id = AdapterId(self.adapters.next);
        let suffix: Arc<str> = if name == DEFAULT_NAME { "".into() } else { format!(".{name}").into() };
        // On a copy of the handles, so that an error leaves the model as it was.
        let mut with = self.clone();
        let table_vc = with.embedding.table_vc.clone().without_autodiff();
        let (mut failed, settings) = (None, (config.dropout, config.dora));
        with.modules_mut(&mut |name, module| {
            let Some(planned) = planned.iter().find(|planned| planned.module.name == name) else { return };
            if failed.is_none() {
                let of_module = &mut |part: &str, shape: &[usize]| tensors(&format!("{name}.{part}"), shape);
                failed = put_on(module, planned, settings, (id, &suffix), &table_vc, of_module).err();
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        config.targets = targets::resolved(&config.targets, self.config());
        with.adapters.next += 1;
        with.adapters.loaded.push(Loaded { id, name: name.into(), config: config.into() });
        *self = with;
        self.activate(Some(id));
        Ok(id)
    }

    /// Takes an adapter off again.
    pub fn detach(&mut self, id: AdapterId) {
        self.modules_mut(&mut |_, module| match module {
            ModuleMut::Projection(projection) => projection.unwrap_adapter(id),
            ModuleMut::Norm(norm) => norm.saved.remove(id),
            ModuleMut::Embedding(embedding) => embedding.branches.remove(id),
            ModuleMut::TiedHead(branches) => branches.remove(id),
        });
        self.adapters.loaded.retain(|loaded| loaded.id != id);
        if self.adapters.active == Some(id) {
            self.adapters.active = None;
        }
    }

    /// Chooses the adapter that is used where the layout says nothing, and trained; `None` is the base model. Nothing
    /// is trainable afterwards until [`Decoder::trainable`].
    ///
    /// # Panics
    /// Panics when the adapter is not on this decoder.
    pub fn activate(&mut self, adapter: Option<AdapterId>) {
        let known = |id| self.adapters.loaded.iter().any(|loaded| loaded.id == id);
        assert!(adapter.is_none_or(known), "adapter {adapter:?} is not loaded");
        self.adapters.active = adapter;
        *self = self.clone().trainable(false);
    }

    /// The active adapter.
    pub fn active_adapter(&self) -> Option<AdapterId> {
        self.adapters.active
    }

    /// The adapters by number, name and configuration, in the order they were loaded.
    pub fn adapters(&self) -> impl Iterator<Item = (AdapterId, &str, &AdapterConfig)> {
        self.adapters.loaded.iter().map(|loaded| (loaded.id, loaded.name.as_str(), &*loaded.config))
    }

    /// The model alone, without gradients: the reference of preference losses. Handles only: nothing is copied.
    #[must_use]
    pub fn without_adapters(&self) -> Self {
        let mut base = self.clone();
        base.modules_mut(&mut |_, module| match module {
            ModuleMut::Projection(projection) => *projection = projection.base(),
            ModuleMut::Norm(norm) => norm.saved = PerAdapter::default(),
            ModuleMut::Embedding(embedding) => embedding.branches = PerAdapter::default(),
            ModuleMut::TiedHead(branches) => *branches = PerAdapter::default(),
        });
        base.adapters = Adapters::default();
        base.dropout = None;
        base.trainable(false).for_one_pass()
    }

    /// The same decoder for a training pass in which the adapters' dropout is on: its masks are a function of the
    /// seed, the step, the micro-batch, the number of forward passes since this call, and the module. Handles only.
    #[must_use]
    pub fn with_dropout(&self, seed: u64, step: u64, micro_batch: u64) -> Self {
        let mut pass = self.clone();
        pass.dropout = Some(Dropout::new(seed, step, micro_batch));
        pass
    }

    /// Keeps what follows from parameters that nobody changes now: DoRA's factors.
    pub(crate) fn settle_adapters(&mut self) {
        self.modules_mut(&mut |_, module| {
            let ModuleMut::Projection(Projection::Lora(adapted)) = module else { return };
            let Adapted { base, branches, .. } = &mut **adapted;
            for (_, _, branch) in branches.iter_mut() {
                if let Branch::LowRank(low) = branch {
                    low.settle(base);
                }
            }
        });
    }

    /// Numbers of values: (those that [`Decoder::trainable`] trains, all), as PEFT counts them: copies of modules to
    /// save and the parameters of every loaded adapter are among all, a tied table counts once, a packed weight as the
    /// dense one it stands for.
    pub fn parameter_counts(&self) -> (u64, u64) {
        let count = |shape: &[usize]| shape.iter().map(|&d| d as u64).product::<u64>();
        let shapes = crate::decoder::parameter_shapes(self.config(), self.config().n_layers);
        let base: u64 = shapes.iter().map(|(_, shape)| count(shape)).sum();
        let (mut trained, mut adapted) = (0, 0);
        self.clone().visit_owned(&mut |_, owner, parameter| {
            let n = count(&parameter.shape());
            if owner.is_some() {
                adapted += n;
                trained += if self.adapters.trains(owner) { n } else { 0 };
            }
        });
        let packed =
            self.packed().into_iter().map(|(_, weight)| count(&[weight.shape().out, weight.shape().input]));
        let trained = if self.adapters.loaded.is_empty() { base - packed.sum::<u64>() } else { trained };
        (trained, base + adapted)
    }

    /// `trainable params: 294,912 || all params: 124,734,720 || trainable%: 0.2364`, PEFT's
    /// `print_trainable_parameters`.
    pub fn trainable_line(&self) -> String {
        let (trained, all) = self.parameter_counts();
        let percent = 100.0 * trained as f64 / (all as f64).max(1.0);
        format!(
            "trainable params: {} || all params: {} || trainable%: {percent:.4}",
            grouped(trained),
            grouped(all)
        )
    }

    /// The tensors of an adapter by their names on disk, without PEFT's prefix. Handles only.
    pub(crate) fn adapter_tensors(&self, id: AdapterId) -> Vec<(String, Vec<usize>, Tensor<1>)> {
        let name = self.adapters.loaded.iter().find(|loaded| loaded.id == id).map_or("", |l| &l.name);
        let suffix = if name == DEFAULT_NAME { String::new() } else { format!(".{name}") };
        let mut all = Vec::new();
        self.clone().visit_owned(&mut |name, owner, parameter| {
            if owner == Some(id) {
                all.push((disk_name(name, &suffix), parameter.shape(), parameter.flat()));
            }
        });
        all
    }
}

/// `a.lora_A.NAME.weight` -> `a.lora_A.weight`; `lm_head.modules_to_save.NAME.weight` -> `lm_head.weight`.
fn disk_name(name: &str, suffix: &str) -> String {
    let named = match name.rfind(suffix) {
        Some(at) => format!("{}{}", &name[..at], &name[at + suffix.len()..]),
        None => name.to_string(),
    };
    named.replacen(".modules_to_save", "", 1)
}

/// The opening values of a tensor, or `None` where they are zero or the base's.
fn initial(init: Init, seed: u64, name: &str, shape: &[usize], device: &Device) -> Option<Tensor<1>> {
    let mut random = rng(seed, 0, &format!("adapter {name}"));
    let n: usize = shape.iter().product();
    let values: Vec<f32> = if name.ends_with(".lora_A.weight") {
        let (rank, input) = (shape[0] as f32, shape[1] as f32);
        match init {
            Init::Kaiming => (0..n).map(|_| (2.0 * random.uniform_f32() - 1.0) / input.sqrt()).collect(),
            Init::Gaussian => (0..n).map(|_| random.normal_f32() / rank).collect(),
        }
    } else if name.ends_with(".lora_embedding_B") {
        (0..n).map(|_| random.normal_f32()).collect()
    } else {
        return None;
    };
    Some(Tensor::from_data(TensorData::new(values, [n]), (device, DType::F32)))
}

/// Adds the branch of an adapter to one module.
fn put_on(
    module: ModuleMut<'_>,
    planned: &Planned,
    settings: (f64, bool),
    (id, suffix): (AdapterId, &Arc<str>),
    table_vc: &Tensor<2>,
    source: Source<'_, AdapterError>,
) -> Result<(), AdapterError> {
    let (change, name, suffix) = (planned.change, planned.module.name.as_str(), Arc::clone(suffix));
    match (module, planned.module.kind) {
        (ModuleMut::Projection(projection), ModuleKind::Linear { out, input, .. }) => {
            let branch = Branch::new(&projection.base(), [out, input], change, settings, source)?;
            projection.wrap(name, id, suffix, branch);
        }
        (ModuleMut::TiedHead(branches), ModuleKind::Linear { out, input, .. }) => {
            let base = Projection::Dense { weight: table_vc.clone(), bias: None };
            branches.push(id, suffix, Branch::new(&base, [out, input], change, settings, source)?);
        }
        (ModuleMut::Norm(norm), ModuleKind::Norm { width }) => {
            let gain = source("weight", &[width])?;
            let base = || norm.gain.clone().without_autodiff().cast(DType::F32);
            let gain = gain.unwrap_or_else(base);
            norm.saved.push(id, suffix, gain);
        }
        (ModuleMut::Embedding(embedding), ModuleKind::Embedding { vocab, width }) => {
            embedding.branches.push(id, suffix, embedding_branch(table_vc, [vocab, width], change, source)?);
        }
        // The plan is made from the same configuration as the modules.
        _ => {}
    }
    Ok(())
}

fn embedding_branch(
    table_vc: &Tensor<2>,
    [v, c]: [usize; 2],
    change: Change,
    source: Source<'_, AdapterError>,
) -> Result<EmbeddingBranch, AdapterError> {
    let zeros = |shape: [usize; 2]| Tensor::zeros(shape, (&table_vc.device(), DType::F32));
    Ok(match change {
        Change::Whole => {
            let values = source("weight", &[v, c])?;
            let table_vc =
                values.map_or_else(|| table_vc.clone().cast(DType::F32), |values| values.reshape([v, c]));
            EmbeddingBranch::Whole { table_vc }
        }
        Change::LowRank { rank, scale } => {
            let a_rv = source("lora_embedding_A", &[rank, v])?;
            let b_cr = source("lora_embedding_B", &[c, rank])?;
            EmbeddingBranch::LowRank {
                a_rv: a_rv.map_or_else(|| zeros([rank, v]), |values| values.reshape([rank, v])),
                b_cr: b_cr.map_or_else(|| zeros([c, rank]), |values| values.reshape([c, rank])),
                scale: scale as f32,
            }
        }
    })
}
