//! A chart on character cells: axes with round numbers, curves as dots, letters at the ends of several runs' curves

use std::ops::RangeInclusive;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;
use ratatui::text::Line;
use ratatui::widgets::{Block, Widget};

use super::dots::Dots;
use super::history::History;
use super::panels::{Curve, Kind, Panel};
use super::scale::{Axis, Unit};
use super::series::{Bucket, Series};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    /// Braille dots and drawn borders; else plain ASCII.
    pub unicode: bool,
    /// Colours.
    pub colour: bool,
}

/// Colours of the runs, which letters and marks tell apart too.
const COLOURS: [Color; 6] =
    [Color::Cyan, Color::Yellow, Color::Magenta, Color::Green, Color::LightBlue, Color::LightRed];

const ASCII_BORDER: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

impl Looks {
    /// The style of a run by its place in the list.
    pub fn of_run(self, index: usize) -> Style {
        self.coloured(COLOURS[index % COLOURS.len()])
    }

    /// A colour where there are colours.
    pub fn coloured(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// What stands back.
    pub fn faint(self) -> Style {
        self.coloured(Color::DarkGray)
    }

    /// What stands out, in monochrome too.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// A frame around an area.
    pub fn block(self) -> Block<'static> {
        let set = if self.unicode { border::PLAIN } else { ASCII_BORDER };
        Block::bordered().border_set(set).border_style(self.faint())
    }
}

/// The letter of a run by its place in the list.
pub fn letter(index: usize) -> char {
    char::from(b'A' + (index % 26) as u8)
}

/// What of the runs is shown, the same for every chart.
#[derive(Debug, Clone)]
pub struct View {
    /// Steps from the left to the right edge.
    pub steps: RangeInclusive<f64>,
    /// What the past counts in the moving average, in [0, 1).
    pub smoothing: f64,
    /// Logarithmic value axis, for charts that may have one.
    pub log: bool,
    /// The run whose newest values stand in the titles.
    pub selected: usize,
}

/// Draws `panel` of `runs` into `area`, with a frame and axes where there is room.
pub fn draw(panel: &Panel, runs: &[&History], view: &View, looks: Looks, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(buffer.area);
    if area.is_empty() {
        return;
    }
    let title = title(panel, runs, view, looks);
    let framed = area.height >= 7 && area.width >= 24;
    let inner = match framed {
        true => {
            let block = looks.block().title(title);
            let inner = block.inner(area);
            block.render(area, buffer);
            inner
        }
        false => {
            title.render(Rect { height: 1, ..area }, buffer);
            Rect { y: area.y + 1, height: area.height - 1, ..area }
        }
    };
    let mut plot = Plot { panel, runs, view, looks };
    plot.draw(inner, framed, buffer);
}

/// Name, newest values of the selected run, and whether the axis is logarithmic.
fn title(panel: &Panel, runs: &[&History], view: &View, looks: Looks) -> Line<'static> {
    let mut text = format!(" {}", panel.title);
    for (i, curve) in panel.curves.iter().enumerate() {
        let last = runs.get(view.selected).and_then(|run| run.last(curve.name));
        if let Some(value) = last {
            let label = if i == 0 { String::new() } else { format!(" {}", curve.label) };
            text += &format!("{label} {}", panel.unit.write(value));
        }
    }
    if view.log && panel.may_log {
        text += " (log)";
    }
    Line::styled(text + " ", looks.strong())
}

struct Plot<'a> {
    panel: &'a Panel,
    runs: &'a [&'a History],
    view: &'a View,
    looks: Looks,
}

/// A column of dots: least, greatest and mean value of the points that fall into it.
#[derive(Debug, Clone, Copy)]
struct Column {
    min: f64,
    max: f64,
    mean: f64,
    points: f64,
}

