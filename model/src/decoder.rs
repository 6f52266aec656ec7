//! The decoder, used by training, prefill and decoding alike: embed, blocks, norm, head.
//!
//! Shapes: b batch, t time, n rows (b * t), c channels, v vocabulary.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData};
use fornax_base::rng::rng;

use crate::adapter::{AdapterId, Adapters, Branch, Choice, Dropout, Pass, PerAdapter, head_module};
use crate::attention::{Attention, Shared};
use crate::config::ModelConfig;
use crate::embedding::Embedding;
use crate::kv_cache::KvCache;
use crate::layout::Layout;
use crate::mlp::Mlp;
use crate::norm::RmsNorm;
use crate::ops::{self, AttentionMask, TokenScores};
use crate::packed::{Packed, Packing};
use crate::parameters::{ModuleMut, ParameterMut, Visit, VisitModules, VisitOwned};
use crate::projection::Projection;
use crate::recompute::Waiting;
use crate::rope::Rope;
use crate::trace::Trace;

/// A decoder-only language model.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub(crate) config: ModelConfig,
    pub(crate) embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    /// `None` when the head is the embedding table.
    pub(crate) head: Option<Projection>,
    /// What adapters make of a head that is the embedding table.
    pub(crate) tied_head: PerAdapter<Branch>,
    rope: Rope,
    /// Dtype of the matrix products; parameters and the residual stream keep their own.
    compute: DType,
    /// Blocks to run again in [`Decoder::backward`]; `None` keeps every activation instead.
    waiting: Option<Waiting>,
    pub(crate) adapters: Adapters,
    /// What the masks of the adapters' dropout are a function of; `None` drops nothing.
    pub(crate) dropout: Option<Dropout>,
}

/// One layer: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: Mlp,
    window: Option<usize>,
}

impl Decoder {
    /// A decoder with random weights, a function of `seed` alone, on `device`, in f32:
    ///
    /// | parameter | distribution |
    /// |---|---|
    /// | matrices, embedding | normal, deviation `init_std` |
    /// | output projections of both blocks | normal, deviation `init_std / sqrt(2 n_layers)` (GPT-2) |
    /// | normalization gains | 1 |
    /// | biases | 0 |
    pub fn init(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        Self::random(config, seed, None, device)
    }

    /// As [`Decoder::init`], with the linear layers of the blocks packed as they come (see [`Decoder::quantized`]).
    pub fn init_packed(config: &ModelConfig, seed: u64, packing: Packing, device: &Device) -> Self {
        Self::random(config, seed, Some(packing), device)
    }

    fn random(config: &ModelConfig, seed: u64, packing: Option<Packing>, device: &Device) -> Self {
        let residual = config.init_std / (2.0 * config.n_layers as f64).sqrt();
        let fill = |name: &str, shape: &[usize]| -> Result<TensorData, std::convert::Infallible> {
            let n = shape.iter().product();
            let values = if name.ends_with("norm.weight") {
                vec![1.0; n]
            } else if name.ends_with(".bias") {
                vec![0.0; n]
            } else {
                let output = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
                let deviation = (if output { residual } else { config.init_std }) as f32;
                let mut random = rng(seed, 0, name);
                (0..n).map(|_| random.normal_f32() * deviation).collect()
            };
            Ok(TensorData::new(values, shape.to_vec()))
        };
        match Self::build(config, (DType::F32, packing), device, fill) {
            Ok(decoder) => decoder,
            Err(never) => match never {},
        }
    }

