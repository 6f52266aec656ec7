//! `fornax quickstart`: a list of stages from nothing to a model that answers questions politely.

use std::path::{Path, PathBuf};

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::{RealFs, read_text_limited, write_atomic_bytes};
use fornax_data::rendering::PromptStyle;
use fornax_eval::stories::{Reply, Scores, StoryQuestions};
use fornax_model::weights::peft::AdapterFolder;
use fornax_post_train::tuning::ADAPTER_FOLDER;
use fornax_train::TrainError;
use fornax_train::run::{MODEL_FOLDER, Outcome, Run};

use super::DeviceArgument;
use super::finetune::{read_finetune_recipe, say_facts};
use super::model_folder::{self, shown, unused_run};
use super::progress;
use super::report::{Failure, say};
use super::train::{Shown, conclude, read_recipe, train};

/// The recipes of the stages, built in so that the program needs no file beside it.
const PRETRAIN: &str = include_str!("../../recipes/quickstart.toml");
const SFT: &str = include_str!("../../recipes/sft/quickstart.toml");
const DPO: &str = include_str!("../../recipes/dpo/quickstart.toml");

/// Folders of the later stages' runs inside the run folder.
const SFT_RUN: &str = "sft";
const DPO_RUN: &str = "dpo";
/// What the model replied to the held-out questions after a stage.
const ANSWERS_FILE: &str = "answers.jsonl";
const MAX_ANSWERS_BYTES: u64 = 64 << 20;
/// Held-out questions asked after each stage.
const QUESTIONS: usize = 200;
/// Replies shown.
const SHOWN_REPLIES: usize = 3;

/// Make a small model from nothing, teach it to answer questions and to be polite: the whole way in about ten minutes
#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    /// Run folder to create; default runs/quickstart
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Override a key of the recipe, for example --set train.steps=100; those of the later stages are named with
    /// sft. and dpo. in front, for example --set sft.train.steps=100
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Held-out questions asked after each stage
    #[arg(long, value_name = "N", default_value_t = QUESTIONS)]
    questions: usize,
    #[command(flatten)]
    device: DeviceArgument,
    /// Show the monitor while training
    #[arg(long)]
    tui: bool,
}

/// One part of the quickstart. Later parts work on what the earlier ones left in the run folder.
struct Stage {
    title: &'static str,
    run: fn(&Quickstart, &Path) -> Result<Exit, Failure>,
}

const STAGES: &[Stage] = &[
    Stage {
        title: "train a tokenizer and a model of about a million parameters on made-up stories",
        run: Quickstart::pretrain,
    },
    Stage { title: "teach it to answer questions about a story (SFT)", run: Quickstart::sft },
    Stage { title: "teach it to prefer one short polite sentence (DPO, an adapter)", run: Quickstart::dpo },
];

