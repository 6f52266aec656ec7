//! The charts of the monitor as a PNG

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use tiny_skia::{Color, Paint, PathBuilder, Pixmap, PremultipliedColorU8, Rect, Stroke, Transform};

use super::chart::{View, letter};
use super::history::History;
use super::panels::{Kind, LOSS, Panel, panels};
use super::scale::{Axis, Unit};
use super::series::Series;

/// Smallest and greatest sides, in pixels.
pub const LEAST: (u32, u32) = (320, 240);
/// Greatest sides, in pixels.
pub const GREATEST: (u32, u32) = (8192, 8192);

/// Colours of the runs, told apart by most eyes (Okabe and Ito 2008).
const COLOURS: [[u8; 3]; 6] =
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233]];
pub(super) const INK: [u8; 3] = [40, 40, 40];
const FAINT: [u8; 3] = [225, 225, 225];

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The size is out of range.
    #[error("the picture is to be {width}x{height}, but from {}x{} to {}x{} pixels are expected", LEAST.0, LEAST.1, GREATEST.0, GREATEST.1)]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The font inside the program cannot be read.
    #[error("the built-in font cannot be read: {0}")]
    Font(#[from] ab_glyph::InvalidFont),
    /// The pixels could not be packed.
    #[error("the picture could not be written as PNG: {0}")]
    Encoding(String),
}

/// Draws all charts of `runs`, each with its name, as a PNG of `width` x `height` pixels.
///
/// # Errors
/// A size out of range, or a picture that cannot be packed.
pub fn png(runs: &[(&str, &History)], view: &View, width: u32, height: u32) -> Result<Vec<u8>, PictureError> {
    let mut canvas = Canvas::new(width, height)?;
    let size = (width.min(height) as f32 / 55.0).clamp(10.0, 28.0);
    let histories: Vec<&History> = runs.iter().map(|(_, history)| *history).collect();
    let has_data = |panel: &Panel| {
        panel.curves.iter().any(|curve| histories.iter().any(|run| run.series(curve.name).is_some()))
    };
    let shown: Vec<Panel> =
        panels(histories.iter().copied()).into_iter().filter(|panel| panel.is_shown && has_data(panel)).collect();
    let top = canvas.names(runs, size);
    for (panel, area) in shown.iter().zip(places(&shown, width as f32, height as f32, top, size)) {
        Chart { panel, runs: &histories, view, size }.draw(area, &mut canvas);
    }
    canvas.png()
}

/// Left, top, width and height in pixels.
pub(super) type Area = (f32, f32, f32, f32);

/// The loss over the whole width, the others below it in two columns; without a loss all in two columns.
fn places(shown: &[Panel], width: f32, height: f32, top: f32, size: f32) -> Vec<Area> {
    let gap = size;
    let (left, right, bottom) = (gap, width - gap, height - gap);
    let mut places = Vec::new();
    let mut y = top;
    let has_loss = shown.first().is_some_and(|panel| panel.title == LOSS);
    let rest = shown.len() - usize::from(has_loss);
    if has_loss {
        let share = if rest == 0 { 1.0 } else { 0.5 };
        let tall = (bottom - y) * share;
        places.push((left, y, right - left, tall));
        y += tall + gap;
    }
    let rows = rest.div_ceil(2).max(1) as f32;
    let tall = (bottom - y - gap * (rows - 1.0)) / rows;
    let wide = (right - left - gap) / 2.0;
    for index in 0..rest {
        let (row, column) = ((index / 2) as f32, (index % 2) as f32);
        places.push((left + column * (wide + gap), y + row * (tall + gap), wide, tall));
    }
    places
}

pub(super) struct Canvas {
    pixels: Pixmap,
    font: FontRef<'static>,
}

/// Where a text stands relative to its x.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Anchor {
    Left,
    Middle,
    Right,
}

