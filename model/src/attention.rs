//! The attention block: projections, rotary embedding, cache, heads.
//!
//! Shapes: n rows (b * t), b batch, t new time, s all time (t without a cache), h query heads, g key-value heads, d head
//! channels, k = d / 2, c channels.

use burn::tensor::Tensor;

use crate::adapter::Pass;
use crate::kv_cache::{KvCache, Placed};
use crate::norm::RmsNorm;
use crate::ops::{self, AttentionMask};
use crate::parameters::{ModuleMut, VisitModules};
use crate::projection::Projection;
use crate::trace::Trace;

/// Attention of one layer.
#[derive(Debug, Clone)]
pub struct Attention {
    pub(crate) query: Projection,
    pub(crate) key: Projection,
    pub(crate) value: Projection,
    pub(crate) output: Projection,
    /// Qwen3 normalizes every head of queries and keys.
    pub(crate) query_norm: Option<RmsNorm>,
    pub(crate) key_norm: Option<RmsNorm>,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
}

/// What all layers of one forward pass share.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    pub(crate) rows: usize,
    pub(crate) pass: Pass,
    pub(crate) cos_btk: Tensor<3>,
    pub(crate) sin_btk: Tensor<3>,
    /// One mask for each distinct window, with that window; none with a cache.
    pub(crate) masks: Vec<(Option<usize>, AttentionMask)>,
    /// The cache, and where the tokens stand in it.
    pub(crate) cache: Option<(&'a mut KvCache, Placed)>,
    pub(crate) trace: Option<&'a mut Trace>,
}

impl Shared<'_> {
    /// The same for running a block again: without a cache, which it would fill twice, and without a trace.
    pub(crate) fn for_rerun(&self) -> Shared<'static> {
        Shared {
            rows: self.rows,
            pass: self.pass.clone(),
            cos_btk: self.cos_btk.clone(),
            sin_btk: self.sin_btk.clone(),
            masks: self.masks.clone(),
            cache: None,
            trace: None,
        }
    }

    /// Shows the residual stream to the trace, where there is one.
    pub(crate) fn show(&mut self, x_nc: &Tensor<2>) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.residual(x_nc);
        }
    }
}

impl Attention {
    /// x_nc -> y_nc.
    pub(crate) fn forward(
        &self,
        x_nc: Tensor<2>,
        layer: usize,
        window: Option<usize>,
        shared: &mut Shared<'_>,
    ) -> Tensor<2> {
        let q_bhtd = self.heads(&self.query, &self.query_norm, x_nc.clone(), self.n_heads, shared);
        let k_bgtd = self.heads(&self.key, &self.key_norm, x_nc.clone(), self.n_kv_heads, shared);
        let v_bgtd = self.heads(&self.value, &None, x_nc, self.n_kv_heads, shared);
        let rotate = |x| ops::rope(x, shared.cos_btk.clone(), shared.sin_btk.clone());
        let (q_bhtd, k_bgtd) = (rotate(q_bhtd), rotate(k_bgtd));
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        let [b, h, t, d] = q_bhtd.dims();
        let out_na = match &mut shared.cache {
            Some((cache, placed)) => {
                cache.write(layer, by_token(k_bgtd), by_token(v_bgtd), placed);
                let out_nhd = cache.attend(layer, by_token(q_bhtd), placed, window, scale);
                out_nhd.reshape([b * t, h * d])
            }
            None => {
                let mask = shared.masks.iter().find(|(w, _)| *w == window).map(|(_, mask)| mask);
                let mask = mask.expect("the decoder builds a mask for every window of its configuration");
                if let Some(trace) = shared.trace.as_deref_mut() {
                    trace.attention(&q_bhtd, &k_bgtd, mask, scale);
                }
                let out_bhtd = ops::attention(q_bhtd, k_bgtd, v_bgtd, mask, scale);
                out_bhtd.swap_dims(1, 2).reshape([b * t, h * d])
            }
        };
        self.output.adapted(out_na, &shared.pass)
    }

    /// x_nc -> [b, heads, t, d].
    fn heads(
        &self,
        projection: &Projection,
        norm: &Option<RmsNorm>,
        x_nc: Tensor<2>,
        heads: usize,
        shared: &Shared<'_>,
    ) -> Tensor<4> {
        let (n, b, d) = (x_nc.dims()[0], shared.rows, self.head_dim);
        let mut y = projection.adapted(x_nc, &shared.pass);
        if let Some(norm) = norm {
            y = norm.forward(y.reshape([n * heads, d]), &shared.pass);
        }
        y.reshape([b, n / b, heads, d]).swap_dims(1, 2)
    }

    pub(crate) fn modules_mut(&mut self, name: &str, visit: VisitModules<'_>) {
        for (part, projection) in [
            ("q_proj", &mut self.query),
            ("k_proj", &mut self.key),
            ("v_proj", &mut self.value),
            ("o_proj", &mut self.output),
        ] {
            visit(&format!("{name}.{part}"), ModuleMut::Projection(projection));
        }
        for (part, norm) in [("q_norm", &mut self.query_norm), ("k_norm", &mut self.key_norm)] {
            if let Some(norm) = norm {
                visit(&format!("{name}.{part}"), ModuleMut::Norm(norm));
            }
        }
    }
}

/// [b, heads, t, d] -> [n, heads, d].
fn by_token(x: Tensor<4>) -> Tensor<3> {
    let [b, heads, t, d] = x.dims();
    x.swap_dims(1, 2).reshape([b * t, heads, d])
}
