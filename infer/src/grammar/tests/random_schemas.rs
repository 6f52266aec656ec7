//! G5 and F10: what is sampled under a grammar is what it describes.

#![allow(clippy::print_stderr, reason = "figures that a page keeps")]

use fornax_base::rng::{Rng, rng};
use serde_json::{Map, Value};

use super::*;

struct Dice(Rng);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(rng(seed, 0, "grammar tests"))
    }

    fn below(&mut self, n: u32) -> u32 {
        self.0.below(u64::from(n.max(1))) as u32
    }

    fn of<'a, T: ?Sized>(&mut self, options: &[&'a T]) -> &'a T {
        options[self.below(options.len() as u32) as usize]
    }

    fn often(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

/// A schema of the keywords that are enforced.
fn schema(dice: &mut Dice, depth: u32) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        map.insert(key.to_owned(), value);
    };
    match dice.below(if depth == 0 { 6 } else { 10 }) {
        0 => put("type", json!(dice.of(&["null", "boolean"]))),
        1 => {
            put("type", json!("integer"));
            let low = i64::from(dice.below(200)) - 100;
            if dice.often(60) {
                put("minimum", json!(low));
            }
            if dice.often(60) {
                put(dice.of(&["maximum", "exclusiveMaximum"]), json!(low + 3 + i64::from(dice.below(500))));
            }
            if dice.often(20) {
                put("multipleOf", json!(2));
            }
        }
        2 => {
            put("type", json!("number"));
            if dice.often(50) {
                put(dice.of(&["minimum", "exclusiveMinimum"]), json!(f64::from(dice.below(50)) / 4.0));
            }
            if dice.often(50) {
                put("maximum", json!(50.5 + f64::from(dice.below(5))));
            }
        }
        3 => {
            put("type", json!("string"));
            let low = dice.below(4);
            if dice.often(40) {
                put("minLength", json!(low));
            }
            if dice.often(40) {
                put("maxLength", json!(low + dice.below(12)));
            }
        }
        4 => {
            put("type", json!("string"));
            if dice.often(50) {
                put("pattern", json!(dice.of(&["^[a-z]{2,5}$", "[0-9]", "^(ab|cd)+$", r"^\d+-\w$", "é?x$"])));
            } else {
                put("format", json!(dice.of(&["uuid", "ipv4", "time", "date", "date-time", "hostname", "email"])));
            }
        }
        5 => {
            let values = [json!(1), json!("a\"\\\n"), json!(null), json!({"k": [1, 2]}), json!([]), json!(-2.5)];
            let from = dice.below(4) as usize;
            if dice.often(70) {
                put("enum", json!(values[from..from + 3]))
            } else {
                put("const", values[from].clone())
            }
        }
        6 | 7 => object(dice, depth, &mut put),
        8 => {
            put("type", json!("array"));
            put("items", schema(dice, depth - 1));
            let low = dice.below(3);
            if dice.often(50) {
                put("minItems", json!(low));
            }
            if dice.often(70) {
                put("maxItems", json!(low + dice.below(4)));
            }
            if dice.often(20) {
                put("prefixItems", json!([schema(dice, depth - 1)]));
            }
        }
        _ => put("anyOf", json!([schema(dice, depth - 1), schema(dice, depth - 1)])),
    }
    Value::Object(map)
}

fn object(dice: &mut Dice, depth: u32, put: &mut dyn FnMut(&str, Value)) {
    put("type", json!("object"));
    let names = ["a", "b b", "é", "\"q\"", "name"];
    let known = &names[..1 + dice.below(4) as usize];
    let properties: Map<String, Value> =
        known.iter().map(|name| ((*name).to_owned(), schema(dice, depth - 1))).collect();
    put("properties", Value::Object(properties));
    let required: Vec<&str> = known.iter().copied().filter(|_| dice.often(60)).collect();
    put("required", json!(required));
    match dice.below(4) {
        0 => {}
        1 => put("additionalProperties", schema(dice, depth - 1)),
        _ => put("additionalProperties", json!(false)),
    }
}

/// Samples a text: any allowed token for a while, then tokens that bring it to its end.
fn sample(grammar: &mut Grammar, tokenizer: &Tokenizer, dice: &mut Dice, free: usize) -> Option<String> {
    let mut ids = Vec::new();
    while !grammar.is_done() && ids.len() < free + 400 {
        let mask = grammar.mask().unwrap();
        let allowed: Vec<u32> = mask.ids().collect();
        assert_eq!(grammar.validate(&[allowed[0]]), Ok(1));
        let among = |wanted: &[u8]| -> Vec<u32> {
            let one = |id: &&u32| matches!(&tokenizer.spelled(**id)[..], [byte] if wanted.contains(byte));
            allowed.iter().filter(one).copied().collect()
        };
        let end = tokenizer.eos_id().filter(|end| mask.allows(*end));
        let choices = match dice.below(4) {
            _ if ids.len() < free => allowed.clone(),
            _ if end.is_some() => end.into_iter().collect(),
            0 => among(b"@Z:x,-0123456789"),
            // In a string a bracket is text, and a quote ends it.
            _ => among(b"}]\""),
        };
        let choices = if choices.is_empty() { allowed } else { choices };
        let id = choices[dice.below(choices.len() as u32) as usize];
        grammar.accept(id).unwrap();
        if Some(id) != tokenizer.eos_id() {
            ids.push(id);
        }
    }
    grammar.may_end().unwrap().then(|| tokenizer.decode(&ids, false).unwrap())
}