    /// Builds a decoder from its parameters: `parameter(name, shape)` is asked for each in order, and its
    /// data stored as `dtype`, which is also the dtype of computation until [`Decoder::set_compute`]. With a packing
    /// the linear layers of the blocks are packed as they come, so that one of them at a time is dense.
    pub(crate) fn build<E>(
        config: &ModelConfig,
        (dtype, packing): (DType, Option<Packing>),
        device: &Device,
        mut parameter: impl FnMut(&str, &[usize]) -> Result<TensorData, E>,
    ) -> Result<Self, E> {
        let mut parts = Parts { config, dtype, packing, device, parameter: &mut parameter };
        let table_vc = parts.matrix(EMBEDDING, config.vocab_size, config.width)?;
        let blocks = (0..config.n_layers).map(|i| parts.block(i)).collect::<Result<_, E>>()?;
        let norm = parts.norm("model.norm", config.width)?;
        let mut head = |name: &str, rows: usize| {
            let weight = parts.matrix(name, rows, config.width)?;
            Ok(Some(Projection::Dense { weight, bias: None }))
        };
        let head = match (config.reward, config.tied) {
            (true, _) => head(SCORE, 1)?,
            (_, true) => None,
            (_, false) => head(HEAD, config.vocab_size)?,
        };
        let rope = Rope::new(config, device);
        Ok(Self {
            config: config.clone(),
            embedding: Embedding { table_vc, branches: PerAdapter::default() },
            blocks,
            norm,
            head,
            tied_head: PerAdapter::default(),
            rope,
            compute: dtype,
            waiting: None,
            adapters: Adapters::default(),
            dropout: None,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the parameters live: the autodiff device while the embedding table is trained.
    pub fn device(&self) -> Device {
        self.embedding.table_vc.device()
    }

    /// Adds a token to those that end a text, in the configuration that is saved with the model.
    pub fn add_eos_id(&mut self, id: u32) {
        if !self.config.eos_ids.contains(&id) {
            self.config.eos_ids.push(id);
        }
    }

    /// Dtype of the matrix products.
    pub fn compute(&self) -> DType {
        self.compute
    }

    /// Sets the dtype of the matrix products: f32, bf16 or f16.
    pub fn set_compute(&mut self, dtype: DType) {
        self.compute = dtype;
    }

    /// Activation checkpointing by block (Chen et al. 2016, arXiv:1604.06174): a forward pass with gradients
    /// keeps the input of each block, and [`Decoder::backward`] runs the blocks again. Less memory, the same
    /// gradients to the bit, and the forward of all blocks twice.
    pub fn set_activation_checkpointing(&mut self, on: bool) {
        self.waiting = on.then(Waiting::default);
    }

    /// This decoder for one forward and backward pass: blocks that wait for a backward which never comes are
    /// forgotten with it. Handles only: nothing is copied.
    #[must_use]
    pub fn for_one_pass(&self) -> Self {
        Self { waiting: self.waiting.as_ref().map(|_| Waiting::default()), ..self.clone() }
    }

    /// tokens_bt -> hidden_btc, after the last normalization, in the compute dtype.
    ///
    /// With a contiguous cache the tokens follow those it holds, and it holds them afterwards. With a paged one `layout`
    /// says where the tokens stand ([`Layout::ragged`]). Token ids must be below `vocab_size`.
    ///
    /// # Panics
    /// Panics when the cache has no room, when documents are given together with a cache or segments without one, or when a
    /// gradient is wanted through a cache: see [`Decoder::trainable`].
    pub fn forward(&self, tokens_bt: Tensor<2, Int>, layout: &Layout, cache: Option<&mut KvCache>) -> Tensor<3> {
        self.observed(tokens_bt, layout, cache, None, self.blocks.len())
    }

    /// As [`Decoder::forward`] with the leading `layers` layers alone: the hidden states of an early exit. Of the
    /// tokens that `cache` then counts it holds keys and values in these layers only, so it is to be truncated before
    /// the other layers read it.
    ///
    /// # Panics
    /// As [`Decoder::forward`].
    pub fn forward_leading(
        &self,
        layers: usize,
        tokens_bt: Tensor<2, Int>,
        layout: &Layout,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        self.observed(tokens_bt, layout, Some(cache), None, layers)
    }

    /// As [`Decoder::forward`] of one sequence without a cache, and shows the way of a token in `trace`.
    ///
    /// # Panics
    /// Panics when there is more than one row, or the trace's position lies outside of it.
    pub fn forward_traced(&self, tokens_bt: Tensor<2, Int>, layout: &Layout, trace: &mut Trace) -> Tensor<3> {
        assert!(tokens_bt.dims()[0] == 1, "a trace is of one sequence, not of {}", tokens_bt.dims()[0]);
        self.observed(tokens_bt, layout, None, Some(trace), self.blocks.len())
    }

    fn observed(
        &self,
        tokens_bt: Tensor<2, Int>,
        layout: &Layout,
        cache: Option<&mut KvCache>,
        trace: Option<&mut Trace>,
        layers: usize,
    ) -> Tensor<3> {
        let [b, t] = tokens_bt.dims();
        let mut shared = Shared { trace, ..self.shared([b, t], layout, cache) };
        let mut x_nc = self.embedding.forward(tokens_bt.reshape([b * t]), &shared.pass);
        shared.show(&x_nc);
        let waiting = self.waiting.as_ref().filter(|_| shared.cache.is_none() && shared.trace.is_none());
        for (layer, block) in self.blocks.iter().take(layers).enumerate() {
            x_nc = match waiting {
                Some(waiting) => waiting.forward(block, layer, self.compute, &shared, x_nc),
                None => block.forward(x_nc, layer, self.compute, &mut shared),
            };
        }
        if let Some((cache, _)) = shared.cache {
            cache.advance(t);
        }
        self.norm.forward_as(x_nc, self.compute, &shared.pass).reshape([b, t, self.config.width])
    }

    /// hidden_btc -> logits_btv in f32, capped where the configuration says so.
    pub fn logits(&self, hidden_btc: Tensor<3>) -> Tensor<3> {
        self.logits_by(hidden_btc, Choice::All(self.adapters.active()))
    }

    /// As [`Decoder::logits`], each row with its own adapter's head where `layout` chooses adapters.
    pub fn logits_of_rows(&self, hidden_btc: Tensor<3>, layout: &Layout) -> Tensor<3> {
        let rows = hidden_btc.dims()[0];
        self.logits_by(hidden_btc, self.choice(layout, rows))
    }

    fn logits_by(&self, hidden_btc: Tensor<3>, choice: Choice) -> Tensor<3> {
        let [b, t, c] = hidden_btc.dims();
        let hidden_nc = hidden_btc.reshape([b * t, c]);
        let of = |adapter, hidden_nc| {
            let (hidden_nx, head_vx) = self.with_head(hidden_nc, adapter);
            ops::linear(hidden_nx, head_vx, None)
        };
        let logits_nv = match &choice {
            Choice::PerRow(groups) if self.head_branches().is_some_and(|branches| branches.touches(&choice)) => {
                groups.by_group([hidden_nc], |adapter, [hidden_nc]| of(adapter, hidden_nc))
            }
            Choice::PerRow(_) => of(None, hidden_nc),
            Choice::All(adapter) => of(*adapter, hidden_nc),
        };
        let logits_nv = ops::softcap(logits_nv.cast(DType::F32), self.softcap());
        logits_nv.reshape([b, t, self.config.vocab_size])
    }

    /// Sum over all tokens of `weights * -log p(target)`, as (1) in f32: head and loss by chunks.
    pub fn loss(&self, hidden_btc: Tensor<3>, targets_bt: Tensor<2, Int>, weights_bt: Tensor<2>) -> Tensor<1> {
        self.loss_with_z(hidden_btc, targets_bt, weights_bt, 0.0).0
    }

    /// As [`Decoder::loss`], plus the weighted sum of `z_loss * log(Z)^2`: -> (both (1), the second term
    /// alone and without a gradient (1)).
    pub fn loss_with_z(
        &self,
        hidden_btc: Tensor<3>,
        targets_bt: Tensor<2, Int>,
        weights_bt: Tensor<2>,
        z_loss: f32,
    ) -> (Tensor<1>, Tensor<1>) {
        let [b, t, c] = hidden_btc.dims();
        let n = b * t;
        let (targets_n, weights_n) = (targets_bt.reshape([n]), weights_bt.reshape([n]));
        let hidden_nc = hidden_btc.reshape([n, c]);
        let (hidden_nx, head_vx) = self.with_head(hidden_nc, self.adapters.active());
        ops::cross_entropy(hidden_nx, head_vx, targets_n, weights_n, z_loss, self.softcap())
    }

    /// The gradient of `loss` by every parameter that it reaches, each as one vector.
    ///
    /// Use this instead of `loss.backward()`: with activation checkpointing the blocks of all forward passes
    /// since the last call run again here.
    pub fn backward(&self, loss: &Tensor<1>) -> BTreeMap<String, Tensor<1>> {
        let (mut all, mut reader) = (BTreeMap::<String, Tensor<1>>::new(), self.clone());
        let mut take = |mut gradients: Gradients| {
            reader.visit_mut(&mut |name, parameter| {
                let Some(gradient_n) = parameter.take_gradient(&mut gradients) else { return };
                // A tied head and the embedding are one parameter on two tapes.
                let sum = match all.remove(name) {
                    Some(earlier) => earlier + gradient_n,
                    None => gradient_n,
                };
                all.insert(name.to_string(), sum);
            });
        };
        match &self.waiting {
            Some(waiting) => waiting.backward(loss, take),
            None => take(loss.backward()),
        }
        all
    }

    /// `-log p(target)` of every token, (b * t) in f32, without a gradient.
    pub fn token_nll(&self, hidden_btc: Tensor<3>, targets_bt: Tensor<2, Int>) -> Tensor<1> {
        let [b, t, c] = hidden_btc.dims();
        let (hidden_nc, targets_n) = (hidden_btc.reshape([b * t, c]), targets_bt.reshape([b * t]));
        let (hidden_nx, head_vx) = self.with_head(hidden_nc, self.adapters.active());
        ops::token_nll(hidden_nx, head_vx, targets_n, self.softcap())
    }

    /// Sum over rows of `weights_n` times the divergence of this decoder's distribution from the teacher's, as (1)
    /// in f32, both heads by chunks; see [`ops::DivergenceOptions::beta`]. Gradients go to this decoder alone.
    ///
    /// # Panics
    /// Panics when the vocabularies differ in size.
    pub fn divergence(
        &self,
        hidden_nc: Tensor<2>,
        teacher: (&Decoder, Tensor<2>),
        weights_n: Tensor<1>,
        beta: f32,
        temperature: f32,
    ) -> Tensor<1> {
        let (teacher, teacher_hidden) = teacher;
        let options = ops::DivergenceOptions {
            softcap: self.softcap(),
            teacher_softcap: teacher.softcap(),
            ..ops::DivergenceOptions::new(beta, temperature, self.config.vocab_size)
        };
        let headed = |model: &Decoder, hidden_nc| {
            let (hidden_nc, head_vc) = model.with_head(hidden_nc, model.adapters.active());
            ops::Headed { hidden_nc, head_vc }
        };
        let (student, teacher) = (headed(self, hidden_nc), headed(teacher, teacher_hidden));
        ops::divergence(student, teacher, weights_n, options)
    }

    /// What the model says of each target where its last hidden state was `hidden_nc`, each n in f32: the
    /// negative log-likelihoods carry gradients.
    pub fn token_scores(&self, hidden_nc: Tensor<2>, targets_n: Tensor<1, Int>) -> TokenScores {
        let (hidden_nx, head_vx) = self.with_head(hidden_nc, self.adapters.active());
        ops::token_scores(hidden_nx, head_vx, targets_n, self.softcap())
    }

    /// A reward model of this decoder: one number for a text instead of logits, from a new head that is drawn from
    /// `seed` (normal, deviation `init_std`).
    #[must_use]
    pub fn into_reward_model(mut self, seed: u64) -> Self {
        self.config.reward = true;
        self.config.tied = false;
        let (c, device) = (self.config.width, self.device().without_autodiff());
        let mut random = rng(seed, 0, SCORE);
        let values: Vec<f32> = (0..c).map(|_| random.normal_f32() * self.config.init_std as f32).collect();
        let weight = Tensor::from_data(TensorData::new(values, [1, c]), (&device, DType::F32));
        self.head = Some(Projection::Dense { weight, bias: None });
        self
    }

    /// Rewards of n texts from the last hidden state of each, hidden_nc -> n in f32.
    ///
    /// # Panics
    /// Panics when this is no reward model.
    pub fn rewards(&self, hidden_nc: Tensor<2>) -> Tensor<1> {
        let head = self.head.as_ref().filter(|_| self.config.reward);
        let head = head.expect("rewards are asked of a reward model");
        let n = hidden_nc.dims()[0];
        ops::linear(hidden_nc, head.weight().cast(self.compute), None).cast(DType::F32).reshape([n])
    }

    /// Cap of the logits, 0 for none.
    fn softcap(&self) -> f32 {
        self.config.logit_softcap.map_or(0.0, |cap| cap as f32)
    }

    /// The hidden states and the head's weight whose product is the logits, in the compute dtype. A low-rank adapter
    /// of the head is a few more columns of both: `[h, s h Aᵀ] · [W, B]ᵀ`, so that the losses need no other form.
    fn with_head(&self, hidden_nc: Tensor<2>, adapter: Option<AdapterId>) -> (Tensor<2>, Tensor<2>) {
        assert!(!self.config.reward, "a reward model has no logits");
        let branch = adapter.and_then(|adapter| self.head_branches()?.get(adapter));
        let base = || match &self.head {
            None => self.embedding.table_vc.clone(),
            Some(head) => head.weight(),
        };
        match branch {
            None => (hidden_nc, base().cast(self.compute)),
            Some(Branch::Whole { weight_oi, .. }) => (hidden_nc, weight_oi.clone().cast(self.compute)),
            Some(Branch::LowRank(low)) => {
                let pass = self.pass(Choice::All(adapter));
                let dropped_nc = pass.drop(&hidden_nc, low.dropout, head_module());
                let low_nr = low.low(dropped_nc.unwrap_or_else(|| hidden_nc.clone()));
                let head = vec![base().cast(self.compute), low.b_or.clone().cast(self.compute)];
                (Tensor::cat(vec![hidden_nc, low_nr], 1), Tensor::cat(head, 1))
            }
        }
    }

    fn head_branches(&self) -> Option<&PerAdapter<Branch>> {
        match &self.head {
            None => Some(&self.tied_head),
            Some(head) => head.branches(),
        }
    }

    /// Which adapter each of `rows` rows uses.
    fn choice(&self, layout: &Layout, rows: usize) -> Choice {
        match &layout.adapter_per_row {
            None => Choice::All(self.adapters.active()),
            Some(per_row) => Choice::per_row(per_row, rows, &self.device().without_autodiff()),
        }
    }

    fn pass(&self, choice: Choice) -> Pass {
        Pass { choice, dropout: self.dropout.as_ref().map(Dropout::next) }
    }

    fn shared<'a>(&self, [b, t]: [usize; 2], layout: &Layout, cache: Option<&'a mut KvCache>) -> Shared<'a> {
        let (cos_btk, sin_btk) = self.rope.angles(layout.positions_bt.clone(), self.compute);
        let device = self.device().without_autodiff();
        let mut windows: Vec<_> = self.config.windows.clone();
        windows.sort_unstable();
        windows.dedup();
        assert!(cache.is_some() || layout.segments.is_none(), "a layout of segments without a KV cache");
        let cache = cache.map(|cache| {
            let placed = cache.place([b, t], layout, &device);
            (cache, placed)
        });
        windows.retain(|_| cache.is_none());
        let mask = |window| AttentionMask::new(0, t, window, layout.documents_bt.as_ref(), &device);
        let masks = windows.into_iter().map(|window| (window, mask(window))).collect();
        let pass = self.pass(self.choice(layout, b));
        Shared { rows: b, pass, cos_btk, sin_btk, masks, cache, trace: None }
    }

    /// Visits every parameter, in the order of [`parameter_shapes`], those of a module's adapters behind its own. A
    /// tied head is visited once, as the embedding. An adapter's parameters have the names of its file:
    /// `model.layers.0.self_attn.q_proj.lora_A.weight` for the adapter named `default`, `...lora_A.NAME.weight` for
    /// any other, and `lm_head.modules_to_save.weight` for a module that it trains whole.
    pub fn visit_mut(&mut self, visit: Visit<'_>) {
        self.visit_owned(&mut |name, _, parameter| visit(name, parameter));
    }

    pub(crate) fn visit_owned(&mut self, visit: VisitOwned<'_>) {
        self.modules_mut(&mut |name, module| module.visit_owned(name, visit));
    }

    /// Visits every module that carries parameters, in the same order.
    pub(crate) fn modules_mut(&mut self, visit: VisitModules<'_>) {
        visit(EMBEDDING.trim_end_matches(".weight"), ModuleMut::Embedding(&mut self.embedding));
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.modules_mut(&format!("model.layers.{i}"), visit);
        }
        visit("model.norm", ModuleMut::Norm(&mut self.norm));
        let head = match &mut self.head {
            Some(head) => ModuleMut::Projection(head),
            None => ModuleMut::TiedHead(&mut self.tied_head),
        };
        visit(if self.config.reward { SCORE.trim_end_matches(".weight") } else { head_module() }, head);
    }

