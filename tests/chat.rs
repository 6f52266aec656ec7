//! Talking with a model: on real terminals, and line by line without one.
//!
//! Row K5 of the reliability table.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::terminal::OnTerminal;
use common::{Ran, copy, folder, fornax, run, tiny_recipe, train};
use rustix::process::Signal;
use serde_json::Value;

/// A tiny model that says it reads 100,000 tokens, so that an answer lasts as long as a test wants.
static MODEL: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chat-model");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let run_folder = folder.join("run");
    run(&mut train(&tiny_recipe(&folder), &run_folder, &["eval.every=0"])).exits(0);
    let model = folder.join("model");
    copy(&run_folder.join("model"), &model);
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["max_position_embeddings"] = 100_000.into();
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    model
});

fn chat(arguments: &[&str]) -> Command {
    let mut command = fornax(["chat", "--model"]);
    command.arg(&*MODEL).args(arguments);
    command
}

/// Says these lines through a pipe. Greedy, so that a model of this size writes words.
fn says(arguments: &[&str], lines: &[&str]) -> Ran {
    let greedy = if arguments.contains(&"--top-p") { &[][..] } else { &["--temperature", "0"] };
    says_to(&MODEL, &[arguments, greedy].concat(), lines)
}

fn says_to(model: &Path, arguments: &[&str], lines: &[&str]) -> Ran {
    let folder = folder();
    let path = folder.path().join("lines");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let mut command = fornax(["chat", "--model"]);
    command.arg(model).args(arguments);
    let ran = run(command.stdin(fs::File::open(path).unwrap()));
    assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'), "{}\n{}", ran.stdout, ran.stderr);
    ran
}

const ENDLESS: [&str; 6] = ["--raw", "--ignore-eos", "--max-tokens", "90000", "--context", "90000"];
const SHORT: [&str; 4] = ["--template", "plain", "--max-tokens", "5"];

#[test]
fn k5_ctrl_c_stops_the_answer_and_a_second_one_leaves() {
    let mut terminal = OnTerminal::start(&chat(&ENDLESS), 200, 24);
    terminal.wait_for("/help lists the commands");
    terminal.types("One day, \r");
    // The answer runs with the terminal as the shell left it.
    let until = Instant::now() + Duration::from_secs(20);
    while terminal.is_raw() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!terminal.is_raw());
    std::thread::sleep(Duration::from_millis(100));
    let asked = Instant::now();
    terminal.types("\x03");
    terminal.wait_for("; stopped]");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    // The conversation goes on, and once more.
    terminal.types("/save nowhere/at/all\r");
    terminal.wait_for("error: ");
    terminal.types("\x03");
    terminal.wait_for("once more");
    terminal.types("\x03");
    let (status, text) = terminal.finish();
    assert_eq!(status.code(), Some(130), "{text}");
}

#[test]
fn k5_a_second_ctrl_c_during_an_answer_ends_at_once_and_so_does_a_signal() {
    for (name, code) in [("twice", 130), ("term", 143)] {
        let mut terminal = OnTerminal::start(&chat(&ENDLESS), 200, 24);
        terminal.wait_for("/help lists the commands");
        match name {
            "twice" => {
                terminal.types("One day, \r");
                std::thread::sleep(Duration::from_millis(400));
                // Both before the answer can end.
                terminal.signal(Signal::INT);
                terminal.signal(Signal::INT);
                std::thread::sleep(Duration::from_millis(100));
                // Where the first had been seen already, the second one was that of the prompt.
                let _ = (0..2).try_for_each(|_| {
                    std::thread::sleep(Duration::from_millis(200));
                    Some(()).filter(|()| terminal.is_raw()).map(|()| terminal.types("\x03"))
                });
            }
            _ => {
                terminal.types("half a li");
                terminal.wait_for("half a li");
                assert!(terminal.is_raw());
                terminal.signal(Signal::TERM);
            }
        }
        let (status, text) = terminal.finish();
        assert_eq!(status.code(), Some(code), "{name}: {text}");
    }
}

