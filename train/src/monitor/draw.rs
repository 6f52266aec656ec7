//! The monitor on a frame of a terminal that is handed to it

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Widget};

use crate::plain::duration;

use super::chart::{self, letter};
use super::history::{History, Phase, Weight};
use super::layout::{Areas, Wanted, areas};
use super::panels::{LOSS, Panel};
use super::scale::Unit;
use super::view::{Mode, Monitor, Pane, Question, Watched};

const KEYS: [(&str, &str); 13] = [
    ("p", "pause the run, or let it go on"),
    ("w", "save a checkpoint now"),
    ("x", "stop the run after saving (asks)"),
    ("l", "multiply the learning rate by a factor"),
    ("+ -", "show fewer or more steps"),
    ("left right", "move along the steps"),
    ("0", "show all steps; End follows the newest"),
    ("s", "smoothing of the curves"),
    ("g", "logarithmic axis for loss and norm"),
    ("1 to 9", "show or hide a part of the screen"),
    ("tab", "the next run"),
    ("up down", "scroll the messages"),
    ("q", "leave"),
];

/// Draws everything. Any size will do.
pub fn draw(monitor: &Monitor, frame: &mut Frame<'_>) {
    let screen = frame.area();
    render(monitor, screen, frame.buffer_mut());
}

fn render(monitor: &Monitor, screen: Rect, buffer: &mut Buffer) {
    let panels: Vec<Panel> =
        monitor.panels().into_iter().filter(|panel| monitor.is_shown(Pane::Chart(panel.title))).collect();
    let (large, small): (Vec<&Panel>, Vec<&Panel>) = panels.iter().partition(|panel| panel.title == LOSS);
    let wanted = Wanted {
        runs: monitor.runs.len(),
        large: !large.is_empty(),
        charts: small.len(),
        texts: monitor.is_shown(Pane::Texts),
        messages: monitor.is_shown(Pane::Messages),
    };
    let Areas { header, bar, large: large_area, charts, texts, messages, footer } = areas(screen, wanted);
    let histories: Vec<&History> = monitor.runs.iter().map(|run| &run.history).collect();
    let view = monitor.view();
    for (row, index) in (header.y..header.bottom()).zip(first_run(monitor, header)..) {
        if let Some(run) = monitor.runs.get(index) {
            let line = run_line(monitor, index, run, header.width);
            line.render(Rect { y: row, height: 1, ..header }, buffer);
        }
    }
    if let Some(run) = monitor.selected_run() {
        progress(monitor, run, bar, buffer);
    }
    let places = large.iter().zip([large_area]).chain(small.iter().zip(charts));
    for (panel, area) in places {
        chart::draw(panel, &histories, &view, monitor.looks, area, buffer);
    }
    draw_texts(monitor, texts, buffer);
    draw_messages(monitor, messages, buffer);
    if !footer.is_empty() {
        last_line(monitor).render(footer, buffer);
    }
    if monitor.shows_help {
        draw_help(monitor, screen, buffer);
    }
}

/// The run of the header's opening line, such that the selected one is seen.
fn first_run(monitor: &Monitor, header: Rect) -> usize {
    (monitor.selected + 1).saturating_sub(usize::from(header.height))
}