    /// Every parameter's name, shape and values (one vector, off the autodiff graph); packed weights are not among them,
    /// see [`Decoder::packed`]. Handles only: nothing is copied.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>, Tensor<1>)> {
        let mut all = Vec::new();
        self.clone().visit_mut(&mut |name, parameter| {
            all.push((name.to_string(), parameter.shape(), parameter.flat()));
        });
        all
    }

    /// Puts on the autodiff device what is to be trained, or takes everything off: the parameters of the active adapter
    /// where adapters are loaded (none without an active one), all parameters where there are none. Packed weights are no
    /// parameters and stay frozen.
    #[must_use]
    pub fn trainable(mut self, trainable: bool) -> Self {
        let adapters = self.adapters.clone();
        self.visit_owned(&mut |_, owner, mut parameter| {
            parameter.set_trainable(trainable && adapters.trains(owner));
        });
        if !trainable {
            self.settle_adapters();
        }
        self
    }

    /// As [`Decoder::parameters`], only those that [`Decoder::trainable`] trains: what optimizers and checkpoints of a
    /// training with an adapter hold.
    pub fn trainable_parameters(&self) -> Vec<(String, Vec<usize>, Tensor<1>)> {
        let mut all = Vec::new();
        self.clone().visit_owned(&mut |name, owner, parameter| {
            if self.adapters.trains(owner) {
                all.push((name.to_string(), parameter.shape(), parameter.flat()));
            }
        });
        all
    }
}

