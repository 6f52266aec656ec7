//! The pages say what is so: links lead somewhere, commands parse, every recipe key, event, exit code and dependency is
//! explained, tests named as evidence exist, and crates keep to the arrows of docs/architecture.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CRATES: [&str; 7] = ["base", "model", "data", "infer", "train", "post-train", "eval"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below `folder` whose names end in `end`, sorted.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if !path.ends_with("target") => folders.push(path),
                false if path.to_string_lossy().ends_with(end) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The pages of the project: those at its root, in docs/, and beside the code.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "CHANGELOG.md"].map(|name| root().join(name)).into();
    for folder in ["docs", "tests"].into_iter().chain(CRATES) {
        pages.extend(files(folder, ".md"));
    }
    assert!(pages.len() > 20, "only {} pages", pages.len());
    pages
}

/// A page without its code blocks, and the lines of those marked `sh`.
fn split(page: &str) -> (String, Vec<String>) {
    let (mut prose, mut shell, mut block) = (String::new(), Vec::new(), None);
    for line in page.lines() {
        match (line.trim().strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language == "sh"),
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) => shell.push(line.to_owned()),
            (None, Some(false)) => {}
            (None, None) => prose += &format!("{line}\n"),
        }
    }
    assert!(block.is_none(), "a code block has no end");
    (prose, shell)
}

/// GitHub's anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

fn has_anchor(page: &Path, wanted: &str) -> bool {
    let (prose, _) = split(&fs::read_to_string(page).unwrap());
    let mut headings = prose.lines().filter(|line| line.starts_with('#'));
    headings.any(|line| anchor(line.trim_start_matches('#')) == wanted)
}

