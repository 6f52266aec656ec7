use std::path::PathBuf;

use super::*;

fn read(line: &str) -> Option<Command> {
    Command::read(line).unwrap()
}

fn refused(line: &str) -> String {
    let refusal = Command::read(line).unwrap_err();
    format!("{refusal}; {}", refusal.hint())
}

#[test]
fn lines_are_messages_or_commands() {
    let say = |text: &str| Some(Command::Say(text.to_owned()));
    assert_eq!(read("  \t"), None);
    assert_eq!(read("  Hello there "), say("  Hello there "));
    assert_eq!(read("//save me"), say("/save me"));
    assert_eq!(read("1 / 2"), say("1 / 2"));
    assert_eq!(read(" /quit "), Some(Command::Quit));
    assert_eq!(read("/save a file.jsonl"), Some(Command::Save(PathBuf::from("a file.jsonl"))));
    assert_eq!(read("/system Be kind. "), Some(Command::System(Some("Be kind.".into()))));
    assert_eq!(read("/system"), Some(Command::System(None)));
    assert_eq!(refused("/sav x"), "`/sav` is no command; did you mean `/save`?");
    assert!(refused("/42").contains("`/42` is no command; `/help` lists"));
    assert!(refused("/").contains("`/` is no command"));
    assert!(refused("/load").contains("`/load` needs a file"));
    assert!(refused("/clear all").contains("`/clear` takes nothing behind it"));
    // What is shown of a line cannot steer a terminal.
    assert!(!refused("/\u{1b}[2J").contains('\u{1b}'));
}

fn texts(messages: &[Message]) -> String {
    messages.iter().map(|message| format!("{}:{} ", message.role(), message.text().unwrap())).collect()
}

#[test]
fn the_oldest_questions_are_left_out_with_their_answers() {
    let mut messages = Messages::new(Some("s"));
    for (role, text) in [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")] {
        messages.push(role, text);
    }
    assert_eq!(texts(&messages.seen(0)), "system:s user:a assistant:b user:c assistant:d user:e ");
    assert_eq!(messages.next_beginning(0), Some(2));
    assert_eq!(texts(&messages.seen(2)), "system:s user:c assistant:d user:e ");
    assert_eq!((messages.next_beginning(2), messages.next_beginning(4)), (Some(4), None));
    assert_eq!(texts(&messages.seen(4)), "system:s user:e ");
    assert_eq!(messages.pop_answer(), None);
    messages.push("assistant", "f");
    assert_eq!(messages.pop_answer(), Some("f".into()));
    messages.set_system("t");
    messages.clear();
    assert_eq!((texts(&messages.seen(0)), messages.left_out), ("system:t ".into(), 0));
    let mut without = Messages::new(None);
    without.push("user", "a");
    without.set_system("t");
    assert_eq!(texts(&without.seen(0)), "system:t user:a ");
}

#[test]
fn a_saved_conversation_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("talk.jsonl");
    let mut messages = Messages::new(Some("two\nlines"));
    messages.push("user", "\"quotes\" and \u{1b} and ü");
    messages.push("assistant", "");
    assert_eq!(messages.save(&path).unwrap(), 3);
    assert_eq!(texts(&Messages::load(&path).unwrap().seen(0)), texts(&messages.seen(0)));
    messages.push("user", "more");
    assert_eq!(messages.save(&path).unwrap(), 4);
    std::fs::write(&path, "anything else").unwrap();
    assert!(matches!(messages.save(&path), Err(FileProblem::Taken { .. })));
    let late = "{\"role\": \"user\", \"content\": \"a\"}\n{\"role\": \"system\", \"content\": \"b\"}\n";
    std::fs::write(&path, late).unwrap();
    assert!(Messages::load(&path).unwrap_err().to_string().contains("line 2: a system message stands in front"));
}