#[test]
fn k5_a_terminal_that_is_closed_ends_the_conversation() {
    for typed in ["", "One day, \r"] {
        let mut terminal = OnTerminal::start(&chat(&ENDLESS), 200, 24);
        terminal.wait_for("/help lists the commands");
        terminal.types(typed);
        std::thread::sleep(Duration::from_millis(200));
        terminal.close();
        let (status, text) = terminal.finish();
        assert!(!status.success(), "{text}");
    }
}

#[test]
fn commands_on_a_terminal() {
    let folder = folder();
    let saved = folder.path().join("talk.jsonl");
    let kept = folder.path().join("lines");
    let history = ["--history", kept.to_str().unwrap()];
    let arguments = [&SHORT[..], &["--system", "Be kind.", "--seed", "3"], &history].concat();
    let mut terminal = OnTerminal::start(chat(&arguments).env("NO_COLOR", "1"), 200, 60);
    terminal.wait_for("/help lists the commands");
    for (line, answer) in [
        ("/help\r", "send a text that begins with a slash"),
        ("/regen\r", "error: there is no answer yet"),
        ("/systm\r", "hint: did you mean `/system`?"),
        ("/system\r", "Be kind."),
        ("One \\\r", "One \\\n."),
        ("day\r", " tok/s; "),
        ("/system Be short.\r", "from the next answer on"),
    ] {
        terminal.types(line);
        terminal.wait_for(answer);
    }
    terminal.types("/regen\r");
    std::thread::sleep(Duration::from_millis(500));
    terminal.types(&format!("/save {}\r", saved.display()));
    terminal.wait_for("3 messages saved");
    terminal.types("/clear\r");
    terminal.wait_for("forgotten; the system prompt stays");
    terminal.types(&format!("/load {}\r", saved.display()));
    terminal.wait_for("3 messages loaded");
    terminal.types("\x04");
    let (status, text) = terminal.finish();
    assert_eq!(status.code(), Some(0), "{text}");
    let lines: Vec<Value> =
        fs::read_to_string(&saved).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let roles: Vec<&str> = lines.iter().map(|line| line["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!((&lines[0]["content"], &lines[1]["content"]), (&"Be short.".into(), &"One \nday".into()));
    let typed = fs::read_to_string(&kept).unwrap();
    assert!(typed.starts_with("/help\n/regen\n") && typed.contains("One \\\nday\n"), "{typed}");
    // The next conversation finds them.
    let mut terminal = OnTerminal::start(&chat(&[&SHORT[..], &history].concat()), 200, 60);
    terminal.wait_for("/help lists the commands");
    terminal.types("\x1b[A\x1b[A");
    terminal.wait_for("/clear");
    terminal.types("\x03");
    terminal.wait_for("once more");
    terminal.types("\x03");
    assert_eq!(terminal.finish().0.code(), Some(130));
}

#[test]
fn lines_without_a_terminal() {
    const OPENING: &str = "One day, a bird sat on the wall behind the house and sang for the sun.";
    let plain = says(&SHORT, &[OPENING, "", "And then"]).exits(0);
    assert_eq!(plain.stderr.matches(" tok/s; ").count(), 2, "{}", plain.stderr);
    let json = says(&[&SHORT[..], &["--json"]].concat(), &[OPENING, "And then"]).exits(0);
    let answers: Vec<Value> = json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 2);
    let text = |answer: &Value| answer["text"].as_str().unwrap().to_owned();
    let written = answers.iter().map(|a| if text(a).ends_with('\n') { text(a) } else { text(a) + "\n" });
    assert_eq!(plain.stdout, written.collect::<String>());
    assert_eq!((&answers[0]["finish"], &answers[0]["tokens"]), (&"length".into(), &5.into()));
    let number = |answer: &Value, key: &str| answer[key].as_u64().unwrap();
    assert_eq!(number(&answers[0], "kept_tokens"), 0);
    // What was said is not computed again, in whole pages.
    let before = number(&answers[0], "prompt_tokens");
    assert!(number(&answers[1], "kept_tokens") >= before / 16 * 16 && before >= 16, "{answers:?}");
    // The same conversation without the cache of the opening question.
    let folder = folder();
    let path = folder.path().join("talk.jsonl");
    let name = path.to_str().unwrap();
    says(&SHORT, &[OPENING, &format!("/save {name}")]).exits(0);
    let loaded = says(&[&SHORT[..], &["--json", "--load", name]].concat(), &["And then"]);
    let again: Value = serde_json::from_str(loaded.exits(0).stdout.trim()).unwrap();
    assert_eq!((number(&again, "kept_tokens"), &again["text"]), (0, &answers[1]["text"]));
}

#[test]
fn a_full_context_is_never_silent() {
    let small = ["--template", "plain", "--context", "60", "--max-tokens", "7", "--ignore-eos"];
    let lines = ["One day, a bird", "sat on a wall", "and sang", "for the sun", "and the moon"];
    let ran = says(&small, &lines).exits(0);
    assert!(
        ran.stderr.contains("the conversation is longer than the context of 60 tokens: the oldest"),
        "{}",
        ran.stderr
    );
    let long = "bird ".repeat(60);
    says(&small, &[&long]).refuses(&["the message is", "the context holds 60", "hint: shorten"]);
    let full = ["--raw", "--context", "24", "--max-tokens", "50", "--ignore-eos"];
    says(&full, &["One day"]).exits(0).says(&["24 of 24; the context of 24 tokens is full"]);
    says(&["--raw", "--context", "100001"], &["a"]).refuses(&["--context is 100001", "context holds 100000"]);
}

#[test]
fn wrong_input_is_refused() {
    let folder = folder();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let without = folder.path().join("model");
    copy(&MODEL, &without);
    let settings = fs::read_to_string(without.join("tokenizer_config.json")).unwrap();
    let mut settings: Value = serde_json::from_str(&settings).unwrap();
    settings.as_object_mut().unwrap().remove("chat_template").unwrap();
    fs::write(without.join("tokenizer_config.json"), settings.to_string()).unwrap();
    says_to(&without, &[], &["Hello"]).refuses(&["has no chat template", "hint: `--template chatml`", "`--raw`"]);
    says(&["--template", "nothing"], &["Hello"]).refuses(&["nothing"]);
    says(&["--raw", "--top-p", "2"], &["Hello"]).refuses(&["top_p is 2"]);
    says(&["--raw", "--stop", ""], &["Hello"]).refuses(&["stop string 0 is empty"]);
    says(&SHORT, &["/nothing"]).refuses(&["`/nothing` is no command", "hint: `/help`"]);
    says(&SHORT, &["/save"]).refuses(&["`/save` needs a file"]);
    let other = file("other.txt", "not a conversation\n");
    says(&SHORT, &["One", &format!("/save {other}")]).exits(2).says(&["exists and holds something else"]);
    assert_eq!(fs::read_to_string(&other).unwrap(), "not a conversation\n");
    for (text, words) in [
        ("", "holds no message"),
        ("{\"role\": \"user\"}\n", "line 1: `content` is to be one text"),
        (
            "{\"role\": \"user\", \"content\": \"a\"}\n{\"role\": \"king\", \"content\": \"b\"}\n",
            "line 2: the role is `king`",
        ),
        ("{\"role\": \"user\", \"content\": \"a\"}\n\n{\n", "line 3: not JSON"),
    ] {
        let path = file("talk.jsonl", text);
        says(&[&SHORT[..], &["--load", &path]].concat(), &["a"]).refuses(&[words, "talk.jsonl"]);
    }
    let mut child =
        chat(&SHORT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"caf\xe9\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a line of stdin is not UTF-8 text"));
}
