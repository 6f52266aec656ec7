use std::time::{Duration, Instant};

use super::*;

fn prompt(columns: serde_json::Value) -> Prompt {
    Prompt { ids: vec![1], columns: serde_json::from_value(columns).unwrap(), row: 17 }
}

fn reward(recipe: &str) -> Result<Reward, RewardError> {
    Reward::new(&fornax_base::recipe::load::<RewardRecipe>(recipe, "reward.toml", &[]).unwrap())
}

#[track_caller]
fn check(recipe: &str, columns: serde_json::Value, cases: &[(&str, f64)]) {
    let (reward, prompt) = (reward(recipe).unwrap(), prompt(columns));
    reward.check(&prompt).unwrap();
    for &(completion, expected) in cases {
        let verdict = reward.score(&prompt, completion).unwrap();
        assert_eq!(verdict, Verdict { value: expected, gave_up: false }, "`{completion}` under {recipe}");
    }
}

#[track_caller]
fn refused(recipe: &str, words: &[&str]) {
    let message = reward(recipe).unwrap_err().to_string();
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

#[track_caller]
fn row_refused(recipe: &str, columns: serde_json::Value, words: &[&str]) {
    let (reward, prompt) = (reward(recipe).unwrap(), prompt(columns));
    let message = reward.check(&prompt).unwrap_err().to_string();
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
    assert_eq!(reward.score(&prompt, "x").unwrap_err().to_string(), message);
}

use serde_json::json;

#[test]
fn exact_answers() {
    check(
        "kind = 'exact'",
        json!({"answer": "Paris"}),
        &[("Paris", 1.0), (" Paris\n", 1.0), ("paris", 0.0), ("", 0.0)],
    );
    check("kind = 'exact'\ncolumn = 'n'", json!({"n": 7}), &[("7", 1.0), ("7.0", 0.0)]);
    check("kind = 'exact'", json!({"answer": true}), &[("true", 1.0)]);
    check(
        "kind = 'exact'",
        json!({"answer": ["NYC", "New York"]}),
        &[("New York", 1.0), ("NYC", 1.0), ("N", 0.0)],
    );
    let all = "kind = 'exact'\nnormalize = ['case', 'punctuation', 'spaces']";
    check(all, json!({"answer": "The  Red Hat."}), &[("the red\nhat!", 1.0), ("a red hat", 0.0)]);
    let holds = "kind = 'exact'\ncontains = true\nnormalize = ['case']";
    check(
        holds,
        json!({"answer": ["in the Box", "box"]}),
        &[("It is in the box.", 1.0), ("Box", 1.0), ("bo x", 0.0)],
    );
    check("kind = 'exact'\nnormalize = []", json!({"answer": "a"}), &[("a", 1.0), ("a ", 0.0)]);
    let after = "kind = 'exact'\nafter = 'Answer:'";
    check(after, json!({"answer": "4"}), &[("2 + 2. Answer: 5? Answer: 4", 1.0), ("4", 0.0), ("Answer: 4.", 0.0)]);
    check(after, json!({"answer": "So: Answer: 4"}), &[("Answer:4", 1.0)]);
    row_refused(
        "kind = 'exact'",
        json!({"question": 1, "id": 2}),
        &["row 17", "no column `answer`", "(it has ", "question"],
    );
    row_refused("kind = 'exact'", json!({"answer": {"a": 1}}), &["row 17", "neither text"]);
    row_refused("kind = 'exact'", json!({"answer": []}), &["row 17", "neither text"]);
    row_refused("kind = 'exact'", json!({"answer": null}), &["row 17", "no column"]);
}

#[test]
fn patterns() {
    let lazy = "kind = 'regex'\npattern = '^<think>.+</think>'";
    check(lazy, json!({}), &[("<think>a</think> b", 1.0), (" <think>a</think>", 0.0)]);
    let whole = "kind = 'regex'\nwhole = true\npattern = 'a|ab'";
    check(whole, json!({}), &[("ab", 1.0), ("abc", 0.0), ("xa", 0.0)]);
    check("kind = 'regex'\npattern = '(?=.*\\d)(\\w)\\1'", json!({}), &[("aa1", 1.0), ("ab1", 0.0)]);
    refused("kind = 'regex'\nname = 'form'\npattern = 'ab(c'", &["reward `form`", "`ab(c`", "at character"]);
    refused("kind = 'regex'\npattern = 'é{2}*)'", &["é{2}*)"]);
    refused("kind = 'regex'\npattern = '[z-a]'", &["[z-a]"]);
    refused("kind = 'regex'\npattern = '(a{1000}){1000}'", &["(a{1000}){1000}"]);
    // Catastrophic in a backtracking engine: given up, not endless.
    let bad = reward("kind = 'regex'\npattern = '^(a|a)*(?=b)\\1$'").unwrap();
    let started = Instant::now();
    let verdict = bad.score(&prompt(json!({})), &format!("{}c", "a".repeat(64))).unwrap();
    assert_eq!(verdict, Verdict { value: 0.0, gave_up: true });
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn schemas() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("person.json");
    let recipe = |more: &str| format!("kind = 'json_schema'\nschema = '{}'\n{more}", path.display());
    let schema = r#"{"type": "object", "required": ["name"], "additionalProperties": false,
        "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"type": "integer", "minimum": 0}}}"#;
    std::fs::write(&path, schema).unwrap();
    let cases = [
        (r#"{"name": "Ada"}"#, 1.0),
        (
            r#" {"name": "Ada", "age": 36}
"#,
            1.0,
        ),
        (r#"{"name": "ada"}"#, 0.0),
        (r#"{"name": "Ada", "age": -1}"#, 0.0),
        (r#"{"name": "Ada", "born": 1815}"#, 0.0),
        (r#"{"name": "Ada"} or so"#, 0.0),
        (r#"{"name": "Ada""#, 0.0),
        ("", 0.0),
    ];
    check(&recipe(""), json!({}), &cases);
    let fenced = [
        ("Here:\n```json\n{\"name\": \"Ada\"}\n```\nDone.", 1.0),
        ("```\n{}\n```\n```json\n{\"name\": \"Ada\"}\n```", 1.0),
        ("```json\n{\"name\": \"Ada\"}\n```\n```\n{}\n```", 0.0),
        ("```json\n{\"name\": \"Ada\"}", 0.0),
        ("{\"name\": \"Ada\"}", 1.0),
    ];
    check(&recipe("fenced = true"), json!({}), &fenced);
    check(&recipe(""), json!({}), &[(fenced[0].0, 0.0)]);
    let deep = reward(&recipe("")).unwrap();
    assert_eq!(deep.score(&prompt(json!({})), &"[".repeat(1_000_000)).unwrap().value, 0.0);
    // A schema that refers to itself without end, and one deeper than a parser goes.
    std::fs::write(&path, r##"{"$ref": "#"}"##).unwrap();
    if let Ok(endless) = reward(&recipe("")) {
        endless.score(&prompt(json!({})), "{}").unwrap();
    }
    std::fs::write(&path, "{\"not\":".repeat(1000) + "true" + &"}".repeat(1000)).unwrap();
    refused(&recipe(""), &["person.json", "recursion"]);
    std::fs::write(&path, r#"{"type": "objekt"}"#).unwrap();
    refused(&recipe(""), &["person.json", "objekt", "/type"]);
    std::fs::write(&path, "{").unwrap();
    refused(&recipe(""), &["person.json", "EOF"]);
    std::fs::write(&path, r#"{"$ref": "https://example.com/schema.json"}"#).unwrap();
    refused(&recipe(""), &["person.json", "example.com"]);
    std::fs::remove_file(&path).unwrap();
    refused(&recipe(""), &["person.json"]);
}

#[test]
fn arithmetic_answers() {
    let gsm = json!({"answer": "2/2=<<2/2=1>>1 bolt.\n#### 1,003"});
    let cases = [
        ("so 1 + 1002\n#### 1003", 1.0),
        ("#### $1,003.00 in all", 1.0),
        ("#### 5\n#### 1003", 1.0),
        ("1003", 0.0),
        ("####", 0.0),
        ("#### \n1003", 0.0),
        ("#### -1003", 0.0),
    ];
    check("kind = 'arithmetic'", gsm.clone(), &cases);
    let last = [("that makes 1,003.", 1.0), ("1003 or 1004", 0.0), ("-1003", 0.0), ("no idea", 0.0)];
    check("kind = 'arithmetic'\nextract = 'last'", gsm, &last);
    let whole = "kind = 'arithmetic'\nextract = 'whole'";
    check(whole, json!({"answer": 0.5}), &[("0.50", 1.0), (" .5.\n", 1.0), ("1/2", 0.0), ("0.5 or so", 0.0)]);
    let expression = "kind = 'arithmetic'\nextract = 'whole'\nexpression = true";
    check(
        expression,
        json!({"answer": "1/3"}),
        &[("2/6", 1.0), ("(1+1)/6", 1.0), ("0.333333", 0.0), ("1/0", 0.0)],
    );
    let near = "kind = 'arithmetic'\ntolerance = 0.01\nexpression = true";
    check(near, json!({"answer": "1/3"}), &[("#### 0.333", 1.0), ("#### 0.35", 0.0), ("#### 1/3 of it", 0.0)]);
    row_refused("kind = 'arithmetic'", json!({"answer": "forty"}), &["row 17", "no number", "forty"]);
    row_refused("kind = 'arithmetic'", json!({"answer": "#### "}), &["row 17", "no number"]);
    row_refused("kind = 'arithmetic'", json!({"answer": [1]}), &["row 17", "no number"]);
    refused("kind = 'arithmetic'\ntolerance = -1.0", &["`tolerance` is -1"]);
    refused("kind = 'arithmetic'\nextract = 'last'\nexpression = true", &["`expression`", "`last`"]);
}

#[test]
fn commands() {
    let grep = "kind = 'command'\ncommand = ['grep', '-q', '^ab$']";
    check(grep, json!({}), &[("x\nab\n", 1.0), ("abc", 0.0), ("", 0.0)]);
    // No shell: a metacharacter is a letter.
    check("kind = 'command'\ncommand = ['test', '$HOME', '=', '$HOME']", json!({}), &[("", 1.0)]);
    check("kind = 'command'\ncommand = ['sh', '-c', 'exit 3']", json!({}), &[("a", 0.0)]);
    // It may leave its input unread.
    check("kind = 'command'\ncommand = ['true']", json!({}), &[(&"a".repeat(1 << 20), 1.0)]);
    let row = "kind = 'command'\ninput = 'json'\ncommand = ['grep', '-q', '\"completion\":\"7\".*\"n\":7']";
    check(row, json!({"n": 7}), &[("7", 1.0), ("8", 0.0)]);
    let file = "kind = 'command'\ninput = 'file'\nfile_name = 'a.py'\n\
                command = ['sh', '-c', 'case $0 in */a.py) grep -q 42 \"$0\";; *) exit 1;; esac', '{file}']";
    check(file, json!({}), &[("print(42)", 1.0), ("print(41)", 0.0)]);
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let own = format!("fornax-reward-{}-", std::process::id());
    assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own)).count(), 0);
}

/// A command that runs on, one that writes on, and one that leaves a child behind: each is ended with its group.
#[test]
fn commands_meet_their_limits() {
    let gave_up = Verdict { value: 0.0, gave_up: true };
    let run = |recipe: &str| reward(recipe).unwrap().score(&prompt(json!({})), "").unwrap();
    let started = Instant::now();
    assert_eq!(run("kind = 'command'\ntimeout_seconds = 0.2\ncommand = ['sleep', '100']"), gave_up);
    assert_eq!(run("kind = 'command'\noutput_bytes = 1000\ncommand = ['yes']"), gave_up);
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("alive");
    let script = format!("(sleep 0.3; touch {}) & exit 0", mark.display());
    let child = format!("kind = 'command'\ncommand = ['sh', '-c', '{script}']");
    assert_eq!(run(&child), Verdict { value: 1.0, gave_up: false });
    assert!(started.elapsed() < Duration::from_secs(60));
    std::thread::sleep(Duration::from_millis(600));
    assert!(!mark.exists(), "a child outlived its command");
}

#[test]
fn wrong_commands_are_refused() {
    let missing = reward("kind = 'command'\ncommand = ['no-such-program-here']").unwrap();
    let message = missing.score(&prompt(json!({})), "").unwrap_err().to_string();
    assert!(message.contains("no-such-program-here"), "{message}");
    refused("kind = 'command'\ncommand = []", &["`command` is empty"]);
    refused("kind = 'command'\ncommand = ['a']\ntimeout_seconds = 0.0", &["`timeout_seconds` is 0"]);
    refused("kind = 'command'\ncommand = ['a']\ninput = 'file'", &["`{file}`"]);
    refused("kind = 'command'\ncommand = ['a', '{file}']", &["`{file}`", "not `file`"]);
    refused("kind = 'command'\ncommand = ['a']\nfile_name = 'b'", &["`file_name`"]);
    refused("kind = 'command'\ncommand = ['a', '{file}']\ninput = 'file'\nfile_name = '../b'", &["`../b`"]);
}

#[test]
fn rewards_add_up_by_weight_and_keep_their_order() {
    let load = |text: &str| {
        #[derive(serde::Deserialize)]
        struct Recipe {
            rewards: Vec<RewardRecipe>,
        }
        fornax_base::recipe::load::<Recipe>(text, "r.toml", &[]).unwrap().rewards
    };
    let recipes = load(
        "[[rewards]]\nkind = 'exact'\n[[rewards]]\nkind = 'regex'\npattern = 'a'\nweight = -0.5\n\
         [[rewards]]\nkind = 'command'\nname = 'c'\ncommand = ['grep', '-q', 'b']\nweight = 2.0",
    );
    let rewards = Rewards::new(&recipes).unwrap();
    assert_eq!(rewards.all().iter().map(Reward::name).collect::<Vec<_>>(), ["exact", "regex", "c"]);
    let row = prompt(json!({"answer": "ab"}));
    let texts: Vec<String> = (0..20).map(|i| ["ab", "a", "b", ""][i % 4].to_owned()).collect();
    let answers: Vec<(&Prompt, &str)> = texts.iter().map(|text| (&row, text.as_str())).collect();
    let totals: Vec<f64> = rewards.score(&answers).unwrap().iter().map(|v| rewards.total(v)).collect();
    assert_eq!(totals, [2.5, -0.5, 2.0, 0.0].repeat(5));
    assert!(matches!(Rewards::new(&[]), Err(RewardError::None)));
    let twice = load("[[rewards]]\nkind = 'exact'\n[[rewards]]\nkind = 'exact'");
    assert!(matches!(Rewards::new(&twice), Err(RewardError::SameName { name }) if name == "exact"));
    rewards.check(&[row]).unwrap();
    assert!(rewards.check(&[prompt(json!({}))]).is_err());
}

/// A key that a kind does not read is unknown to it.
#[test]
fn keys_of_another_kind_are_unknown() {
    let load = |text: &str| fornax_base::recipe::load::<RewardRecipe>(text, "r.toml", &[]).unwrap_err();
    let error = load("kind = 'exact'\npattern = 'a'");
    assert!(error.to_string().contains("unknown key"), "{error}");
    assert!(error.to_string().contains("pattern"), "{error}");
    assert!(load("kind = 'exacts'").to_string().contains("exacts"));
}
