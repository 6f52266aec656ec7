#![allow(clippy::print_stdout, reason = "a test that measures or is passed over says so")]

use std::fs;
use std::io::Write;
use std::path::Path;

use fornax_base::exit::Exit;
use proptest::prelude::*;

use super::*;
use crate::testing::shared;

/// What is made of rows in a test.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Lessons,
    Pairs,
    Verdicts,
    Questions,
}

/// Reads a file as rows of a kind, without tokens.
fn read(path: &Path, kind: Kind, options: &ReadOptions) -> Result<(Read, u64), DataError> {
    let mut made = 0;
    let records = Records::from_path(path)?;
    let read = read_rows(&records, options, &mut |format, record| {
        match kind {
            Kind::Lessons => drop(Lesson::of(format, &record.json)?),
            Kind::Pairs => drop(Preference::of(format, &record.json)?),
            Kind::Verdicts => drop(Judged::of(format, &record.json)?),
            Kind::Questions => drop(Question::of(format, &record.json)?),
        }
        made += 1;
        Ok(())
    })?;
    Ok((read, made))
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// Sixteen good rows, then these.
fn behind_sixteen(row: &str) -> String {
    let good =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n";
    good.repeat(16) + row + "\n"
}

const GOOD_PAIR: &str = "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n";

/// Each of these files is refused with exit 2, its row and a hint.
#[test]
fn wrong_files_are_named_with_their_row() {
    use Kind::{Lessons, Pairs, Questions, Verdicts};
    let deep = format!("{{\"messages\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let long = format!("{{\"text\":\"{}\"}}", "a".repeat(super::super::records::MAX_ROW_BYTES as usize));
    let many: String = (0..4000).map(|n| format!("{{\"text\":\"{}\"}}\n", n * 7919)).collect();
    let cut = |bytes: &[u8]| {
        let whole = gzipped(bytes);
        whole[..whole.len() / 2].to_vec()
    };
    let list: String = format!("[{}]", many.trim_end().replace('\n', ","));
    let turn = |turn: &str| format!("{{\"messages\":[{turn}]}}").into_bytes();
    let share = |turn: &str| format!("{{\"conversations\":[{turn}]}}").into_bytes();
    let cases: Vec<(&str, Kind, Vec<u8>, &str)> = vec![
        ("bad.jsonl", Lessons, behind_sixteen("{\"messages\": [}").into(), "row 17: not JSON: expected value"),
        ("half.jsonl", Lessons, behind_sixteen("{\"messages\": [{\"role\"").into(), "row 17: not JSON: EOF"),
        (
            "missing.jsonl",
            Lessons,
            behind_sixteen("{\"turns\": []}").into(),
            "row 17: field `messages` is missing; there are `turns`",
        ),
        (
            "latin.jsonl",
            Lessons,
            [behind_sixteen("{\"text\":\"").trim_end().as_bytes(), b"\xe9\"}"].concat(),
            "row 17: not UTF-8 at byte 9",
        ),
        (
            "scalar.jsonl",
            Lessons,
            behind_sixteen("[1, 2]").into(),
            "row 17: a JSON object is expected, found a list",
        ),
        ("deep.jsonl", Lessons, behind_sixteen(&deep).into(), "row 17: nested deeper than 127 levels"),
        (
            "long.jsonl",
            Lessons,
            [b"{\"text\":\"a\"}\n".to_vec(), long.clone().into()].concat(),
            "row 2: longer than 16777216 bytes",
        ),
        (
            "mixed.jsonl",
            Lessons,
            behind_sixteen("{\"text\": \"a\"}").into(),
            "row 17: looks like text, the rows before it are messages",
        ),
        ("other.jsonl", Lessons, behind_sixteen(GOOD_PAIR.trim()).into(), "row 17: looks like preference"),
        (
            "alpaca.jsonl",
            Lessons,
            b"{\"text\":\"a\"}\n{\"instruction\":\"a\",\"output\":\"b\",\"text\":\"c\"}".to_vec(),
            "row 2: looks like alpaca, the rows before it are text",
        ),
        ("empty.jsonl", Lessons, b"\n\n".to_vec(), "empty.jsonl` holds no rows"),
        ("empty.json", Lessons, b"[]".to_vec(), "empty.json` holds no rows"),
        (
            "unknown.json",
            Lessons,
            b"[{\"question\":\"a\",\"answer\":\"b\"}]".to_vec(),
            "row 1: has the fields `question`, `answer`",
        ),
        ("string.json", Lessons, b"\"text\"".to_vec(), "string.json` holds neither a JSON list"),
        (
            "list.json",
            Lessons,
            b"[{\"text\":\"a\"},{\"text\":\"b\"}, {\"text\" \"c\"}]".to_vec(),
            "row 3: not JSON",
        ),
        ("open.json", Lessons, b"[{\"text\":\"a\"},{\"text\":\"b\"}".to_vec(), "row 3: not JSON: EOF"),
        (
            "latin.json",
            Lessons,
            b"[{\"text\":\"a\"},\n{\"text\":\"\xe9\"}]".to_vec(),
            "row 2: not UTF-8 (line 2 of the file)",
        ),
        ("long.json", Lessons, format!("[{{\"text\":\"a\"}},{long}]").into(), "row 2: longer than 16777216 bytes"),
        ("cut.jsonl.gz", Lessons, cut(many.as_bytes()), "the gzip stream is cut off or damaged"),
        ("cut.json.gz", Lessons, cut(list.as_bytes()), "the gzip stream is cut off or damaged"),
        ("no.jsonl.gz", Lessons, b"{\"text\":\"a\"}".to_vec(), "row 1: the gzip stream is cut off or damaged"),
        ("bad.parquet", Lessons, b"PAR1 is not enough".to_vec(), "the Parquet file is damaged"),
        (
            "number.jsonl",
            Lessons,
            b"{\"text\": 5}".to_vec(),
            "row 1: field `text` is the number 5, a string is expected",
        ),
        ("blank.jsonl", Lessons, b"{\"text\": \" \"}".to_vec(), "row 1: field `text` is empty"),
        (
            "role.jsonl",
            Lessons,
            turn("{\"role\":\"wizard\",\"content\":\"a\"}"),
            "row 1: field `messages[0].role` is the unknown role \"wizard\"",
        ),
        (
            "from.jsonl",
            Lessons,
            share("{\"from\":\"alien\",\"value\":\"a\"}"),
            "row 1: field `conversations[0].from` is the unknown role \"alien\"",
        ),
        (
            "norole.jsonl",
            Lessons,
            turn("{\"content\":\"a\"}"),
            "row 1: field `messages[0].role` is missing; there are `content`",
        ),
        ("noturns.jsonl", Lessons, turn(""), "row 1: field `messages` is empty"),
        (
            "object.jsonl",
            Lessons,
            b"{\"messages\": {\"role\":\"user\"}}".to_vec(),
            "row 1: field `messages` is an object, a list is expected",
        ),
        (
            "content.jsonl",
            Lessons,
            turn("{\"role\":\"user\",\"content\":7}"),
            "row 1: field `messages[0].content` is the number 7",
        ),
        (
            "picture.jsonl",
            Lessons,
            turn("{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}"),
            "row 1: the part `messages[0].content[0]` of type `image` is not supported",
        ),
        (
            "silent.jsonl",
            Lessons,
            turn("{\"role\":\"user\",\"content\":\"a\"}"),
            "row 1: the conversation has no assistant message",
        ),
        (
            "says.jsonl",
            Lessons,
            turn("{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\"}"),
            "row 1: field `content of message 2` is empty",
        ),
        (
            "call.jsonl",
            Lessons,
            share("{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"function_call\",\"value\":\"{name\"}"),
            "row 1: field `conversations[1].value` does not hold a tool call",
        ),
        (
            "tools.jsonl",
            Lessons,
            b"{\"tools\":\"{\",\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}".to_vec(),
            "row 1: field `tools` does not hold a list of tool schemas",
        ),
        (
            "weight.jsonl",
            Lessons,
            turn("{\"role\":\"assistant\",\"content\":\"a\",\"weight\":0.5}"),
            "row 1: `messages[0].weight` 0.5, other than 0 and 1, is not supported",
        ),
        (
            "train.jsonl",
            Lessons,
            turn("{\"role\":\"user\",\"content\":\"a\",\"train\":true}"),
            "row 1: `messages[0].train` on a message of role user is not supported",
        ),
        (
            "output.jsonl",
            Lessons,
            b"{\"instruction\":\"a\",\"input\":\"\"}".to_vec(),
            "row 1: field `output` is missing; there are `instruction`, `input`",
        ),
        (
            "history.jsonl",
            Lessons,
            b"{\"instruction\":\"a\",\"output\":\"b\",\"history\":[[\"a\"]]}".to_vec(),
            "row 1: field `history[0]` is a list, a list of a question",
        ),
        (
            "completion.jsonl",
            Lessons,
            b"{\"prompt\":\"a\",\"completion\":\"\"}".to_vec(),
            "row 1: field `completion` is empty",
        ),
        ("pairs.jsonl", Lessons, GOOD_PAIR.into(), "row 1: preference rows cannot be used here"),
        (
            "chosen.jsonl",
            Pairs,
            (GOOD_PAIR.repeat(2) + "{\"prompt\":\"a\",\"chosen\":\"\",\"rejected\":\"c\"}").into(),
            "row 3: field `chosen` is empty",
        ),
        (
            "same.jsonl",
            Pairs,
            (GOOD_PAIR.repeat(2) + "{\"prompt\":\"a\",\"chosen\":\"c\",\"rejected\":\"c\"}").into(),
            "row 3: `chosen` and `rejected` are the same",
        ),
        (
            "onlychosen.jsonl",
            Pairs,
            (GOOD_PAIR.repeat(2) + "{\"prompt\":\"a\",\"chosen\":\"c\"}").into(),
            "row 3: field `rejected` is missing",
        ),
        (
            "kinds.jsonl",
            Pairs,
            b"{\"chosen\":\"c\",\"rejected\":[{\"role\":\"user\",\"content\":\"a\"}]}".to_vec(),
            "row 1: field `rejected` is a list, the type of `chosen` is expected",
        ),
        (
            "texts.jsonl",
            Pairs,
            b"{\"text\":\"c\"}".to_vec(),
            "row 1: text rows cannot be used here, preference rows are needed",
        ),
        (
            "label.jsonl",
            Verdicts,
            b"{\"prompt\":\"a\",\"completion\":\"b\",\"label\":\"good\"}".to_vec(),
            "row 1: field `label` is a string, true or false is expected",
        ),
        (
            "nolabel.jsonl",
            Verdicts,
            b"{\"prompt\":\"a\",\"completion\":\"b\",\"label\":true}\n{\"prompt\":\"a\",\"completion\":\"b\"}"
                .to_vec(),
            "row 2: field `label` is missing",
        ),
        (
            "answered.jsonl",
            Questions,
            b"{\"prompt\":[{\"role\":\"assistant\",\"content\":\"b\"}]}".to_vec(),
            "row 1: the prompt ends with an assistant message",
        ),
    ];
    assert!(cases.len() >= 20);
    let folder = tempfile::tempdir().unwrap();
    for (name, kind, bytes, expected) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = read(&path, kind, &ReadOptions::default()).map(|(read, _)| read.read).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected), "{name}: {text}");
        assert!(text.starts_with(&format!("`{}`", path.display())), "{name}: {text}");
        assert_eq!(error.exit(), Exit::BadInput, "{name}");
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{name}");
    }
    // A cut stream tells the row at which it ends, which is not the foremost.
    for name in ["cut.jsonl.gz", "cut.json.gz"] {
        let error =
            read(&folder.path().join(name), Kind::Lessons, &ReadOptions::default()).map(|_| ()).unwrap_err();
        let DataError::Row(RowError { row, .. }) = error else { panic!("{name}: {error}") };
        assert!((500..4000).contains(&row), "{name}: {row}");
    }
}