impl Canvas {
    /// White, of `width` x `height` pixels.
    pub(super) fn new(width: u32, height: u32) -> Result<Self, PictureError> {
        let ((w0, h0), (w1, h1)) = (LEAST, GREATEST);
        if !(w0..=w1).contains(&width) || !(h0..=h1).contains(&height) {
            return Err(PictureError::Size { width, height });
        }
        let mut pixels = Pixmap::new(width, height).ok_or(PictureError::Size { width, height })?;
        pixels.fill(Color::WHITE);
        Ok(Self { pixels, font: FontRef::try_from_slice(epaint_default_fonts::HACK_REGULAR)? })
    }

    pub(super) fn png(&self) -> Result<Vec<u8>, PictureError> {
        self.pixels.encode_png().map_err(|error| PictureError::Encoding(error.to_string()))
    }

    /// The names of the runs at the top; gives where they end.
    fn names(&mut self, runs: &[(&str, &History)], size: f32) -> f32 {
        let mut y = size * 0.6;
        for (index, (name, history)) in runs.iter().enumerate() {
            let letter = if runs.len() > 1 { format!("{} ", letter(index)) } else { String::new() };
            let steps = match history.total_steps {
                0 => format!("step {}", history.step),
                total => format!("step {} of {total}", history.step),
            };
            self.text(size, y + size, size * 1.1, colour_of(index), &format!("{letter}{name}"), Anchor::Left);
            let right = self.pixels.width() as f32 - size;
            self.text(right, y + size, size, INK, &format!("{steps}, {}", history.phase.word()), Anchor::Right);
            y += size * 1.5;
        }
        y + size * 0.3
    }

    /// A title, a grid with the marks of both axes, and what stands below; gives the area inside, `None` where there is
    /// too little room for one.
    pub(super) fn frame(
        &mut self,
        (x, y, width, height): Area,
        size: f32,
        (title, below): (&str, &str),
        (across, up): (&Axis, &Axis),
    ) -> Option<Area> {
        self.text(x, y + size, size, INK, title, Anchor::Left);
        let marks = up.marks((height / (size * 2.5)).max(3.0) as usize);
        let longest = marks.iter().map(|mark| mark.text.len()).max().unwrap_or(0) as f32;
        let left = x + (longest + 1.0) * size * 0.55;
        let grid = (left, y + size * 1.6, x + width - left, height - size * 3.4);
        let (_, grid_top, grid_width, grid_height) = grid;
        if grid_width < size * 4.0 || grid_height < size * 2.0 {
            return None;
        }
        let bottom = grid_top + grid_height;
        for mark in marks {
            let at = bottom - mark.place as f32 * grid_height;
            self.line(&[(left, at), (left + grid_width, at)], FAINT, 1.0, 1.0);
            self.text(left - size * 0.4, at + size * 0.3, size * 0.85, INK, &mark.text, Anchor::Right);
        }
        for mark in across.marks((grid_width / (size * 6.0)).max(2.0) as usize) {
            let at = left + mark.place as f32 * grid_width;
            self.line(&[(at, bottom), (at, bottom + size * 0.3)], INK, 1.0, 1.0);
            self.text(at, bottom + size * 1.2, size * 0.85, INK, &mark.text, Anchor::Middle);
        }
        self.text(left + grid_width, y + size, size * 0.85, INK, below, Anchor::Right);
        Some(grid)
    }

