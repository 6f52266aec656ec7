//! `--temperature` and the other flags that choose the next token, the same for every command that writes text.

use clap::Args;
use fornax_base::exit::Exit;
use fornax_data::tokenizer::Tokenizer;
use fornax_infer::sampler::{DEFAULT_BREAKERS, SamplingOptions, Stage, breaker_ids};
use fornax_infer::stop::StopStrings;

use super::report::Failure;

/// How the next token is chosen.
#[derive(Debug, Args)]
pub(crate) struct SamplingArguments {
    /// 0 always takes the likeliest token; higher is more varied
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f32,
    /// Sample from the K likeliest tokens; 0 is off
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Sample from the likeliest tokens that together have this probability; 1 is off
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// Drop tokens less likely than this share of the likeliest; 0 is off
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// Keep the tokens whose surprise is nearest to the expected one, up to this probability; 1 is off
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    typical_p: f32,
    /// Drop logits so many standard deviations below the largest; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0.0, allow_negative_numbers = true)]
    top_n_sigma: f32,
    /// How often the likeliest tokens are left out (XTC); 0 is off
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    xtc_probability: f32,
    /// XTC leaves out tokens of at least this probability, but for the least likely of them
    #[arg(long, value_name = "P", default_value_t = 0.1, allow_negative_numbers = true)]
    xtc_threshold: f32,
    /// Strength of DRY against repetitions; 0 is off
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    dry_multiplier: f32,
    /// Growth of DRY's penalty with each repeated token
    #[arg(long, value_name = "X", default_value_t = 1.75, allow_negative_numbers = true)]
    dry_base: f32,
    /// Tokens a repetition may have before DRY counts it
    #[arg(long, value_name = "N", default_value_t = 2)]
    dry_allowed_length: usize,
    /// Latest tokens that DRY searches; 0 is all
    #[arg(long, value_name = "N", default_value_t = 0)]
    dry_range: usize,
    /// Text that no repetition reaches across, instead of line feed, colon, quote and asterisk; may be repeated
    #[arg(long, value_name = "TEXT")]
    dry_breaker: Vec<String>,
    /// Hold the surprise of the text near --mirostat-tau (mirostat 2)
    #[arg(long)]
    mirostat: bool,
    /// The surprise that mirostat aims at, in bits
    #[arg(long, value_name = "BITS", default_value_t = 5.0, allow_negative_numbers = true)]
    mirostat_tau: f32,
    /// How fast mirostat follows
    #[arg(long, value_name = "X", default_value_t = 0.1, allow_negative_numbers = true)]
    mirostat_eta: f32,
    /// Divide positive logits of tokens that were there, multiply negative ones; 1 is off
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f32,
    /// Subtract this from a token's logit for each time it was written; 0 is off
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Subtract this from the logit of each token that was written; 0 is off
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Add a number to a token's logit; may be repeated
    #[arg(long, value_name = "ID=X", value_parser = bias, allow_hyphen_values = true)]
    logit_bias: Vec<(u32, f32)>,
    /// Only these tokens may come; may be repeated
    #[arg(long, value_name = "ID")]
    allow: Vec<u32>,
    /// This token never comes; may be repeated
    #[arg(long, value_name = "ID")]
    ban: Vec<u32>,
    /// Tokens before the text may end
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_tokens: usize,
    /// A text that ends the answer; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Keep the text of --stop at the end
    #[arg(long, requires = "stop")]
    include_stop: bool,
    /// A token that ends the text beside the model's own; may be repeated
    #[arg(long, value_name = "ID")]
    stop_id: Vec<u32>,
    /// Go on after the end-of-text token
    #[arg(long)]
    ignore_eos: bool,
    /// Order of the stages; those left out do nothing
    #[arg(long, value_name = "A,B,...", value_delimiter = ',')]
    samplers: Option<Vec<Stage>>,
    /// The same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// `ID=X`.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let (id, x) = text.split_once('=').ok_or("write a token's id, `=` and a number, for example 13=-5")?;
    let id = id.trim().parse().map_err(|_| format!("`{id}` is no id of a token"))?;
    let x = x.trim().parse().map_err(|_| format!("`{x}` is no number"))?;
    Ok((id, x))
}

impl SamplingArguments {
    /// Texts that end an answer.
    pub(crate) fn stop_strings(&self) -> Result<StopStrings, Failure> {
        StopStrings::new(&self.stop, self.include_stop).map_err(|e| Failure::new(Exit::BadInput, e))
    }

    /// The options, all in their range, for a model with logits for `vocab_size` tokens.
    pub(crate) fn options(&self, tokenizer: &Tokenizer, vocab_size: usize) -> Result<SamplingOptions, Failure> {
        let mut options = self.without_breakers();
        let failure = |error| Failure::new(Exit::BadInput, error);
        if !self.dry_breaker.is_empty() {
            options.dry_breakers = breaker_ids(tokenizer, &self.dry_breaker).map_err(failure)?;
        } else if options.dry_multiplier != 0.0 {
            // A small vocabulary may lack one of them.
            let ids = DEFAULT_BREAKERS.iter().filter_map(|text| breaker_ids(tokenizer, &[text]).ok());
            options.dry_breakers = ids.flatten().collect();
        }
        options.check().and_then(|()| options.check_ids(vocab_size)).map_err(failure)?;
        Ok(options)
    }

    /// Refuses what is wrong whatever the model is, before it is loaded.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.stop_strings()?;
        self.without_breakers().check().map_err(|e| Failure::new(Exit::BadInput, e))
    }

    fn without_breakers(&self) -> SamplingOptions {
        SamplingOptions {
            chain: self.samplers.clone().unwrap_or_else(|| Stage::ALL.to_vec()),
            seed: self.seed,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            top_n_sigma: self.top_n_sigma,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_range: self.dry_range,
            dry_breakers: Vec::new(),
            mirostat: self.mirostat,
            mirostat_tau: self.mirostat_tau,
            mirostat_eta: self.mirostat_eta,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            logit_bias: self.logit_bias.iter().copied().collect(),
            allowed_ids: (!self.allow.is_empty()).then(|| self.allow.clone()),
            banned_ids: self.ban.clone(),
            min_tokens: self.min_tokens,
            ignore_eos: self.ignore_eos,
            stop_ids: self.stop_id.clone(),
            top_log_probs: 0,
        }
    }
}