fn run_line(monitor: &Monitor, index: usize, run: &Watched, width: u16) -> Line<'static> {
    let looks = monitor.looks;
    let history = &run.history;
    let selected = index == monitor.selected;
    let name_style = if selected { looks.strong() } else { Style::new() };
    let mut spans = Vec::new();
    if monitor.runs.len() > 1 {
        let mark = if selected { '>' } else { ' ' };
        spans.push(Span::styled(format!("{mark}{} ", letter(index)), looks.of_run(index).patch(name_style)));
    }
    spans.push(Span::styled(short_name(&run.name, width), name_style));
    spans.push(Span::raw("  "));
    let (word, style) = state_of(monitor, run);
    spans.push(Span::styled(word, style));
    let [loss, validation, rate] = history.newest();
    let mut parts = Vec::new();
    if history.total_steps > 0 {
        parts.push(format!("step {}/{}", history.step, history.total_steps));
    }
    parts.extend(loss.map(|value| format!("loss {}", Unit::Plain.write(value))));
    parts.extend(validation.map(|value| format!("val {}", Unit::Plain.write(value))));
    if history.lr_factor != 1.0 {
        parts.push(format!("lr x{}", history.lr_factor));
    }
    if !history.phase.is_over() && run.is_alive != Some(false) {
        parts.extend(history.eta_seconds.map(|seconds| format!("eta {}", duration(seconds))));
        parts.extend(rate.map(|value| format!("{} tok/s", Unit::Count.write(value))));
    }
    // What finds no room is left out whole: half a number would be another number.
    let mut used: usize = spans.iter().map(Span::width).sum();
    for part in parts {
        used += part.len() + 2;
        if used > usize::from(width) {
            break;
        }
        spans.push(Span::raw(format!("  {part}")));
    }
    Line::from(spans)
}

/// The end of a long path tells runs apart.
fn short_name(name: &str, width: u16) -> String {
    let most = usize::from(width / 3).max(8);
    let length = name.chars().count();
    match length > most {
        true => format!("..{}", name.chars().skip(length - most + 2).collect::<String>()),
        false => name.to_owned(),
    }
}

fn state_of(monitor: &Monitor, run: &Watched) -> (String, Style) {
    let looks = monitor.looks;
    let phase = run.history.phase;
    match (phase, run.is_alive) {
        _ if monitor.mode == Mode::Replay => ("replay".into(), looks.faint()),
        (Phase::Running | Phase::Paused, Some(false)) => ("no process".into(), looks.coloured(Color::Red)),
        (Phase::Empty, _) => ("no events yet".into(), looks.faint()),
        (Phase::Running | Phase::Finished, _) => (phase.word().into(), looks.coloured(Color::Green)),
        (Phase::Paused, _) => (phase.word().into(), looks.coloured(Color::Yellow)),
        (Phase::Stopped(_), _) => (phase.word().into(), looks.coloured(Color::Red)),
    }
}

fn progress(monitor: &Monitor, run: &Watched, area: Rect, buffer: &mut Buffer) {
    let history = &run.history;
    if area.is_empty() || history.total_steps == 0 {
        return;
    }
    let share = (history.step as f64 / history.total_steps as f64).clamp(0.0, 1.0);
    let text = format!(" {:.0}%", (share * 100.0).floor());
    let width = usize::from(area.width).saturating_sub(text.len());
    let done = (share * width as f64).round() as usize;
    let (full, rest) = if monitor.looks.unicode { ("━", "─") } else { ("#", "-") };
    let style = monitor.looks.of_run(monitor.selected);
    let spans = [
        Span::styled(full.repeat(done), style),
        Span::styled(rest.repeat(width - done), monitor.looks.faint()),
        Span::raw(text),
    ];
    Line::from_iter(spans).render(area, buffer);
}

/// A frame with a title where there is room for one; gives what is inside.
fn framed(monitor: &Monitor, title: &str, area: Rect, buffer: &mut Buffer) -> Rect {
    let title = Line::styled(format!(" {title} "), monitor.looks.strong());
    if area.height < 4 || area.width < 12 {
        title.render(Rect { height: area.height.min(1), ..area }, buffer);
        let lost = area.height.min(1);
        return Rect { y: area.y + lost, height: area.height - lost, ..area };
    }
    let block = monitor.looks.block().title(title);
    let inner = block.inner(area);
    block.render(area, buffer);
    inner
}

fn draw_texts(monitor: &Monitor, area: Rect, buffer: &mut Buffer) {
    let Some(run) = monitor.selected_run().filter(|_| !area.is_empty()) else { return };
    let inner = framed(monitor, "samples, newest on top", area, buffer);
    let mut y = inner.y;
    for text in run.history.texts.iter().rev() {
        let whole = format!("{}: {}|{}", text.step, text.prompt, text.text);
        for line in wrapped(&whole, inner.width) {
            if y >= inner.bottom() {
                return;
            }
            Line::raw(line).render(Rect { y, height: 1, ..inner }, buffer);
            y += 1;
        }
    }
}

