//! Rotary frequencies: one table of inverse frequencies per model, stretched for long contexts by the
//! published rules, and the cosines and sines of a batch of positions.
//!
//! Shapes: b batch, t time, k pairs of one head (head_dim / 2).

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::config::{ConfigError, MAX_DIMENSION, ModelConfig, positive};

/// How the inverse frequencies differ from `theta^(-2i/d)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency divided by `factor` (Chen et al. 2023, arXiv:2306.15595).
    Linear {
        /// Stretch of the context.
        factor: f64,
    },
    /// Llama 3.1's rule: long wavelengths divided, short ones kept, a linear blend between.
    Llama3 {
        /// Stretch of the context.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are stretched.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the original training, in tokens.
        original_context: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv:2309.00071), with transformers' parameters.
    Yarn {
        /// Stretch of the context.
        factor: f64,
        /// Context of the original training, in tokens.
        original_context: f64,
        /// Scale of cosines and sines; computed from the factor when absent.
        attention_factor: Option<f64>,
        /// Rotations within the original context above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which it is interpolated in full.
        beta_slow: f64,
        /// DeepSeek's variant of the attention factor.
        mscale: Option<f64>,
        /// See `mscale`.
        mscale_all_dim: Option<f64>,
        /// Whether the bounds of the blend are rounded to whole dimensions.
        truncate: bool,
    },
}

impl RopeScaling {
    /// Checks that the numbers are positive and in order, for frequencies of base `theta`.
    ///
    /// # Errors
    /// [`ConfigError::OutOfRange`].
    pub fn check(&self, theta: f64) -> Result<(), ConfigError> {
        match *self {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("factor", factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                whole("original_max_position_embeddings", original_context)?;
                positive("high_freq_factor", high_freq_factor)?;
                positive("high_freq_factor - low_freq_factor", high_freq_factor - low_freq_factor)
            }
            RopeScaling::Yarn {
                factor,
                original_context,
                attention_factor,
                beta_fast,
                beta_slow,
                mscale,
                mscale_all_dim,
                ..
            } => {
                positive("factor", factor)?;
                whole("original_max_position_embeddings", original_context)?;
                positive("beta_slow", beta_slow)?;
                positive("beta_fast", beta_fast)?;
                // The blend's bounds divide by the logarithm of theta.
                positive("rope_theta - 1", theta - 1.0)?;
                attention_factor.map_or(Ok(()), |f| positive("attention_factor", f))?;
                for (key, m) in [("mscale", mscale), ("mscale_all_dim", mscale_all_dim)] {
                    // 0 counts as absent.
                    m.filter(|&m| m != 0.0).map_or(Ok(()), |m| positive(key, m))?;
                }
                Ok(())
            }
        }
    }

    /// The inverse frequencies (k) and the scale of cosines and sines.
    pub fn inverse_frequencies(&self, theta: f64, head_dim: usize) -> (Vec<f32>, f32) {
        // Single precision throughout, as transformers computes them: at position 100,000 the rounding of a
        // frequency is visible in the angle.
        let plain: Vec<f32> =
            (0..head_dim / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32)).collect();
        match *self {
            RopeScaling::None => (plain, 1.0),
            RopeScaling::Linear { factor } => (plain.iter().map(|f| f / factor as f32).collect(), 1.0),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let stretch = |f: f32| {
                    let rotations = original_context as f32 * f / (2.0 * std::f32::consts::PI);
                    let smooth =
                        (rotations - low_freq_factor as f32) / (high_freq_factor - low_freq_factor) as f32;
                    let smooth = smooth.clamp(0.0, 1.0);
                    (1.0 - smooth) * f / factor as f32 + smooth * f
                };
                (plain.into_iter().map(stretch).collect(), 1.0)
            }
            RopeScaling::Yarn { .. } => self.yarn(&plain, theta, head_dim),
        }
    }

    fn yarn(&self, plain: &[f32], theta: f64, head_dim: usize) -> (Vec<f32>, f32) {
        let RopeScaling::Yarn {
            factor,
            original_context,
            attention_factor,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            truncate,
        } = *self
        else {
            return (plain.to_vec(), 1.0);
        };
        let d = head_dim as f64;
        let dimension_of = |rotations: f64| {
            d * (original_context / (rotations * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (dimension_of(beta_fast), dimension_of(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(d - 1.0));
        if low == high {
            high += 0.001; // transformers' guard against a division by zero
        }
        let frequencies = plain.iter().enumerate().map(|(i, &f)| {
            let interpolated = (((i as f64 - low) / (high - low)) as f32).clamp(0.0, 1.0);
            f / factor as f32 * interpolated + f * (1.0 - interpolated)
        });
        let scale_of = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        let attention = attention_factor.unwrap_or(match (mscale, mscale_all_dim) {
            (Some(m), Some(all)) if m != 0.0 && all != 0.0 => scale_of(m) / scale_of(all),
            _ => scale_of(1.0),
        });
        (frequencies.collect(), attention as f32)
    }
}

/// A number of tokens; files write it as an integer or as a float without a fraction.
fn whole(key: &str, value: f64) -> Result<(), ConfigError> {
    if value >= 1.0 && value <= MAX_DIMENSION as f64 && value.fract() == 0.0 {
        return Ok(());
    }
    let expected = format!("a whole number, 1 to {MAX_DIMENSION}");
    Err(ConfigError::OutOfRange { key: key.to_string(), value: value.to_string(), expected })
}

/// The rotary table of one model on one device.
#[derive(Debug, Clone)]
pub struct Rope {
    inverse_k: Tensor<1>,
    scale: f32,
}

impl Rope {
    /// Computes the frequencies of `config` and puts them on `device`, in f32.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let (inverse, scale) = config.rope_scaling.inverse_frequencies(config.rope_theta, config.head_dim);
        let n = inverse.len();
        let data = TensorData::new(inverse, [n]);
        Self { inverse_k: Tensor::from_data(data, (device, DType::F32)), scale }
    }

    /// positions_bt -> (cos_btk, sin_btk) in `dtype`; angles are computed in f32.
    pub fn angles(&self, positions_bt: Tensor<2, Int>, dtype: DType) -> (Tensor<3>, Tensor<3>) {
        let positions_bt1 = positions_bt.float().cast(DType::F32).unsqueeze_dim::<3>(2);
        let angle_btk = positions_bt1 * self.inverse_k.clone().unsqueeze::<3>();
        let cos = angle_btk.clone().cos() * self.scale;
        let sin = angle_btk.sin() * self.scale;
        (cos.cast(dtype), sin.cast(dtype))
    }
}