    pub(super) fn text(&mut self, x: f32, baseline: f32, size: f32, colour: [u8; 3], text: &str, anchor: Anchor) {
        let scaled = self.font.as_scaled(PxScale::from(size));
        let wide: f32 = text.chars().map(|c| scaled.h_advance(scaled.glyph_id(c))).sum();
        let mut pen = match anchor {
            Anchor::Left => x,
            Anchor::Middle => x - wide / 2.0,
            Anchor::Right => x - wide,
        };
        let mut outlines = Vec::new();
        for c in text.chars() {
            let id = scaled.glyph_id(c);
            let glyph = id.with_scale_and_position(size, point(pen, baseline));
            outlines.extend(self.font.outline_glyph(glyph));
            pen += scaled.h_advance(id);
        }
        for outline in outlines {
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, cover| {
                blend(
                    &mut self.pixels,
                    corner.x as i64 + i64::from(dx),
                    corner.y as i64 + i64::from(dy),
                    colour,
                    cover,
                );
            });
        }
    }

    pub(super) fn line(&mut self, points: &[(f32, f32)], colour: [u8; 3], opacity: f32, width: f32) {
        let mut path = PathBuilder::new();
        for (index, (x, y)) in points.iter().enumerate() {
            if index == 0 { path.move_to(*x, *y) } else { path.line_to(*x, *y) }
        }
        let Some(path) = path.finish() else { return };
        let stroke = Stroke { width, line_join: tiny_skia::LineJoin::Round, ..Stroke::default() };
        self.pixels.stroke_path(&path, &paint(colour, opacity), &stroke, Transform::identity(), None);
    }

    pub(super) fn dot(&mut self, (x, y): (f32, f32), radius: f32, colour: [u8; 3]) {
        if let Some(circle) = PathBuilder::from_circle(x, y, radius) {
            let rule = tiny_skia::FillRule::Winding;
            self.pixels.fill_path(&circle, &paint(colour, 1.0), rule, Transform::identity(), None);
        }
    }

    pub(super) fn rectangle(&mut self, (x, y, width, height): Area, colour: [u8; 3]) {
        if let Some(rect) = Rect::from_xywh(x, y, width, height) {
            self.pixels.fill_rect(rect, &paint(colour, 1.0), Transform::identity(), None);
        }
    }
}

pub(super) fn colour_of(index: usize) -> [u8; 3] {
    COLOURS[index % COLOURS.len()]
}

fn paint(colour: [u8; 3], opacity: f32) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(colour[0], colour[1], colour[2], (opacity * 255.0).round() as u8);
    paint
}

/// Mixes `colour` over an opaque pixel; outside the picture nothing happens.
fn blend(pixels: &mut Pixmap, x: i64, y: i64, colour: [u8; 3], cover: f32) {
    let (width, height) = (i64::from(pixels.width()), i64::from(pixels.height()));
    if !(0..width).contains(&x) || !(0..height).contains(&y) {
        return;
    }
    let pixel = &mut pixels.pixels_mut()[(y * width + x) as usize];
    let cover = cover.clamp(0.0, 1.0);
    let mix = |under: u8, over: u8| (f32::from(under) * (1.0 - cover) + f32::from(over) * cover).round() as u8;
    let mixed = [mix(pixel.red(), colour[0]), mix(pixel.green(), colour[1]), mix(pixel.blue(), colour[2])];
    // Every pixel is opaque, so any colour is a valid premultiplied one.
    *pixel = PremultipliedColorU8::from_rgba(mixed[0], mixed[1], mixed[2], 255).unwrap_or(*pixel);
}

struct Chart<'a> {
    panel: &'a Panel,
    runs: &'a [&'a History],
    view: &'a View,
    size: f32,
}

/// A curve to draw: points, colour, opacity, width, and whether each point gets a dot.
struct Stroked {
    points: Vec<(f64, f64)>,
    colour: [u8; 3],
    opacity: f32,
    width: f32,
    dots: bool,
    label: &'static str,
}