#[test]
fn relative_links_lead_to_files_and_headings() {
    let (mut broken, mut links) = (Vec::new(), 0);
    for page in pages() {
        let (prose, _) = split(&fs::read_to_string(&page).unwrap());
        for part in prose.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            if !path.exists() || !(heading.is_empty() || has_anchor(&path, heading)) {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(links > 30, "only {links} links were found");
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Words of a shell line, up to a pipe, a redirection or a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '|' | '>' | '<' | ';' | '&' | '#') => break,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The arguments of `fornax` in a line that runs it, by name or through cargo.
fn arguments(line: &str) -> Option<Vec<String>> {
    let words = words(line);
    match words.first()?.as_str() {
        "fornax" => Some(words[1..].to_vec()),
        "cargo" if words.get(1)? == "run" && !words.iter().any(|word| word == "--example") => {
            let dashes = words.iter().position(|word| word == "--")?;
            Some(words[dashes + 1..].to_vec())
        }
        _ => None,
    }
}

/// `--help` ends the reading of arguments, after all before it were understood.
fn parses(arguments: &[String]) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fornax"));
    let output = command.args(arguments).arg("--help").output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn row_k1_commands_of_the_pages_and_recipes_parse() {
    let mut lines = Vec::new();
    for page in pages() {
        lines.extend(split(&fs::read_to_string(&page).unwrap()).1);
    }
    for recipe in files("recipes", ".toml") {
        let text = fs::read_to_string(&recipe).unwrap();
        let command = text.lines().next().and_then(|line| line.strip_prefix("# "));
        lines.push(command.unwrap_or_else(|| panic!("{} opens without a command", recipe.display())).to_owned());
    }
    let commands: Vec<Vec<String>> = lines.iter().filter_map(|line| arguments(line)).collect();
    assert!(commands.len() > 20, "only {} commands were found", commands.len());
    for command in commands {
        if let Err(error) = parses(&command) {
            panic!("{command:?}: {error}");
        }
    }
    assert!(parses(&["generate".to_owned(), "--moddel".to_owned()]).is_err(), "this check sees nothing");
}

#[test]
fn the_readme_has_its_two_commands_each_on_a_line() {
    let (_, shell) = split(&text("README.md"));
    for command in ["cargo run --release -- quickstart", "cargo test --workspace"] {
        assert!(shell.iter().any(|line| line == command), "{command}");
        assert!(text(".ci/run").contains(command), "{command}");
    }
}

/// Names of the fields declared in the part of `source` that opens with `from`, up to a line that is `}`.
fn fields(source: &str, from: &str, indent: &str) -> BTreeSet<String> {
    let start = source.find(from).unwrap_or_else(|| panic!("no `{from}`"));
    let body = source[start..].lines().take_while(|line| *line != "}");
    let name = |line: &str| {
        let declared = line.strip_prefix(indent)?;
        let declared = declared.strip_prefix("pub ").unwrap_or(declared);
        let (name, _) = declared.split_once(": ")?;
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        (plain && !name.is_empty()).then(|| name.to_owned())
    };
    body.filter_map(name).collect()
}

#[track_caller]
fn all_in_backticks(page: &str, names: impl IntoIterator<Item = String>) {
    let page_text = text(page);
    let absent: Vec<String> = names.into_iter().filter(|name| !page_text.contains(&format!("`{name}`"))).collect();
    assert!(absent.is_empty(), "{page} does not explain {absent:?}");
}

#[test]
fn every_recipe_key_is_explained() {
    let source = text("train/src/recipe/mod.rs") + &text("train/src/recipe/optimizer.rs");
    let mut keys = 0;
    for section in [
        "Model",
        "Tokenizer",
        "Data",
        "Mixture",
        "Steps",
        "Optimizer",
        "Schedule",
        "Eval",
        "Checkpoint",
        "Log",
        "Train",
    ] {
        let fields = fields(&source, &format!("pub struct {section}Recipe {{"), "    ");
        keys += fields.len();
        let name = match section {
            "Steps" => "train".to_owned(),
            "Mixture" => "data.mixture".to_owned(),
            other => other.to_lowercase(),
        };
        let dotted = |field: String| format!("{name}.{field}");
        match section {
            // Its fields are the sections, and the keys above them.
            "Train" => all_in_backticks("docs/guide/train.md", ["seed", "description"].map(str::to_owned)),
            _ => all_in_backticks("docs/guide/train.md", fields.into_iter().map(dotted)),
        }
    }
    assert!(keys > 45, "only {keys} keys were found");
}

#[test]
fn every_key_of_rewards_and_teachers_is_explained() {
    let mut keys = 0;
    for (file, name, page) in [
        ("grpo.rs", "Grpo", "grpo"),
        ("rewards/exact.rs", "Exact", "grpo"),
        ("rewards/pattern.rs", "Pattern", "grpo"),
        ("rewards/schema.rs", "Schema", "grpo"),
        ("rewards/arithmetic.rs", "Arithmetic", "grpo"),
        ("rewards/command.rs", "Command", "grpo"),
        ("distill.rs", "Distill", "distill"),
    ] {
        let source = text(&format!("post-train/src/{file}"));
        let mut found = fields(&source, &format!("pub struct {name}Recipe {{"), "    ");
        // Its elements are the structs below it.
        found.remove("rewards");
        keys += found.len();
        all_in_backticks(&format!("docs/guide/{page}.md"), found);
    }
    assert!(keys > 40, "only {keys} keys were found");
}

#[test]
fn every_event_and_its_fields_are_explained() {
    let source = text("train/src/events.rs");
    let names = fields(&source, "pub enum TrainEvent {", "        ");
    assert!(names.len() > 25, "only {names:?}");
    all_in_backticks("docs/guide/train.md", names);
    let body = source[source.find("pub enum TrainEvent {").unwrap()..].lines().take_while(|line| *line != "}");
    let events = body.filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {")).map(snake_case);
    let events: Vec<String> = events.collect();
    assert!(events.len() == 11, "{events:?}");
    all_in_backticks("docs/guide/train.md", events);
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

#[test]
fn every_exit_code_is_in_the_contract() {
    let source = text("base/src/exit.rs");
    let code = |line: &str| line.trim().strip_suffix(',')?.split_once(" = ")?.1.parse::<u8>().ok();
    let codes: Vec<u8> = source.lines().filter_map(code).collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 130, 143]);
    let page = text("docs/reference/contract.md");
    for code in codes {
        assert!(page.contains(&format!("| {code} |")), "exit code {code}");
    }
}

/// Names under the `[...dependencies]` headings of a manifest.
fn dependencies(manifest: &str, headings: &[&str]) -> BTreeSet<String> {
    let (mut names, mut inside) = (BTreeSet::new(), false);
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = headings.contains(&line);
        } else if let (true, Some((name, _))) = (inside, line.split_once(['.', ' ', '='])) {
            names.insert(name.to_owned());
        }
    }
    names.remove("#");
    names.remove("");
    names
}

const DEPENDENCIES: [&str; 2] = ["[dependencies]", "[dev-dependencies]"];

#[test]
fn every_direct_dependency_has_its_line() {
    let mut all = BTreeSet::new();
    for folder in ["."].into_iter().chain(CRATES).chain(["tests/fuzz"]) {
        all.extend(dependencies(&text(&format!("{folder}/Cargo.toml")), &DEPENDENCIES));
    }
    all.retain(|name| !name.starts_with("fornax-"));
    assert!(all.len() > 20, "only {all:?}");
    let page = text("docs/reference/dependencies.md");
    let row = |name: &str| page.lines().any(|line| line.starts_with(&format!("| `{name}` |")));
    let absent: Vec<&String> = all.iter().filter(|name| !row(name)).collect();
    assert!(absent.is_empty(), "docs/reference/dependencies.md has no row for {absent:?}");
    let listed = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let gone: Vec<&str> = listed.filter(|name| !all.contains(*name)).collect();
    assert!(gone.is_empty(), "docs/reference/dependencies.md defends {gone:?}, which nothing uses");
}