/// Name of the embedding table.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the output head where it is stored apart.
pub const HEAD: &str = "lm_head.weight";
/// Name of the head of a reward model.
pub const SCORE: &str = "score.weight";

impl Block {
    /// x_nc -> y_nc.
    pub(crate) fn forward(
        &self,
        x_nc: Tensor<2>,
        layer: usize,
        compute: DType,
        shared: &mut Shared<'_>,
    ) -> Tensor<2> {
        let residual = x_nc.dtype();
        let normed = self.attention_norm.forward_as(x_nc.clone(), compute, &shared.pass);
        let x_nc = x_nc + self.attention.forward(normed, layer, self.window, shared).cast(residual);
        shared.show(&x_nc);
        let normed = self.mlp_norm.forward_as(x_nc.clone(), compute, &shared.pass);
        let x_nc = x_nc + self.mlp.forward(normed, &shared.pass).cast(residual);
        shared.show(&x_nc);
        x_nc
    }

    fn modules_mut(&mut self, name: &str, visit: VisitModules<'_>) {
        visit(&format!("{name}.input_layernorm"), ModuleMut::Norm(&mut self.attention_norm));
        self.attention.modules_mut(&format!("{name}.self_attn"), visit);
        visit(&format!("{name}.post_attention_layernorm"), ModuleMut::Norm(&mut self.mlp_norm));
        self.mlp.modules_mut(&format!("{name}.mlp"), visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(ParameterMut<'_>)) {
        self.modules_mut("", &mut |name, module| {
            module.visit_owned(name, &mut |_, _, parameter| visit(parameter))
        });
    }

    /// The same block off the autodiff device. Handles only: nothing is copied.
    pub(crate) fn frozen(&self) -> Self {
        let mut plain = self.clone();
        plain.visit_mut(&mut |mut parameter| parameter.set_trainable(false));
        plain
    }

    /// Whether any parameter wants a gradient.
    pub(crate) fn is_trainable(&self) -> bool {
        let mut any = false;
        self.clone().visit_mut(&mut |parameter| any |= parameter.is_tracked());
        any
    }
}

/// Names and shapes of all parameters of a configuration with `n_layers` layers, in visiting order.
pub fn parameter_shapes(config: &ModelConfig, n_layers: usize) -> Vec<(String, Vec<usize>)> {
    let (c, a, k, f) = (config.width, config.attention_width(), config.kv_width(), config.ffn_width);
    let mut all = vec![(EMBEDDING.to_string(), vec![config.vocab_size, c])];
    for i in 0..n_layers {
        let mut add = |name: &str, shape: &[usize]| {
            all.push((format!("model.layers.{i}.{name}"), shape.to_vec()));
        };
        add("input_layernorm.weight", &[c]);
        for (name, out, input, bias) in [
            ("q_proj", a, c, config.qkv_bias),
            ("k_proj", k, c, config.qkv_bias),
            ("v_proj", k, c, config.qkv_bias),
            ("o_proj", c, a, config.output_bias),
        ] {
            add(&format!("self_attn.{name}.weight"), &[out, input]);
            if bias {
                add(&format!("self_attn.{name}.bias"), &[out]);
            }
        }
        if config.qk_norm {
            add("self_attn.q_norm.weight", &[config.head_dim]);
            add("self_attn.k_norm.weight", &[config.head_dim]);
        }
        add("post_attention_layernorm.weight", &[c]);
        for (name, out, input) in [("gate_proj", f, c), ("up_proj", f, c), ("down_proj", c, f)] {
            add(&format!("mlp.{name}.weight"), &[out, input]);
            if config.mlp_bias {
                add(&format!("mlp.{name}.bias"), &[out]);
            }
        }
    }
    all.push(("model.norm.weight".to_string(), vec![c]));
    if config.reward {
        all.push((SCORE.to_string(), vec![1, c]));
    } else if !config.tied {
        all.push((HEAD.to_string(), vec![config.vocab_size, c]));
    }
    all
}

/// Builds the parts of a decoder from a source of parameters.
struct Parts<'a, F> {
    config: &'a ModelConfig,
    dtype: DType,
    packing: Option<Packing>,
    device: &'a Device,
    parameter: &'a mut F,
}

impl<E, F: FnMut(&str, &[usize]) -> Result<TensorData, E>> Parts<'_, F> {
    fn matrix(&mut self, name: &str, out: usize, input: usize) -> Result<Tensor<2>, E> {
        let data = (self.parameter)(name, &[out, input])?;
        Ok(Tensor::from_data(data, (self.device, self.dtype)))
    }

