//! Token ids and masks of transformers.

use super::*;
use goldens::shared;

#[test]
fn ids_equal_those_of_transformers() {
    let recorded = fixture("ids.json");
    let mut compared = 0;
    let mut wrong = Vec::new();
    for (name, variant) in recorded["variants"].as_object().unwrap() {
        let Some(path) = shared(variant["file"].as_str().unwrap()) else {
            return;
        };
        let changes = variant["changes"].as_object().unwrap();
        let tokenizer = if variant["template"].is_null() {
            Tokenizer::load(&path).unwrap()
        } else {
            let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            changes.iter().for_each(|(key, value)| json[key] = value.clone());
            Tokenizer::from_json(serde_json::to_vec(&json).unwrap()).unwrap()
        };
        let template = match variant["template"].as_str() {
            Some(source) => ChatTemplate::new(source, &tokenizer).unwrap(),
            None => ChatTemplate::of_folder(path.parent().unwrap(), &tokenizer).unwrap(),
        };
        let variables = variant["variables"].as_object().unwrap().iter();
        let template = variables
            .fold(template, |template, (name, token)| template.with_special_token(name, token.as_str().unwrap()));
        for (label, case) in variant["cases"].as_object().unwrap() {
            let rendered = template.render(&conversation(case), &options(case)).unwrap();
            assert_eq!(rendered.text(), case["text"].as_str().unwrap(), "{name}: {label}");
            assert!(rendered.is_complete());
            let encoded = template.encode(&rendered, &tokenizer).unwrap();
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            compared += 1;
            if encoded.ids != ids {
                wrong.push(format!("{name}: {label}\n  {ids:?}\n  {:?}", encoded.ids));
                continue;
            }
            if let Some(mask) = case["assistant_mask"].as_array() {
                let mask: Vec<bool> = mask.iter().map(|one| one == 1).collect();
                let found: Vec<bool> = encoded.message_of_token.iter().map(Option::is_some).collect();
                if found != mask {
                    wrong.push(format!("{name}: {label}, mask of {:?}\n  {mask:?}\n  {found:?}", rendered.text()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(compared, 99);
}