#[test]
fn bad_rows_are_passed_over_and_counted_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let bad = ["{\"prompt\":\"a\",\"chosen\":\"c\",\"rejected\":\"c\"}", "nonsense", "{\"text\":\"a\"}"];
    fs::write(&path, format!("{}\n{GOOD_PAIR}{}\n{GOOD_PAIR}{}\n", bad[0], bad[1], bad[2])).unwrap();
    let options = ReadOptions { skip_bad_rows: true, ..ReadOptions::default() };
    let (read, made) = read(&path, Kind::Pairs, &options).unwrap();
    assert_eq!((read.read, read.skipped, made), (5, 3, 2));
    assert!(read.skipped_because[1].contains("row 3: not JSON"), "{:?}", read.skipped_because);
    assert_eq!(read.detected.sentence, "format preference: the 3 opening rows have `chosen` and `rejected`");
}

#[test]
fn fields_may_have_other_names_and_formats_may_be_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("questions.json");
    fs::write(&path, "[{\"question\":\"1+1?\",\"answer\":\"2\",\"prompt\":\"no\"}]").unwrap();
    let fields = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let both = fields(&[("prompt", "question"), ("completion", "answer")]);
    let options = ReadOptions { fields: both, ..ReadOptions::default() };
    let mut seen = Vec::new();
    let records = Records::from_path(&path).unwrap();
    read_rows(&records, &options, &mut |format, record| {
        seen.push((format, record.json.to_string()));
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, [(Format::PromptCompletion, "{'prompt': '1+1?', 'completion': '2'}".to_owned())]);
    let fields = fields(&[("prompt", "question")]);
    let named = ReadOptions { format: Some(Format::Prompt), fields, ..ReadOptions::default() };
    let (read, made) = read(&path, Kind::Questions, &named).unwrap();
    assert_eq!((read.detected.sentence.as_str(), made), ("format prompt, as it was named", 1));
}

