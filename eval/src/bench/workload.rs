//! Fixed shapes, the same as those of the peers' scripts in `eval/peers/`.

use std::str::FromStr;

use fornax_base::rng::rng;
use fornax_data::batches::Batch;
use fornax_model::ModelConfig;

use super::error::BenchError;

/// A Llama (RMSNorm, RoPE, SwiGLU, head of its own) and the batch of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// What it is called here and in the peers' scripts.
    pub name: &'static str,
    /// Rows of the embedding table and of the head.
    pub vocab_size: usize,
    /// Channels of the residual stream.
    pub width: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads.
    pub n_kv_heads: usize,
    /// Channels inside the feed-forward block.
    pub ffn_width: usize,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// Rows of a batch.
    pub batch: usize,
    /// Tokens of a row.
    pub context: usize,
}

/// Every workload. `gpt2` has the shape of GPT-2's 124 M model, apart from its head, and wants a GPU; `m134` that of
/// SmolLM2-135M.
pub const WORKLOADS: [Workload; 5] = [
    Workload {
        name: "nano",
        vocab_size: 65,
        width: 128,
        n_layers: 4,
        n_heads: 4,
        n_kv_heads: 4,
        ffn_width: 344,
        tied: false,
        batch: 12,
        context: 64,
    },
    Workload {
        name: "small",
        vocab_size: 65,
        width: 384,
        n_layers: 6,
        n_heads: 6,
        n_kv_heads: 6,
        ffn_width: 1024,
        tied: false,
        batch: 8,
        context: 256,
    },
    Workload {
        name: "story",
        vocab_size: 32_000,
        width: 288,
        n_layers: 6,
        n_heads: 6,
        n_kv_heads: 6,
        ffn_width: 768,
        tied: false,
        batch: 4,
        context: 256,
    },
    Workload {
        name: "gpt2",
        vocab_size: 50_304,
        width: 768,
        n_layers: 12,
        n_heads: 12,
        n_kv_heads: 12,
        ffn_width: 2048,
        tied: false,
        batch: 16,
        context: 1024,
    },
    Workload {
        name: "m134",
        vocab_size: 49_152,
        width: 576,
        n_layers: 30,
        n_heads: 9,
        n_kv_heads: 3,
        ffn_width: 1536,
        tied: true,
        batch: 4,
        context: 256,
    },
];

impl FromStr for Workload {
    type Err = BenchError;

    fn from_str(name: &str) -> Result<Self, BenchError> {
        let found = WORKLOADS.into_iter().find(|workload| workload.name == name);
        found.ok_or_else(|| BenchError::UnknownWorkload {
            name: name.chars().take(64).collect(),
            known: WORKLOADS.map(|workload| workload.name).join(", "),
        })
    }
}

impl Workload {
    /// The same model with another batch.
    ///
    /// # Errors
    /// [`BenchError::Size`] when a size is 0 or both together are beyond 2^24 tokens.
    pub fn with_batch(mut self, batch: Option<usize>, context: Option<usize>) -> Result<Self, BenchError> {
        self.batch = batch.unwrap_or(self.batch);
        self.context = context.unwrap_or(self.context);
        for (what, value) in [("the batch", self.batch), ("the context", self.context)] {
            if value == 0 || value.saturating_mul(self.batch.max(self.context)) > 1 << 24 {
                let expected = "at least 1, and at most 16,777,216 tokens in a batch".to_string();
                return Err(BenchError::Size { what, value, expected });
            }
        }
        Ok(self)
    }

    /// Tokens of one step.
    pub fn tokens_per_step(&self) -> usize {
        self.batch * self.context
    }

    /// The model for sequences of at most `context` tokens.
    pub fn config(&self, context: usize) -> ModelConfig {
        ModelConfig {
            vocab_size: self.vocab_size,
            width: self.width,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.width / self.n_heads,
            ffn_width: self.ffn_width,
            context,
            tied: self.tied,
            ..ModelConfig::llama(self.n_layers)
        }
    }

    /// One batch of random tokens, every target trained; each step of a measurement takes it again.
    pub fn random_batch(&self) -> Batch {
        let n = self.tokens_per_step();
        let ids = |purpose: &str| {
            let mut random = rng(0, 0, purpose);
            (0..n).map(|_| random.below(self.vocab_size as u64) as u32).collect()
        };
        Batch {
            rows: self.batch,
            columns: self.context,
            inputs: ids("bench/inputs"),
            targets: ids("bench/targets"),
            mask: vec![true; n],
            positions: (0..n).map(|i| (i % self.context) as u32).collect(),
            documents: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters as PyTorch counts them in `eval/peers/train_torch.py`.
    #[test]
    fn the_models_have_the_parameters_of_the_peers_script() {
        let counts = WORKLOADS.map(|workload| {
            let config = workload.config(workload.context);
            config.check().unwrap();
            config.n_parameters()
        });
        assert_eq!(counts, [808_320, 10_671_744, 24_407_712, 162_220_800, 134_515_008]);
    }

    #[test]
    fn unknown_names_and_empty_batches_are_refused() {
        let error = "tiny".parse::<Workload>().unwrap_err().to_string();
        assert_eq!(error, "`tiny` is not a workload; expected nano, small, story, gpt2, m134");
        for (batch, context) in [(Some(0), None), (None, Some(0)), (Some(usize::MAX), None)] {
            assert!(WORKLOADS[0].with_batch(batch, context).is_err(), "{batch:?} {context:?}");
        }
        assert_eq!(WORKLOADS[0].with_batch(Some(2), Some(8)).unwrap().tokens_per_step(), 16);
    }

    #[test]
    fn the_batch_is_the_same_each_time_and_within_the_vocabulary() {
        let batch = WORKLOADS[0].random_batch();
        assert_eq!(batch, WORKLOADS[0].random_batch());
        assert!(batch.inputs.iter().chain(&batch.targets).all(|&id| id < 65));
        assert_ne!(batch.inputs, batch.targets);
        assert_eq!(batch.n_targets(), 12 * 64);
    }
}