    fn vector(&mut self, name: &str, n: usize) -> Result<Tensor<1>, E> {
        let data = (self.parameter)(name, &[n])?;
        Ok(Tensor::from_data(data, (self.device, self.dtype)))
    }

    fn norm(&mut self, name: &str, n: usize) -> Result<RmsNorm, E> {
        let gain = self.vector(&format!("{name}.weight"), n)?;
        Ok(RmsNorm { gain, eps: self.config.norm_eps as f32, saved: PerAdapter::default() })
    }

    fn projection(&mut self, name: &str, out: usize, input: usize, bias: bool) -> Result<Projection, E> {
        let data = (self.parameter)(&format!("{name}.weight"), &[out, input])?;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), out)).transpose()?;
        Ok(match self.packing {
            Some(packing) => Projection::of_packed(Packed::round_data(data, packing, self.device), bias),
            None => Projection::Dense { weight: Tensor::from_data(data, (self.device, self.dtype)), bias },
        })
    }

    fn block(&mut self, i: usize) -> Result<Block, E> {
        let config = self.config;
        let (c, f, name) = (config.width, config.ffn_width, format!("model.layers.{i}"));
        let attention_norm = self.norm(&format!("{name}.input_layernorm"), c)?;
        let attention = self.attention(&format!("{name}.self_attn"))?;
        let mlp_norm = self.norm(&format!("{name}.post_attention_layernorm"), c)?;
        let mlp = Mlp {
            gate: self.projection(&format!("{name}.mlp.gate_proj"), f, c, config.mlp_bias)?,
            up: self.projection(&format!("{name}.mlp.up_proj"), f, c, config.mlp_bias)?,
            down: self.projection(&format!("{name}.mlp.down_proj"), c, f, config.mlp_bias)?,
        };
        Ok(Block { attention_norm, attention, mlp_norm, mlp, window: config.windows[i] })
    }

    fn attention(&mut self, name: &str) -> Result<Attention, E> {
        let config = self.config;
        let (c, a, k, d) = (config.width, config.attention_width(), config.kv_width(), config.head_dim);
        let query = self.projection(&format!("{name}.q_proj"), a, c, config.qkv_bias)?;
        let key = self.projection(&format!("{name}.k_proj"), k, c, config.qkv_bias)?;
        let value = self.projection(&format!("{name}.v_proj"), k, c, config.qkv_bias)?;
        let output = self.projection(&format!("{name}.o_proj"), c, a, config.output_bias)?;
        let mut head_norm =
            |part: &str| config.qk_norm.then(|| self.norm(&format!("{name}.{part}"), d)).transpose();
        Ok(Attention {
            query,
            key,
            value,
            output,
            query_norm: head_norm("q_norm")?,
            key_norm: head_norm("k_norm")?,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            head_dim: d,
        })
    }
}