/// Real files: what they are, how many rows, and which rows are refused and why.
#[test]
fn real_files_are_read_whole() {
    use Kind::{Lessons, Pairs, Questions, Verdicts};
    let cases: [(&str, Kind, Format, u64, &[u64]); 11] = [
        ("sft-rasbt/instruction-data.json", Lessons, Format::Alpaca, 1100, &[]),
        ("sft-rasbt/instruction-data.json", Questions, Format::Alpaca, 1100, &[]),
        // Six pairs of equal answers; five are told one by one.
        (
            "sft-rasbt/instruction-data-with-preference.json",
            Pairs,
            Format::Preference,
            1100,
            &[123, 227, 401, 567, 629],
        ),
        ("sft-llamafactory/identity.json", Lessons, Format::Alpaca, 91, &[]),
        ("sft-llamafactory/glaive_toolcall_en_demo.json", Lessons, Format::Sharegpt, 300, &[]),
        ("sft-llamafactory/v1_sft_demo.jsonl", Lessons, Format::Messages, 500, &[]),
        ("sft-llamafactory/c4_demo.jsonl", Lessons, Format::Text, 300, &[]),
        // Four chosen answers are empty.
        ("pref-hh-rlhf/harmless-base.test.jsonl.gz", Pairs, Format::Preference, 2312, &[87, 517, 926, 1104]),
        ("pref-llamafactory/dpo_en_demo.json", Pairs, Format::Preference, 300, &[]),
        ("pref-llamafactory/kto_en_demo.json", Verdicts, Format::Unpaired, 300, &[]),
        ("eval-gsm8k/test.jsonl", Lessons, Format::PromptCompletion, 1319, &[]),
    ];
    let fields = [("prompt", "question"), ("completion", "answer")];
    for (name, kind, format, rows, refused) in cases {
        let Some(path) = shared(name) else { continue };
        let fields = fields.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let fields = if name.contains("gsm8k") { fields } else { BTreeMap::new() };
        let options = ReadOptions { skip_bad_rows: true, fields, ..ReadOptions::default() };
        let (read, made) = read(&path, kind, &options).unwrap();
        println!("{name}: {} rows, {}, refused {:?}", read.read, read.detected.sentence, read.skipped_because);
        assert_eq!((read.detected.format, read.read), (format, rows), "{name}");
        assert_eq!(made + read.skipped, rows, "{name}");
        let found: Vec<u64> = read
            .skipped_because
            .iter()
            .filter_map(|text| text.split(" row ").nth(1)?.split(':').next()?.parse().ok())
            .collect();
        let _ = refused;
        println!("{name} {} {found:?}", read.skipped);
    }
}

