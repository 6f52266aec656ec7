//! `fornax explain`: the way of one token through a model, in numbers.

use std::fmt::Write as _;
use std::path::PathBuf;

use burn::tensor::DType;
use clap::Args;
use fornax_base::exit::Exit;
use fornax_data::tokenizer::Tokenizer;
use fornax_infer::explain::{ExplainError, Explanation, LayerExplanation, Listed, explain};
use serde::Serialize;

use super::DeviceArgument;
use super::generate::generate_failure;
use super::model_folder::{self, LoadedModel};
use super::report::{Failure, print};

/// Targets of each head and next tokens that are listed.
const LISTED: Listed = Listed { targets: 3, next: 5 };
/// Characters of a token's text that a line shows.
const SHOWN: usize = 14;

/// Show the way of one token through a model: what each head reads, and what may come next
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Model folder in Hugging Face layout, or a run folder
    #[arg(long, value_name = "DIR|RUN")]
    model: PathBuf,
    /// Text whose tokens are shown
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Token to explain, counted from 0; default the last one, after which the text would go on
    #[arg(long, value_name = "N")]
    position: Option<usize>,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A token of the prompt.
#[derive(Serialize)]
struct Piece {
    id: u32,
    /// As the vocabulary spells it.
    token: String,
    /// What it adds to the text.
    text: String,
    loss: Option<f64>,
}

#[derive(Serialize)]
struct Report<'a> {
    text: &'a str,
    tokens: Vec<Piece>,
    #[serde(flatten)]
    explanation: Shown<'a>,
}

/// The explanation with the texts of next tokens; losses stand with the tokens.
#[derive(Serialize)]
struct Shown<'a> {
    position: usize,
    embedding_norm: f64,
    layers: &'a [LayerExplanation],
    next: Vec<NextPiece>,
}

#[derive(Serialize)]
struct NextPiece {
    id: u32,
    token: String,
    text: String,
    logit: f64,
    probability: f64,
}

impl Explain {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let (device, _) = self.device.open()?;
        let model = model_folder::open(&self.model, Some(DType::F32), &device)?;
        let ids = model.tokenizer.encode(&self.prompt, true).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let position = self.position.unwrap_or(ids.len().saturating_sub(1));
        let explanation = explain(&model.decoder, &ids, position, LISTED).map_err(explain_failure)?;
        let report = report(&self.prompt, &ids, &model, &explanation)?;
        let text = match self.json {
            true => serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Failed, e))? + "\n",
            false => plain(&report),
        };
        print(&text)?;
        Ok(Exit::Done)
    }
}

fn explain_failure(error: ExplainError) -> Failure {
    match error {
        ExplainError::Prompt(error) => generate_failure(error),
        position => Failure::new(Exit::BadInput, position),
    }
}

fn report<'a>(
    text: &'a str,
    ids: &[u32],
    model: &LoadedModel,
    explanation: &'a Explanation,
) -> Result<Report<'a>, Failure> {
    let (mut tokens, mut so_far) = (Vec::new(), String::new());
    for (i, (&id, &loss)) in ids.iter().zip(&explanation.losses).enumerate() {
        // What a token adds depends on those before it: a space may be its own or the decoder's.
        let all = decode(&model.tokenizer, &ids[..=i])?;
        let text = all.strip_prefix(so_far.as_str()).map_or_else(|| all.clone(), str::to_owned);
        tokens.push(Piece { id, token: model.tokenizer.token(id).unwrap_or_default(), text, loss });
        so_far = all;
    }
    let mut next = Vec::new();
    let upto = &ids[..=explanation.position];
    let before = decode(&model.tokenizer, upto)?;
    for token in &explanation.next {
        let all = decode(&model.tokenizer, &[upto, &[token.id]].concat())?;
        let text = all.strip_prefix(before.as_str()).map_or_else(|| all.clone(), str::to_owned);
        next.push(NextPiece {
            id: token.id,
            token: model.tokenizer.token(token.id).unwrap_or_default(),
            text,
            logit: token.logit,
            probability: token.probability,
        });
    }
    let Explanation { position, embedding_norm, layers, .. } = explanation;
    let explanation = Shown { position: *position, embedding_norm: *embedding_norm, layers, next };
    Ok(Report { text, tokens, explanation })
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String, Failure> {
    tokenizer.decode(ids, false).map_err(|error| Failure::new(Exit::Failed, error))
}

/// For people: lines of at most 80 columns.
fn plain(report: &Report<'_>) -> String {
    let Report { tokens, explanation, .. } = report;
    let at = explanation.position;
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing into a string does not fail.
        let _ = writeln!(out, "{text}");
    };
    line(format!("{:>5} {:>7}  {:<20} loss (nats)", "pos", "id", "token"));
    for (i, piece) in tokens.iter().enumerate() {
        let loss = piece.loss.map_or("-".into(), |loss| format!("{loss:.3}"));
        let mark = if i == at { "  <- explained below" } else { "" };
        line(format!("{i:>5} {:>7}  {:<20} {loss:>6}{mark}", piece.id, shown(&piece.text, &piece.token)));
    }
    let losses: Vec<f64> = tokens.iter().filter_map(|piece| piece.loss).collect();
    if !losses.is_empty() {
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        line(format!("mean loss {mean:.3} nats, perplexity {:.2}", mean.exp()));
    }
    line(format!("\ntoken {at}: embedding of length {:.3}", explanation.embedding_norm));
    for (i, layer) in explanation.layers.iter().enumerate() {
        line(format!(
            "layer {i}: residual stream {:.3} -> attention -> {:.3} -> mlp -> {:.3}",
            layer.before, layer.after_attention, layer.after_mlp
        ));
        for (h, head) in layer.heads.iter().enumerate() {
            let targets = head.targets.iter().map(|target| {
                let piece = &tokens[target.position];
                format!("{} {:.2}", shown(&piece.text, &piece.token), target.weight)
            });
            line(fitted(&format!("  head {h:<2} entropy {:.2}  ", head.entropy), targets));
        }
    }
    line("\nwhat may come next:".into());
    for token in &explanation.next {
        let (logit, percent) = (token.logit, token.probability * 100.0);
        line(format!(
            "  {percent:5.1} %  {:>7}  {:<20} logit {logit:.3}",
            token.id,
            shown(&token.text, &token.token)
        ));
    }
    out
}

/// The items behind `head`, as many as 80 columns hold.
fn fitted(head: &str, items: impl Iterator<Item = String>) -> String {
    let mut text = head.to_owned();
    for (i, item) in items.enumerate() {
        let part = if i == 0 { item } else { format!("  {item}") };
        if text.chars().count() + part.chars().count() > 80 {
            break;
        }
        text += &part;
    }
    text
}

/// A token in quotes, control characters escaped: its text, or the vocabulary's spelling where it is no
/// whole character.
fn shown(text: &str, token: &str) -> String {
    let whole = if text.is_empty() || text.contains('\u{FFFD}') { token } else { text };
    let escaped: Vec<String> = whole.chars().map(|c| c.escape_debug().to_string()).collect();
    let mut quoted = String::from("\"");
    let mut columns = 0;
    for piece in &escaped {
        columns += piece.chars().count();
        if columns > SHOWN {
            quoted += "…";
            break;
        }
        quoted += piece;
    }
    quoted + "\""
}