impl Plot<'_> {
    fn draw(&mut self, area: Rect, axes: bool, buffer: &mut Buffer) {
        let Some(values) = self.values() else {
            if area.height > 0 {
                Line::styled(" no data yet", self.looks.faint()).render(Rect { height: 1, ..area }, buffer);
            }
            return;
        };
        let log = self.view.log && self.panel.may_log;
        let axis = Axis::around(values.0, values.1, log, self.panel.unit);
        let steps = Axis::exact(*self.view.steps.start(), *self.view.steps.end(), false, Unit::Count);
        let grid = match axes {
            true => self.draw_axes(&axis, &steps, area, buffer),
            false => area,
        };
        if grid.is_empty() {
            return;
        }
        let mut dots = Dots::new(grid, self.looks.unicode);
        let mut letters = Vec::new();
        for (index, run) in self.runs.iter().enumerate() {
            for curve in &self.panel.curves {
                if let Some(series) = run.series(curve.name) {
                    let end = self.draw_curve(curve, series, index, &axis, &mut dots);
                    letters.extend(end.filter(|_| self.runs.len() > 1).map(|at| (index, curve.kind, at)));
                }
            }
        }
        dots.render(grid, buffer);
        for (index, kind, (x, y)) in letters {
            let (per_column, per_row) = if self.looks.unicode { (2, 4) } else { (1, 1) };
            let at = (grid.x + (x / per_column) as u16, grid.y + (y / per_row) as u16);
            let mark = if kind == Kind::Points { letter(index).to_ascii_lowercase() } else { letter(index) };
            if let Some(cell) = buffer.cell_mut(at).filter(|_| grid.contains(at.into())) {
                cell.set_char(mark).set_style(self.looks.of_run(index).patch(self.looks.strong()));
            }
        }
        if axes {
            self.draw_legend(grid, buffer);
        }
    }

    /// Least and greatest value that is shown; `None` without any.
    fn values(&self) -> Option<(f64, f64)> {
        let log = self.view.log && self.panel.may_log;
        let mut range: Option<(f64, f64)> = None;
        for (run, curve) in self.runs.iter().flat_map(|run| self.panel.curves.iter().map(move |c| (run, c))) {
            let Some(series) = run.series(curve.name) else { continue };
            // Where the single points are not drawn, their extremes would only press the curves together.
            let is_averaged = curve.kind == Kind::Noisy && self.runs.len() > 1;
            for bucket in series.around(&self.view.steps) {
                let (min, max) =
                    if is_averaged { (bucket.mean(), bucket.mean()) } else { (bucket.min, bucket.max) };
                if !log || min > 0.0 {
                    let (least, greatest) = range.unwrap_or((min, max));
                    range = Some((least.min(min), greatest.max(max)));
                }
            }
        }
        range
    }

    /// Numbers left of and below the grid; gives the grid's area.
    fn draw_axes(&self, axis: &Axis, steps: &Axis, area: Rect, buffer: &mut Buffer) -> Rect {
        let rows = area.height.saturating_sub(1);
        let marks = axis.marks(usize::from(rows.div_ceil(3)).max(2));
        let width = marks.iter().map(|mark| mark.text.chars().count()).max().unwrap_or(0) as u16;
        if area.width < width + 8 || rows < 2 {
            return area;
        }
        let grid = Rect { x: area.x + width + 1, y: area.y, width: area.width - width - 1, height: rows };
        let line = if self.looks.unicode { "│" } else { "|" };
        for y in grid.y..grid.bottom() {
            buffer.set_string(grid.x - 1, y, line, self.looks.faint());
        }
        for mark in marks {
            let y = grid.bottom() - 1 - (mark.place * f64::from(rows - 1)).round() as u16;
            buffer.set_string(area.x, y, format!("{:>1$}", mark.text, usize::from(width)), self.looks.faint());
        }
        let below = grid.bottom();
        let mut free = area.x;
        for mark in steps.marks(usize::from(grid.width / 10).max(2)) {
            let length = mark.text.chars().count() as u16;
            let at = grid.x + (mark.place * f64::from(grid.width - 1)).round() as u16;
            let start = at.saturating_sub(length / 2).min(area.right().saturating_sub(length));
            if start >= free {
                buffer.set_string(start, below, &mark.text, self.looks.faint());
                free = start + length + 1;
            }
        }
        if area.right().saturating_sub(free) >= 5 {
            buffer.set_string(area.right() - 4, below, "step", self.looks.faint());
        }
        grid
    }

    fn draw_curve(
        &self,
        curve: &Curve,
        series: &Series,
        run: usize,
        axis: &Axis,
        dots: &mut Dots,
    ) -> Option<(usize, usize)> {
        let single = self.runs.len() == 1;
        let style = self.looks.of_run(run);
        let mark = |lone: char| if single { lone } else { letter(run) };
        let columns = || self.columns(series.around(&self.view.steps), dots.width());
        match curve.kind {
            Kind::Noisy => {
                if single {
                    line(&columns(), axis, dots, ('.', self.looks.faint()), true);
                }
                line(&self.smoothed(series, dots.width()), axis, dots, (mark('*'), style), false)
            }
            Kind::Line => line(&columns(), axis, dots, (mark('*'), style), false),
            Kind::Points => {
                let style = if single { self.looks.of_run(1) } else { style };
                let mark = if single { 'o' } else { letter(run).to_ascii_lowercase() };
                line(&columns(), axis, dots, (mark, style), false)
            }
        }
    }

    /// Points by column of dots.
    fn columns(&self, buckets: &[Bucket], width: usize) -> Vec<(i64, Column)> {
        let mut columns: Vec<(i64, Column)> = Vec::new();
        for bucket in buckets {
            let at = self.column_of(bucket.last as f64, width);
            let points = f64::from(bucket.points);
            let new = Column { min: bucket.min, max: bucket.max, mean: bucket.mean(), points };
            match columns.last_mut() {
                Some((last, column)) if *last == at => {
                    column.min = column.min.min(new.min);
                    column.max = column.max.max(new.max);
                    column.points += points;
                    column.mean += (new.mean - column.mean) * points / column.points;
                }
                _ => columns.push((at, new)),
            }
        }
        columns
    }

    /// The moving average by column of dots: its newest value in each.
    fn smoothed(&self, series: &Series, width: usize) -> Vec<(i64, Column)> {
        let mut columns: Vec<(i64, Column)> = Vec::new();
        for (step, value) in series.smoothed(self.view.smoothing) {
            let at = self.column_of(step as f64, width);
            let new = Column { min: value, max: value, mean: value, points: 1.0 };
            match columns.last_mut() {
                Some((last, column)) if *last == at => *column = new,
                _ => columns.push((at, new)),
            }
        }
        columns
    }

    /// The column of dots of a step; one left or right of the grid may be any number there.
    fn column_of(&self, step: f64, width: usize) -> i64 {
        let (start, end) = (*self.view.steps.start(), *self.view.steps.end());
        let place = (step - start) / (end - start).max(f64::MIN_POSITIVE);
        (place * width.saturating_sub(1) as f64).round().clamp(-1e6, 1e6) as i64
    }

    /// What the curves of this chart are, at its upper right; for several runs the lines at the top of the screen tell.
    fn draw_legend(&self, grid: Rect, buffer: &mut Buffer) {
        if self.runs.len() > 1 || self.panel.curves.len() < 2 || grid.width < 44 || grid.height < 6 {
            return;
        }
        let (faint, line) = if self.looks.unicode { ("⠂", "⠒") } else { (".", "*") };
        let second = if self.looks.unicode { "⠒" } else { "o" };
        let entries = [
            (faint, "train", self.looks.faint()),
            (line, "train, mean", self.looks.of_run(0)),
            (second, "validation", self.looks.of_run(1)),
        ];
        for (y, (mark, text, style)) in entries.into_iter().enumerate() {
            let text = format!("{mark} {text:<11}");
            buffer.set_string(grid.right().saturating_sub(14), grid.y + y as u16, text, style);
        }
    }
}