fn draw_messages(monitor: &Monitor, area: Rect, buffer: &mut Buffer) {
    let Some(run) = monitor.selected_run().filter(|_| !area.is_empty()) else { return };
    let inner = framed(monitor, "log", area, buffer);
    let mut y = inner.bottom();
    for (weight, message) in run.history.messages.iter().rev().skip(monitor.scrolled) {
        let style = match weight {
            Weight::Note => Style::new(),
            Weight::Warning => monitor.looks.coloured(Color::Red).patch(monitor.looks.strong()),
        };
        for line in wrapped(message, inner.width).into_iter().rev() {
            if y == inner.y {
                return;
            }
            y -= 1;
            Line::styled(line, style).render(Rect { y, height: 1, ..inner }, buffer);
        }
    }
}

/// A text as lines of at most `width` columns.
fn wrapped(text: &str, width: u16) -> Vec<String> {
    let mut lines = Vec::new();
    if width == 0 {
        return lines;
    }
    for line in text.lines() {
        let (mut current, mut used) = (String::new(), 0);
        for c in line.chars() {
            let columns = Span::raw(c.encode_utf8(&mut [0; 4]).to_owned()).width();
            if used + columns > usize::from(width) {
                lines.push(std::mem::take(&mut current));
                used = 0;
            }
            current.push(c);
            used += columns;
        }
        lines.push(current);
    }
    lines
}

/// A question, a note, or the keys.
fn last_line(monitor: &Monitor) -> Line<'static> {
    let name = monitor.selected_run().map(|run| run.name.clone()).unwrap_or_default();
    let text = match &monitor.question {
        Some(Question::Stop) => format!(" stop {name} after saving? y / n"),
        Some(Question::Leave) => format!(" leaving stops {name} after saving: y / n"),
        Some(Question::Factor(typed)) => {
            format!(" multiply the learning rate of {name} by: {typed}_   (Enter sends, Esc leaves it)")
        }
        None => match monitor.note.as_ref().or(monitor.state.as_ref()) {
            Some(note) => format!(" {note}"),
            None => {
                let keys = " q leave  p pause  w save  x stop  l lr  +/- zoom  s smooth  g log  ? help";
                return Line::styled(keys, monitor.looks.faint());
            }
        },
    };
    Line::styled(text, monitor.looks.strong())
}

fn draw_help(monitor: &Monitor, screen: Rect, buffer: &mut Buffer) {
    let mut lines: Vec<String> = KEYS.iter().map(|(key, what)| format!("{key:>11}  {what}")).collect();
    if monitor.mode == Mode::Replay {
        lines.push(format!("{:>11}  hold the replay, or let it go on", "space"));
        lines.push(format!("{:>11}  slower or faster", "< >"));
    }
    let parts = monitor.panes().into_iter().enumerate().take(9).map(|(index, pane)| {
        let name = match pane {
            Pane::Chart(title) => title,
            Pane::Texts => "samples",
            Pane::Messages => "log",
        };
        format!("{} {name}", index + 1)
    });
    let parts: Vec<String> = parts.collect();
    lines.extend(parts.chunks(3).map(|row| format!("             {}", row.join("  "))));
    let width = lines.iter().map(|line| line.len() as u16).max().unwrap_or(0) + 4;
    let (width, height) = (width.min(screen.width), (lines.len() as u16 + 2).min(screen.height));
    let area = Rect {
        x: screen.x + (screen.width - width) / 2,
        y: screen.y + (screen.height - height) / 2,
        width,
        height,
    };
    Clear.render(area, buffer);
    let inner = framed(monitor, "keys; any key closes this", area, buffer);
    for (y, line) in (inner.y..inner.bottom()).zip(lines) {
        Line::raw(line).render(Rect { y, height: 1, ..inner }, buffer);
    }
}
