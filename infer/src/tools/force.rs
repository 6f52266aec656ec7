//! Grammars under which a model can do nothing but call tools.

use fornax_data::Tokenizer;

use super::definition::Tool;
use super::{ToolError, ToolFormat};
use crate::grammar::{GrammarSpec, NamedSchema, lark_string};

/// More calls in one answer are not forced.
const MOST_CALLS: usize = 16;

/// Which tools must be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// Any of those offered, at least one.
    Required,
    /// The one with this name.
    Named(String),
}

/// The grammar of calls in the form `format`, as the model's template writes them, with arguments that are valid under the
/// schemas of `tools`: one call, or with `parallel` up to 16.
///
/// # Errors
/// [`ToolError::Unknown`] for a name that no tool has. Schemas are looked at when the grammar is compiled.
pub fn force(
    format: ToolFormat,
    tools: &[Tool],
    choice: &ToolChoice,
    parallel: bool,
    tokenizer: &Tokenizer,
) -> Result<GrammarSpec, ToolError> {
    let chosen: Vec<&Tool> = tools
        .iter()
        .filter(|tool| match choice {
            ToolChoice::Required => true,
            ToolChoice::Named(name) => *name == tool.name,
        })
        .collect();
    if chosen.is_empty() {
        let known: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
        let name = match choice {
            ToolChoice::Required => String::new(),
            ToolChoice::Named(name) => name.clone(),
        };
        return Err(ToolError::Unknown { name, known: format!("{known:?}") });
    }
    let marker = |text: &str| match tokenizer.id_of(text).filter(|id| tokenizer.is_special(*id)) {
        Some(id) => format!("<[{id}]>"),
        None => lark_string(text),
    };
    let bodies: Vec<String> =
        chosen.iter().enumerate().map(|(at, tool)| body(format, tool, at, &marker)).collect();
    let (before, after, between) = match format {
        ToolFormat::Hermes => (
            format!("{} {}", marker("<tool_call>"), lark_string("\n")),
            format!("{} {}", lark_string("\n"), marker("</tool_call>")),
            lark_string("\n"),
        ),
        ToolFormat::Llama3 => (String::new(), String::new(), lark_string("; ")),
        ToolFormat::Mistral => (String::new(), String::new(), lark_string(", ")),
        ToolFormat::MistralNamed => (marker("[TOOL_CALLS]"), String::new(), String::new()),
    };
    let more = if parallel { format!(" ({between} call){{0,{}}}", MOST_CALLS - 1) } else { String::new() };
    let calls = format!("call{more}");
    let start = if format == ToolFormat::Mistral {
        format!("{} {} {calls} {}", marker("[TOOL_CALLS]"), lark_string("["), lark_string("]"))
    } else {
        calls
    };
    let lark = format!("start: {start}\ncall: {before} body {after}\nbody: {}\n", bodies.join(" | "));
    let schema =
        |(at, tool): (usize, &&Tool)| NamedSchema { name: format!("t{at}"), schema: tool.parameters.clone() };
    Ok(GrammarSpec::LarkWithSchemas(lark, chosen.iter().enumerate().map(schema).collect()))
}

fn body(format: ToolFormat, tool: &Tool, at: usize, marker: &dyn Fn(&str) -> String) -> String {
    let key = match format {
        ToolFormat::Llama3 => "parameters",
        ToolFormat::Hermes | ToolFormat::Mistral => "arguments",
        ToolFormat::MistralNamed => return format!("{} {} @t{at}", lark_string(&tool.name), marker("[ARGS]")),
    };
    let head = format!("{{\"name\": \"{}\", \"{key}\": ", tool.name);
    format!("{} @t{at} {}", lark_string(&head), lark_string("}"))
}