impl Quickstart {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        self.check_sets()?;
        let folder = self.run.clone().unwrap_or_else(|| unused_run("quickstart"));
        for (i, stage) in STAGES.iter().enumerate() {
            say(&format!("\nstage {} of {}: {}\n", i + 1, STAGES.len(), stage.title));
            let exit = (stage.run)(&self, &folder)?;
            if exit != Exit::Done {
                return Ok(exit);
            }
        }
        let folder = shown(&folder);
        say(&format!(
            "\nyour model is in {folder}/model, in Hugging Face layout; the one that answers questions in \
             {folder}/{SFT_RUN}/model, the adapter that makes it polite in {folder}/{DPO_RUN}/adapter. Try it:\n\n  \
             fornax generate --model {folder} --prompt \"One day,\"\n\n\
             (or `cargo run --release -- generate ...` from the source folder)\n"
        ));
        Ok(Exit::Done)
    }

    /// The overrides of a stage.
    fn sets_of(&self, stage: &str) -> Vec<String> {
        let prefixes = [SFT_RUN, DPO_RUN].map(|name| format!("{name}."));
        let own = |set: &&String| match stage {
            "" => !prefixes.iter().any(|prefix| set.starts_with(prefix.as_str())),
            stage => set.starts_with(&format!("{stage}.")),
        };
        let skip = if stage.is_empty() { 0 } else { stage.len() + 1 };
        self.sets.iter().filter(own).map(|set| set[skip..].to_owned()).collect()
    }

    /// A wrong override is refused before anything is trained.
    fn check_sets(&self) -> Result<(), Failure> {
        read_recipe(PRETRAIN, Path::new("recipes/quickstart.toml"), &self.sets_of(""))?;
        read_finetune_recipe(SFT, Path::new("recipes/sft/quickstart.toml"), &self.sets_of(SFT_RUN))?;
        read_finetune_recipe(DPO, Path::new("recipes/dpo/quickstart.toml"), &self.sets_of(DPO_RUN))?;
        Ok(())
    }

    fn shown(&self) -> Shown {
        if self.tui { Shown::Screen } else { Shown::Lines }
    }

    fn pretrain(&self, folder: &Path) -> Result<Exit, Failure> {
        let recipe = read_recipe(PRETRAIN, Path::new("recipes/quickstart.toml"), &self.sets_of(""))?;
        let outcome = train(&self.device, self.shown(), folder, |around| {
            Run::start(around, folder, &recipe, &mut progress::preparing())
        })?;
        Ok(ended(folder, &outcome, "train"))
    }

    fn sft(&self, folder: &Path) -> Result<Exit, Failure> {
        let run = folder.join(SFT_RUN);
        let questions = StoryQuestions::held_out(QUESTIONS_SEED, self.questions);
        let before = self.ask(&questions, folder, None, &folder.join(ANSWERS_FILE))?;
        let exit = self.tune(SFT, SFT_RUN, folder, &run)?;
        if exit != Exit::Done {
            return Ok(exit);
        }
        let after = self.ask(&questions, &run, None, &run.join(ANSWERS_FILE))?;
        let baselines = questions.baselines();
        say(&format!(
            "\nheld-out questions answered exactly: {} before, {} after; of {}\n\
             without reading: the most frequent answer to such questions {}, the answer mentioned last {}\n",
            percent(Scores::of(&before).exact_match),
            percent(Scores::of(&after).exact_match),
            questions.items().len(),
            percent(baselines.most_frequent),
            percent(baselines.last_mentioned)
        ));
        compare(&before, &after);
        Ok(Exit::Done)
    }

    fn dpo(&self, folder: &Path) -> Result<Exit, Failure> {
        let (base, run) = (folder.join(SFT_RUN), folder.join(DPO_RUN));
        let exit = self.tune(DPO, DPO_RUN, &base, &run)?;
        if exit != Exit::Done {
            return Ok(exit);
        }
        let questions = StoryQuestions::held_out(QUESTIONS_SEED, self.questions);
        // The stage before has asked this model.
        let before = kept(&base.join(ANSWERS_FILE))?;
        let adapter = run.join(ADAPTER_FOLDER);
        let after = self.ask(&questions, &base, Some(&adapter), &run.join(ANSWERS_FILE))?;
        let (was, is) = (Scores::of(&before), Scores::of(&after));
        say(&format!(
            "\none short polite sentence: {} before, {} after; answered exactly: {} before, {} after; of {}\n",
            percent(was.polite),
            percent(is.polite),
            percent(was.exact_match),
            percent(is.exact_match),
            is.questions
        ));
        compare(&before, &after);
        Ok(Exit::Done)
    }

    /// A post-training stage on the model in `base`.
    fn tune(&self, text: &str, stage: &str, base: &Path, run_folder: &Path) -> Result<Exit, Failure> {
        let mut sets = self.sets_of(stage);
        sets.push(format!("model.base={}", base.display()));
        let recipe = read_finetune_recipe(text, Path::new(&format!("recipes/{stage}/quickstart.toml")), &sets)?;
        let outcome = train(&self.device, self.shown(), run_folder, |around| {
            let run = Run::start(around, run_folder, &recipe, &mut progress::preparing())?;
            say_facts(&run);
            Ok(run)
        })?;
        Ok(ended(run_folder, &outcome, "finetune"))
    }

    /// Greedy replies to the questions, kept as JSON lines.
    fn ask(
        &self,
        questions: &StoryQuestions,
        model: &Path,
        adapter: Option<&Path>,
        keep: &Path,
    ) -> Result<Vec<Reply>, Failure> {
        let (device, _) = self.device.open()?;
        let loaded = model_folder::open(model, None, &device)?;
        let (mut decoder, tokenizer) = (loaded.decoder, loaded.tokenizer);
        if let Some(adapter) = adapter {
            let folder = AdapterFolder::open(adapter).map_err(|error| Failure::new(Exit::BadInput, error))?;
            folder.attach(&mut decoder, "default").map_err(|error| Failure::new(Exit::BadInput, error))?;
        }
        let style = PromptStyle::of_folder(&model.join(MODEL_FOLDER), &tokenizer).map_err(TrainError::from)?;
        let style = style.ok_or_else(|| Failure::input("the model of the quickstart has no chat template"))?;
        let mut stop_ids = decoder.config().eos_ids.clone();
        stop_ids.extend(style.end_of_turn(&tokenizer));
        let ids = |prompt: &str| style.user_turn(prompt, &tokenizer).map_err(TrainError::from);
        let replies = questions.ask::<TrainError>(&decoder, &tokenizer, &stop_ids, &ids)?;
        let mut lines = String::new();
        for reply in &replies {
            lines += &serde_json::to_string(reply).map_err(|error| Failure::new(Exit::Failed, error))?;
            lines.push('\n');
        }
        write_atomic_bytes(&RealFs, keep, lines.as_bytes()).map_err(TrainError::from)?;
        Ok(replies)
    }
}

/// Of the held-out stories; any would do.
const QUESTIONS_SEED: u64 = 1337;

/// The replies that a stage kept.
fn kept(path: &Path) -> Result<Vec<Reply>, Failure> {
    let text = read_text_limited(path, MAX_ANSWERS_BYTES).map_err(TrainError::from)?;
    let parsed: Result<Vec<Reply>, _> = text.lines().map(serde_json::from_str).collect();
    parsed.map_err(|error| Failure::new(Exit::Damaged, error))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The same questions before and after a stage.
fn compare(before: &[Reply], after: &[Reply]) {
    for (before, after) in before.iter().zip(after).take(SHOWN_REPLIES) {
        let question = before.prompt.lines().last().unwrap_or_default();
        say(&format!(
            "\n  {question}  (expected: {})\n    before: {}\n    after:  {}\n",
            before.answer, before.reply, after.reply
        ));
    }
}

fn ended(folder: &Path, outcome: &Outcome, command: &str) -> Exit {
    match outcome.ending {
        None => Exit::Done,
        Some(_) => conclude(folder, outcome, command, ""),
    }
}