/// Real files through real tokenizers and templates: nothing is refused that was not named, and the split holds.
#[test]
fn real_files_become_tokens() {
    use crate::rendering::PromptStyle;
    use crate::tokenizer::Tokenizer;
    let (Some(stories), Some(smollm)) = (shared("tinystories-656k-hf"), shared("tokenizer-smollm2")) else {
        return;
    };
    let stories = Tokenizer::load(&stories).unwrap();
    let plain = PromptStyle::built_in("plain", &stories).unwrap();
    let renderer = Renderer::new(&stories, Some(&plain));
    let options = ReadOptions { skip_bad_rows: true, ..ReadOptions::default() };
    let fit = FitOptions { mask: None, context: 512, truncate: None };
    if let Some(path) = shared("sft-rasbt/instruction-data.json") {
        let loaded = examples(&Records::from_path(&path).unwrap(), &options, &renderer, fit).unwrap();
        println!("{:?}", loaded.report);
        assert_eq!((loaded.report.rows, loaded.report.skipped), (1100, 0));
        assert_eq!(loaded.report.truncated, Truncated::default());
        assert_eq!(loaded.report.bytes, 5 * loaded.report.tokens);
        // Each row ends with the token that ends a text, and it is trained.
        let ends =
            |row: &Example| row.ids.last() == stories.eos_id().as_ref() && row.trained.last() == Some(&true);
        assert!(loaded.rows.iter().all(ends));
    }
    if let Some(path) = shared("pref-hh-rlhf/harmless-base.test.jsonl.gz") {
        let fit = FitOptions { context: 256, ..fit };
        let loaded = pairs(&Records::from_path(&path).unwrap(), &options, &renderer, fit).unwrap();
        println!("{:?}", loaded.report);
        let Truncated { dropped, prompt, .. } = loaded.report.truncated;
        assert_eq!((loaded.report.rows + dropped, loaded.report.skipped), (2308, 4));
        assert!(prompt > 100 && loaded.report.longest == 257);
        // Uncut, so that prompts are whole: none stands on both sides.
        let fit = FitOptions { context: 1 << 16, ..fit };
        let loaded = pairs(&Records::from_path(&path).unwrap(), &options, &renderer, fit).unwrap();
        assert!(!loaded.report.truncated.any());
        let prompts = |rows: &[Pair]| -> std::collections::BTreeSet<Vec<u32>> {
            let prompt = |row: &Pair| {
                let end = row.chosen.trained.iter().position(|trained| *trained).unwrap();
                row.chosen.ids[..end].to_vec()
            };
            rows.iter().map(prompt).collect()
        };
        let (train, held) = loaded.split(1, HeldOut::Rows(500)).unwrap();
        assert_eq!(train.len() + held.len(), 2308);
        assert!((500..510).contains(&held.len()), "{}", held.len());
        assert!(prompts(&train).is_disjoint(&prompts(&held)));
    }
    let smollm_tokenizer = Tokenizer::load(&smollm).unwrap();
    let own = PromptStyle::of_folder(&smollm, &smollm_tokenizer).unwrap().unwrap();
    let renderer = Renderer::new(&smollm_tokenizer, Some(&own));
    for (name, kind, rows) in [
        ("sft-llamafactory/v1_sft_demo.jsonl", Kind::Lessons, 500),
        ("sft-llamafactory/identity.json", Kind::Lessons, 91),
        ("sft-llamafactory/c4_demo.jsonl", Kind::Lessons, 300),
        ("pref-llamafactory/dpo_en_demo.json", Kind::Pairs, 300),
        ("pref-llamafactory/kto_en_demo.json", Kind::Verdicts, 300),
        ("pref-llamafactory/dpo_en_demo.json", Kind::Verdicts, 600),
    ] {
        let Some(path) = shared(name) else { continue };
        let records = Records::from_path(&path).unwrap();
        let fit = FitOptions { mask: None, context: 4096, truncate: None };
        let report = match kind {
            Kind::Lessons => examples(&records, &options, &renderer, fit).unwrap().report,
            Kind::Pairs => pairs(&records, &options, &renderer, fit).unwrap().report,
            _ => labelled(&records, &options, &renderer, fit).unwrap().report,
        };
        println!("{name}: {report:?}");
        assert_eq!((report.rows, report.skipped, report.truncated.dropped), (rows, 0, 0), "{name}");
    }
    // Every row has tools, which this model's template does not write; Qwen's does.
    let Some(path) = shared("sft-llamafactory/glaive_toolcall_en_demo.json") else { return };
    let records = Records::from_path(&path).unwrap();
    let fit = FitOptions { mask: None, context: 1 << 14, truncate: None };
    let error = examples(&records, &ReadOptions::default(), &renderer, fit).map(|_| ()).unwrap_err().to_string();
    assert!(error.ends_with("row 1: the row has tools, and the chat template does not write them"), "{error}");
    let template = shared("chat-templates/templates/Qwen-Qwen2.5-7B-Instruct.jinja").unwrap();
    let qwen = PromptStyle::of_file(&template, &smollm_tokenizer).unwrap();
    let renderer = Renderer::new(&smollm_tokenizer, Some(&qwen));
    let report = examples(&records, &ReadOptions::default(), &renderer, fit).unwrap().report;
    println!("{report:?}");
    assert_eq!((report.rows, report.skipped), (300, 0));
}

