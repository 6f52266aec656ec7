use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::grammar::{GrammarCompiler, GrammarError, GrammarLimits, GrammarSpec, vocabulary};

const CASES: u32 = 1000;

fn check(text: &str, good: &[&str], bad: &[&str]) {
    let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    words.push(b"\xff<end>".to_vec());
    let environment = vocabulary::trie(&words, &[256]).unwrap();
    let compiler = GrammarCompiler::of_environment(&environment, GrammarLimits::default()).unwrap();
    let lark = to_lark(text, &GrammarLimits::default()).unwrap();
    let grammar = compiler
        .compile(&GrammarSpec::Gbnf(text.to_owned()))
        .unwrap_or_else(|error| panic!("{error}\n{text}\n{lark}"));
    let accepts = |text: &str| {
        let mut grammar = grammar.clone();
        text.bytes().all(|byte| grammar.accept(u32::from(byte)).is_ok()) && grammar.may_end().unwrap()
    };
    for one in good {
        assert!(accepts(one), "refuses {one:?}\n{text}\n{lark}");
    }
    for one in bad {
        assert!(!accepts(one), "accepts {one:?}\n{text}\n{lark}");
    }
}

#[test]
fn what_gbnf_has_means_what_it_means_there() {
    check(r#"root ::= "a" | "b" "c""#, &["a", "bc"], &["b", "ac", ""]);
    check("root ::= [a-c]+ [^a-c]?", &["abc", "ax", "aé"], &["x", "axx"]);
    check(r#"root ::= "\x41\u00e9\U0001F980\t\"\\" [\]\[]"#, &["Aé🦀\t\"\\]"], &["A"]);
    check("root ::= .*", &["", "é🦀\n"], &[]);
    check(r#"root ::= "ab"{2} "c"{1,} "d"{0,2} "e"*"#, &["ababc", "ababccdde"], &["abc", "abab", "ababcddd"]);
    check("root ::= item # a comment\n\n# another\nitem ::= (\n \"a\" |\n \"b\"\n)+\n", &["ab"], &["c", ""]);
    check("root ::= a-b\na-b ::= \"x\" |", &["x", ""], &["y"]);
    check("root ::= \"a\" |\n \"b\"\n", &["a", "b"], &["ab"]);
    check("root ::= \"\" [0-9]{0}", &[""], &["0"]);
    check("root ::= \"a\" <[256]>", &[], &["a"]);
}

#[test]
fn alternatives_that_share_a_beginning_are_all_there() {
    // A terminal read as long as it goes would take "ab" for the beginning of "abc".
    check(
        r#"root ::= list | "abc"
list ::= "a" "b" list | "x""#,
        &["abc", "abx", "x"],
        &["ab"],
    );
    check(r#"root ::= [a-z] "1" root | "a" "2""#, &["a2", "b1a2", "a1a2"], &["b2", "a1"]);
    check(r#"root ::= [a-z]* "end" root | ".""#, &["end.", "endend.", "anendingend."], &["anend"]);
    check("root ::= \"(\" root \")\" | [a-z]+ \"a\"", &["(ba)", "aa", "((xyza))"], &["a", "(a)"]);
}

/// llama.cpp's own example: the end of a line is also white space, so that no reading by longest match is right.
#[test]
fn white_space_may_be_shared_between_rules() {
    let arithmetic = r#"
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] ws term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"#;
    check(arithmetic, &["1+1=2\n", "x1 * (3 -\n4) = y \n\n", "a=b\nc=d\n"], &["1+1=2", "1+=2\n", "=2\n"]);
}

#[test]
fn llama_cpp_json_is_json() {
    let json = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#;
    let good = [r#"{"a": [1, -2.5e3, {"b": null}], "c": "é\n\u00e9"}"#, "{}", "{ \"a\": true\n  }"];
    check(json, &good, &["[]", r#"{"a"}"#, r#"{"a": 01}"#, r#"{"a": 1,}"#, "{  }"]);
    let lark = to_lark(json, &GrammarLimits::default()).unwrap();
    // Strings and numbers are read as terminals: a row of the parser for each character would be slow.
    assert!(lark.lines().filter(|line| line.starts_with('T')).count() < 20, "{lark}");
}

#[test]
fn mistakes_have_a_place() {
    for (text, line, column, reason) in [
        ("", 1, 1, "there is no rule `root`"),
        ("root ::= a", 1, 10, "there is no rule `a`"),
        ("root ::= \"a\"\nroot ::= \"b\"", 2, 1, "the rule `root` is there twice"),
        ("root = \"a\"", 1, 6, "expected `::=`, found '='"),
        ("root ::= \"a", 1, 10, "this text is not closed: expected `\"`, found the end"),
        ("root ::= (\"a\"\n  \"b\"", 1, 10, "this bracket is not closed: expected `)`, found the end"),
        ("root ::= [b-a]", 1, 10, "a range of this class ends before it begins"),
        ("root ::= []", 1, 10, "this class has no characters"),
        ("root ::= *", 1, 10, "there is nothing before this repetition"),
        ("root ::= \"a\"{2,1}", 1, 13, "at least 2 and at most 1 cannot be"),
        ("root ::= \"a\"{99999}", 1, 13, "more than 2000 repetitions are not allowed"),
        ("root ::= \"\\q\"", 1, 11, "the escape `\\q` is not known"),
        ("root ::= \"\\ud800\"", 1, 11, "0xd800 is no character"),
        ("root ::= \"\\x4\"", 1, 11, "expected 2 hexadecimal digits, found '\"'"),
        ("root ::= <think>", 1, 10, "of tokens only those with an id are supported, as in `<[123]>`"),
        ("root ::= \"a\" & \"b\"", 1, 14, "expected the end of the line, found '&'"),
        ("\n\nroot ::= \"é\" ?)", 3, 15, "expected the end of the line, found ')'"),
    ] {
        let found = to_lark(text, &GrammarLimits::default()).unwrap_err();
        assert_eq!(found, GrammarError::Gbnf { line, column, reason: reason.to_owned() }, "{text:?}");
    }
}

/// What GBNF means, read off its rules: from each start the ends that a part reaches, until nothing is new.
struct Reference {
    text: Vec<char>,
    /// Ends of each rule from each start.
    ends: Vec<Vec<BTreeSet<usize>>>,
}

impl Reference {
    fn matches(rules: &Rules, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let ends = vec![vec![BTreeSet::new(); text.len() + 1]; rules.rules.len()];
        let mut reference = Reference { text, ends };
        loop {
            let mut changed = false;
            for rule in 0..rules.rules.len() {
                for start in 0..=reference.text.len() {
                    let ends = reference.reach(&rules.rules[rule].1, &BTreeSet::from([start]));
                    changed |= ends.len() > reference.ends[rule][start].len();
                    reference.ends[rule][start] = ends;
                }
            }
            if !changed {
                return reference.ends[0][0].contains(&reference.text.len());
            }
        }
    }

    fn reach(&self, expr: &Expr, starts: &BTreeSet<usize>) -> BTreeSet<usize> {
        match expr {
            Expr::Literal(text) => {
                let text: Vec<char> = text.chars().collect();
                let fits = |start: &&usize| self.text[**start..].starts_with(&text);
                starts.iter().filter(fits).map(|start| start + text.len()).collect()
            }
            Expr::Class(set) => {
                let fits = |start: &&usize| {
                    self.text.get(**start).is_some_and(|character| set.meets(&characters::Set::one(*character)))
                };
                starts.iter().filter(fits).map(|start| start + 1).collect()
            }
            Expr::Token(_) => BTreeSet::new(),
            Expr::Rule(rule) => starts.iter().flat_map(|start| self.ends[*rule][*start].clone()).collect(),
            Expr::Sequence(items) => items.iter().fold(starts.clone(), |starts, item| self.reach(item, &starts)),
            Expr::Choice(options) => options.iter().flat_map(|option| self.reach(option, starts)).collect(),
            Expr::Repeat(inner, least, most) => {
                let mut all = if *least == 0 { starts.clone() } else { BTreeSet::new() };
                let mut now = starts.clone();
                let enough = least + self.text.len() as u32 + 1;
                for n in 1..=most.unwrap_or(enough).min(enough) {
                    now = self.reach(inner, &now);
                    if n >= *least {
                        all.extend(&now);
                    }
                }
                all
            }
        }
    }
}

fn part() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "\"a\"", "\"b\"", "\"ab\"", "\"\"", "[ab]", "[^a]", "[a-c]*", "[bc]+", "one", "two", "three",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 10, 3, |inner| {
        let many = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            many.clone().prop_map(|parts| parts.join(" ")),
            many.prop_map(|parts| format!("({})", parts.join(" | "))),
            (inner, prop::sample::select(vec!["*", "+", "?", "{2}", "{1,2}", "{0,1}", "{1,}"]))
                .prop_map(|(part, times)| format!("({part}){times}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// F10 for GBNF: the automaton accepts what the rules mean, and every allowed character can be taken.
    #[test]
    fn f10_a_converted_grammar_means_the_same(
        parts in prop::collection::vec(part(), 4),
        texts in prop::collection::vec("[abc]{0,6}", 8),
        picks in prop::collection::vec(0_usize..4, 6),
    ) {
        let text = format!("root ::= {}\none ::= {}\ntwo ::= {}\nthree ::= {}\n", parts[0], parts[1], parts[2], parts[3]);
        let rules = parse::parse(&text, &GrammarLimits::default()).unwrap();
        let words: Vec<Vec<u8>> = [&b"a"[..], b"b", b"c", b"\xff<end>"].map(<[u8]>::to_vec).to_vec();
        let environment = vocabulary::trie(&words, &[3]).unwrap();
        let compiler = GrammarCompiler::of_environment(&environment, GrammarLimits::default()).unwrap();
        let written = to_lark(&text, &GrammarLimits::default()).unwrap();
        let grammar = match compiler.compile(&GrammarSpec::Gbnf(text.clone())) {
            Ok(grammar) => grammar,
            // Rules without an end, or that only other characters satisfy: nothing of the alphabet is in the language.
            Err(error) => {
                prop_assert_eq!(error.code(), "grammar_stuck", "{} {} {}", error, text, written);
                for one in &texts {
                    prop_assert!(!Reference::matches(&rules, one), "{}: {}", one, text);
                }
                return Ok(());
            }
        };
        for one in &texts {
            let mut grammar = grammar.clone();
            let ids: Vec<u32> = one.bytes().map(|byte| u32::from(byte - b'a')).collect();
            let taken = ids.iter().all(|id| grammar.accept(*id).is_ok()) && grammar.may_end().unwrap();
            prop_assert_eq!(taken, Reference::matches(&rules, one), "{:?}\n{}\n{}", one, text, written);
        }
        let mut walk = grammar.clone();
        let mut said = String::new();
        for pick in picks {
            let Ok(mask) = walk.mask() else { break };
            let allowed: Vec<u32> = mask.ids().collect();
            prop_assert_eq!(mask.allows(3), Reference::matches(&rules, &said), "{:?}\n{}\n{}", said, text, written);
            let id = allowed[pick % allowed.len()];
            walk.accept(id).unwrap();
            if id == 3 {
                break;
            }
            said.push(char::from(b'a' + id as u8));
        }
    }
}