/// Joins the columns; with `extremes`, from the least to the greatest value of each. Gives the place of the last dot.
fn line(
    columns: &[(i64, Column)],
    axis: &Axis,
    dots: &mut Dots,
    (mark, style): (char, Style),
    extremes: bool,
) -> Option<(usize, usize)> {
    let (width, bottom) = (dots.width() as i64, dots.height().saturating_sub(1) as f64);
    // A value beyond the axis lies on its edge: curves leave the chart there.
    let row = |value: f64| ((1.0 - axis.place(value)) * bottom).round().clamp(0.0, bottom) as usize;
    let mut end = None;
    let mut before: Option<(i64, usize)> = None;
    for (x, column) in columns {
        let y = row(column.mean);
        if let Some((x0, y0)) = before {
            let slope = (y as f64 - y0 as f64) / (x - x0).max(1) as f64;
            let at = |column: i64| (y0 as f64 + slope * (column - x0) as f64).round() as usize;
            for between in (x0 + 1).max(0)..=(*x).min(width - 1) {
                dots.column(between as usize, at(between - 1), at(between), mark, style);
            }
        }
        if (0..width).contains(x) {
            if extremes {
                dots.column(*x as usize, row(column.min), row(column.max), mark, style);
            } else {
                dots.set(*x as usize, y, mark, style);
            }
            end = Some((*x as usize, y));
        }
        before = Some((*x, y));
    }
    end
}
