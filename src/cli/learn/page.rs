//! A page of an exercise as plain text.

/// Markdown without its marks: headings underlined, code indented, links as their words, folded parts left out.
pub(super) fn plain(page: &str) -> String {
    let (mut text, mut in_code, mut folded) = (String::new(), false, false);
    for line in page.lines() {
        match line.trim() {
            "</details>" => folded = false,
            "<details>" => folded = true,
            _ if folded => {}
            fence if fence.starts_with("```") => in_code = !in_code,
            _ if in_code => text += &format!("    {line}\n"),
            heading if heading.starts_with('#') => text += &underlined(heading),
            _ => text += &(without_links(line) + "\n"),
        }
    }
    text.trim_end().to_owned() + "\n"
}

fn underlined(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim();
    let rule = if heading.starts_with("##") { "-" } else { "=" };
    format!("{words}\n{}\n", rule.repeat(words.chars().count()))
}

/// `[words](target)` as `words`.
fn without_links(line: &str) -> String {
    let mut parts = line.split("](");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = part.split_once(')').map_or(part, |(_, after)| after);
        if let Some(open) = text.rfind('[') {
            text.remove(open);
        }
        text += after;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn marks_become_text() {
        let page = "# A b\n\nSee [this page](x.md#y) and [that](z), or `[1]`.\n\n```sh\nls\n```\n<details>\nno\n</details>\nend\n";
        let text = "A b\n===\n\nSee this page and that, or `[1]`.\n\n    ls\nend\n";
        assert_eq!(plain(page), text);
    }
}