#[test]
fn crates_use_what_their_arrows_allow_and_nothing_else() {
    let arrows: [(&str, &[&str]); 7] = [
        ("base", &[]),
        ("model", &["base"]),
        ("data", &["base"]),
        ("infer", &["base", "data", "model"]),
        ("train", &["base", "data", "infer", "model"]),
        ("post-train", &["base", "data", "infer", "model", "train"]),
        ("eval", &["base", "data", "infer", "model", "train"]),
    ];
    for (name, allowed) in arrows {
        let used = dependencies(&text(&format!("{name}/Cargo.toml")), &["[dependencies]"]);
        let ours: Vec<&str> = used.iter().filter_map(|name| name.strip_prefix("fornax-")).collect();
        assert!(ours.iter().all(|one| allowed.contains(one)), "{name} uses {ours:?}, allowed are {allowed:?}");
        let has_burn = used.iter().any(|name| name.starts_with("burn") || name == "cubecl");
        assert!(!has_burn || !["base", "data"].contains(&name), "{name} knows no tensors");
        assert!(!used.contains("tokenizers") || name == "data", "{name} knows no text");
        assert!(!used.contains("anyhow"), "{name} is a library and has errors of its own");
    }
}

/// Sources of the libraries and the binary without the parts that are only tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for folder in CRATES.map(|name| format!("{name}/src")).into_iter().chain(["src".to_owned()]) {
        for path in files(&folder, ".rs") {
            if path.components().any(|part| ["tests", "tests.rs"].iter().any(|name| part.as_os_str() == *name)) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            let name = path.strip_prefix(root()).unwrap().to_owned();
            all.push((name, code.collect::<Vec<_>>().join("\n")));
        }
    }
    assert!(all.len() > 60, "only {} files", all.len());
    all
}

#[test]
fn unsafe_code_stays_in_its_places() {
    for name in CRATES.map(|name| format!("{name}/src/lib.rs")).iter().map(String::as_str).chain(["src/main.rs"]) {
        // `base` denies it everywhere but in its one file; `model` leaves it to kernels.
        let expected = match name {
            "base/src/lib.rs" => "#![deny(unsafe_code)]",
            "model/src/lib.rs" => continue,
            _ => "#![forbid(unsafe_code)]",
        };
        assert!(text(name).contains(expected), "{name} does not say {expected}");
    }
    for (path, code) in sources() {
        let allowed = path == Path::new("base/src/mmap.rs") || path.starts_with("model/src/ops");
        let found = ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| code.contains(word));
        assert!(allowed || !found, "{}", path.display());
    }
}

#[test]
fn only_base_files_writes() {
    let writing =
        ["File::create", "OpenOptions", "fs::write", "fs::rename", "fs::remove", "fs::create_dir", "fs::copy"];
    for (path, code) in sources() {
        // The file systems of the tests are the other way in.
        let allowed = path.starts_with("base/src/files")
            || path.starts_with("base/src/testing")
            || path == Path::new("base/src/testing.rs");
        let found = writing.iter().find(|word| code.contains(**word));
        assert!(allowed || found.is_none(), "{} uses {}", path.display(), found.unwrap());
    }
}

/// `a_b_c` in backticks is the name of a test, a function or a fuzz target wherever these pages name evidence.
#[test]
fn tests_named_as_evidence_exist() {
    let mut code = String::new();
    for folder in CRATES.into_iter().chain(["src", "tests"]) {
        code.extend(files(folder, ".rs").iter().map(|path| fs::read_to_string(path).unwrap()));
    }
    let mut named = 0;
    for page in ["docs/architecture.md", "docs/reference/reliability.md", "docs/reference/parity.md"] {
        let page_text = text(page);
        let (prose, _) = split(&page_text);
        let in_backticks = prose.split('`').skip(1).step_by(2);
        let is_name = |word: &&str| {
            word.matches('_').count() >= 2
                && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        for name in in_backticks.filter(is_name) {
            named += 1;
            let is_function = ["(", "<"].iter().any(|after| code.contains(&format!("fn {name}{after}")));
            let is_fuzz_target = root().join(format!("tests/fuzz/fuzz_targets/{name}.rs")).exists();
            assert!(is_function || is_fuzz_target, "{page} names `{name}`, which does not exist");
        }
    }
    assert!(named > 40, "only {named} tests are named");
}