#[test]
fn g5_what_is_sampled_under_random_schemas_is_valid() {
    let tokenizer = trained();
    let end: Vec<u32> = tokenizer.eos_id().into_iter().collect();
    let compiler =
        GrammarCompiler::new(&tokenizer, tokenizer.vocab_size(), &end, GrammarLimits::default()).unwrap();
    let (mut sampled, mut unfinished, mut refused, mut beyond) = (0, 0, 0, 0);
    for seed in 0..1_000 {
        let mut dice = Dice::new(seed);
        let schema = schema(&mut dice, 3);
        let mut grammar = match compiler.compile(&GrammarSpec::JsonSchema(schema.clone())) {
            Ok(grammar) => grammar,
            // Two random limits may leave nothing.
            Err(GrammarError::Invalid { reason, .. }) if reason.contains("nsatisfiable") => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("{error}: {schema}"),
        };
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let Some(text) = sample(&mut grammar, &tokenizer, &mut dice, 40) else {
            unfinished += 1;
            continue;
        };
        let value: Value = match serde_json::from_str(&text) {
            Ok(value) => value,
            // JSON has no largest number; this reader has.
            Err(error) if error.to_string().contains("number out of range") => {
                beyond += 1;
                continue;
            }
            Err(error) => panic!("{error}: {text} of {schema}"),
        };
        assert!(validator.is_valid(&value), "{text} of {schema}");
        sampled += 1;
    }
    assert!(sampled > 900, "{sampled} sampled, {unfinished} did not end, {refused} refused, {beyond} beyond");
    eprintln!(
        "G5: {sampled} valid, {unfinished} did not end, {refused} cannot be, {beyond} with numbers beyond 1e308"
    );
}

#[test]
fn real_tokenizers_write_what_the_schema_says() {
    let schema = json!({
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 30},
            "tags": {"type": "array", "items": {"enum": ["new", "naïve", "🦀"]}, "minItems": 1, "maxItems": 3},
            "score": {"type": "number", "minimum": 0, "maximum": 10},
        },
        "required": ["title", "tags", "score"],
        "additionalProperties": false,
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    for name in
        ["tokenizer-gpt2", "llama.cpp-vocab/ggml-vocab-llama-spm.gguf", "llama.cpp-vocab/ggml-vocab-phi-3.gguf"]
    {
        let Some(path) = shared(name) else { return };
        let tokenizer = Tokenizer::load(&path).unwrap();
        let end: Vec<u32> = tokenizer.eos_id().into_iter().collect();
        let size = tokenizer.vocab_size();
        let compiler = GrammarCompiler::new(&tokenizer, size, &end, GrammarLimits::default()).unwrap();
        for seed in 0..5 {
            let mut grammar = compiler.compile(&GrammarSpec::JsonSchema(schema.clone())).unwrap();
            let text = sample(&mut grammar, &tokenizer, &mut Dice::new(seed), 60).unwrap();
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
            assert!(validator.is_valid(&value), "{name}: {text}");
        }
    }
}

#[test]
fn speculated_tokens_taken_back_leave_no_trace() {
    let tokenizer = trained();
    let end: Vec<u32> = tokenizer.eos_id().into_iter().collect();
    let compiler =
        GrammarCompiler::new(&tokenizer, tokenizer.vocab_size(), &end, GrammarLimits::default()).unwrap();
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let spec = GrammarSpec::JsonSchema(schema(&mut dice, 2));
        let Ok(mut grammar) = compiler.compile(&spec) else { continue };
        let mut plain = grammar.clone();
        for _ in 0..30 {
            // Some tokens ahead, as a draft proposes them, of which only a part stays.
            let mut ahead = Vec::new();
            for _ in 0..dice.below(5) {
                let Some(id) = any(&mut grammar, &mut dice) else { break };
                grammar.accept(id).unwrap();
                ahead.push(id);
            }
            let keep = dice.below(ahead.len() as u32 + 1) as usize;
            grammar.rollback(ahead.len() - keep).unwrap();
            ahead[..keep].iter().for_each(|id| plain.accept(*id).unwrap());
            assert_eq!(grammar.tokens(), plain.tokens());
            assert_eq!(grammar.is_done(), plain.is_done());
            assert_eq!(grammar.mask().unwrap().words(), plain.mask().unwrap().words(), "{spec:?}");
        }
    }
}

fn any(grammar: &mut Grammar, dice: &mut Dice) -> Option<u32> {
    let allowed: Vec<u32> = grammar.mask().unwrap().ids().collect();
    let id = *allowed.get(dice.below(allowed.len() as u32) as usize)?;
    (grammar.validate(&[id]) == Ok(1)).then_some(id)
}