impl Chart<'_> {
    fn draw(&self, area: Area, canvas: &mut Canvas) {
        let size = self.size;
        let curves = self.curves();
        let log = self.view.log && self.panel.may_log;
        let inside = |x: f64| self.view.steps.contains(&x);
        let shown = curves.iter().flat_map(|curve| &curve.points).filter(|(x, _)| inside(*x)).map(|(_, y)| *y);
        let range = shown.filter(|y| !log || *y > 0.0).fold(None, |range: Option<(f64, f64)>, y| {
            let (least, greatest) = range.unwrap_or((y, y));
            Some((least.min(y), greatest.max(y)))
        });
        let (least, greatest) = range.unwrap_or((0.0, 1.0));
        let values = Axis::around(least, greatest, log, self.panel.unit);
        let steps = Axis::exact(*self.view.steps.start(), *self.view.steps.end(), false, Unit::Count);
        let title = if log { format!("{} (log)", self.panel.title) } else { self.panel.title.to_owned() };
        let Some(grid) = canvas.frame(area, size, (&title, "steps"), (&steps, &values)) else { return };
        let (left, grid_top, grid_width, grid_height) = grid;
        let bottom = grid_top + grid_height;
        let place = |(step, value): (f64, f64)| {
            let down = (1.0 - values.place(value)).clamp(0.0, 1.0) as f32;
            (left + steps.place(step) as f32 * grid_width, grid_top + down * grid_height)
        };
        for curve in &curves {
            let points: Vec<(f32, f32)> =
                curve.points.iter().filter(|(x, _)| inside(*x)).map(|point| place(*point)).collect();
            canvas.line(&points, curve.colour, curve.opacity, curve.width);
            if curve.dots || points.len() == 1 {
                points.iter().for_each(|point| canvas.dot(*point, curve.width * 1.6, curve.colour));
            }
        }
        canvas.line(&[(left, grid_top), (left, bottom), (left + grid_width, bottom)], INK, 1.0, 1.2);
        self.legend(&curves, grid, canvas);
    }

    fn curves(&self) -> Vec<Stroked> {
        let width = self.size * 0.13;
        let single = self.runs.len() == 1;
        let mut curves = Vec::new();
        for (index, run) in self.runs.iter().enumerate() {
            for curve in &self.panel.curves {
                let Some(series) = run.series(curve.name) else { continue };
                let colour = if single && curve.kind == Kind::Points { colour_of(1) } else { colour_of(index) };
                let stroked =
                    |points, opacity, dots, label| Stroked { points, colour, opacity, width, dots, label };
                if curve.kind == Kind::Noisy && single {
                    curves.push(Stroked { width: width * 0.5, ..stroked(extremes(series), 0.3, false, "") });
                }
                curves.push(match curve.kind {
                    Kind::Noisy => {
                        let points = series.smoothed(self.view.smoothing);
                        let points = points.into_iter().map(|(step, value)| (step as f64, value)).collect();
                        stroked(points, 1.0, false, curve.label)
                    }
                    Kind::Line => stroked(means(series), 1.0, false, curve.label),
                    Kind::Points => stroked(means(series), if single { 1.0 } else { 0.6 }, true, curve.label),
                });
            }
        }
        curves
    }

    /// What the curves are; the colours of several runs are told at the top of the picture.
    fn legend(&self, curves: &[Stroked], (left, top, width, _): Area, canvas: &mut Canvas) {
        if self.panel.curves.len() < 2 {
            return;
        }
        let size = self.size;
        let mut entries: Vec<(&Stroked, String)> = Vec::new();
        for curve in curves.iter().filter(|curve| !curve.label.is_empty()) {
            let text = match curve.dots {
                true => curve.label.to_owned(),
                false if self.view.smoothing > 0.0 => {
                    format!("{}, mean (past {})", curve.label, self.view.smoothing)
                }
                false => curve.label.to_owned(),
            };
            if !entries.iter().any(|(_, other)| *other == text) {
                entries.push((curve, text));
            }
        }
        let longest = entries.iter().map(|(_, text)| text.len()).max().unwrap_or(0) as f32;
        let start = left + width - (longest * 0.55 + 4.0) * size;
        canvas.rectangle(
            (start - size * 0.5, top, left + width - start, entries.len() as f32 * size * 1.4),
            [255; 3],
        );
        for (row, (curve, text)) in entries.into_iter().enumerate() {
            let y = top + (row as f32 + 0.7) * size * 1.4;
            let colour = if self.runs.len() == 1 { curve.colour } else { INK };
            canvas.line(&[(start, y), (start + size * 2.0, y)], colour, 1.0, curve.width);
            if curve.dots {
                canvas.dot((start + size, y), curve.width * 1.6, colour);
            }
            canvas.text(start + size * 2.6, y + size * 0.35, size * 0.9, INK, &text, Anchor::Left);
        }
    }
}

fn means(series: &Series) -> Vec<(f64, f64)> {
    series.buckets().iter().map(|bucket| (bucket.last as f64, bucket.mean())).collect()
}

/// Up and down through the least and the greatest value of every bucket.
fn extremes(series: &Series) -> Vec<(f64, f64)> {
    let ends =
        |bucket: &super::series::Bucket| [(bucket.first as f64, bucket.min), (bucket.last as f64, bucket.max)];
    series.buckets().iter().flat_map(ends).collect()
}