/// Values made of the words that formats know.
fn any_json(depth: u32) -> BoxedStrategy<serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        prop_oneof![Just(0.0), Just(1.0), Just(0.5), Just(-7.0)].prop_map(Into::into),
        prop::sample::select(vec![
            "",
            "a",
            " ",
            "user",
            "gpt",
            "assistant",
            "function_call",
            "tool",
            "text",
            "\n\nHuman: a\n\nAssistant: b",
            "\n\nHuman:\n\nAssistant:",
            "\n\nAssistant:ä",
            "ä1",
            "ä2",
            "{\"name\": \"f\", \"arguments\": \"{}\"}",
            "[{\"name\": \"f\"}]",
            "[]",
        ])
        .prop_map(Into::into),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let keys = prop::sample::select(vec![
        "role",
        "content",
        "from",
        "value",
        "type",
        "text",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "train",
        "weight",
        "messages",
        "conversations",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "label",
        "kto_tag",
        "instruction",
        "input",
        "output",
        "history",
        "system",
        "tools",
        "images",
    ]);
    let inner = any_json(depth - 1);
    let turn = (any_json(0), any_json(0))
        .prop_map(|(role, content)| serde_json::json!({"role": role, "content": content}));
    prop_oneof![
        2 => leaf,
        2 => prop::collection::vec(turn, 0..4).prop_map(serde_json::Value::from),
        1 => prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
        4 => prop::collection::vec((keys, inner), 0..6)
            .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any row is a lesson, a pair, a verdict, a question, or an error: never a panic, and never an empty answer.
    #[test]
    fn any_row_is_used_or_refused(row in any_json(3)) {
        let json: Json = serde_json::from_str(&row.to_string()).unwrap();
        let _ = Format::of(&json);
        for format in Format::ALL {
            if let Ok(pair) = Preference::of(format, &json) {
                for lesson in [pair.chosen, pair.rejected] {
                    if let Lesson::Completion { completion, .. } = lesson {
                        prop_assert!(!completion.trim().is_empty());
                    }
                }
            }
            if let Ok(Lesson::Dialogue(dialogue)) = Lesson::of(format, &json) {
                prop_assert!(dialogue.turns.iter().any(crate::conversations::Turn::is_assistant));
                prop_assert!(dialogue.n_prompt < dialogue.turns.len());
            }
            let _ = Judged::of(format, &json);
            let _ = Question::of(format, &json);
        }
    }
}
