//! Curves of measurements as a PNG

use super::picture::{Anchor, Canvas, INK, PictureError, colour_of};
use super::scale::{Axis, Unit};

/// A chart of some lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What stands above it.
    pub title: String,
    /// What the horizontal axis counts.
    pub across: String,
    /// Both axes are logarithmic.
    pub log: bool,
    /// Unit of the vertical axis.
    pub unit: Unit,
    /// Each with its name; points from left to right.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Draws `plots` one below the other as a PNG of `width` x `height` pixels. Plots without a point are left out.
///
/// # Errors
/// A size out of range, or a picture that cannot be packed.
pub fn png(plots: &[Plot], width: u32, height: u32) -> Result<Vec<u8>, PictureError> {
    let mut canvas = Canvas::new(width, height)?;
    let size = (width.min(height) as f32 / 42.0).clamp(9.0, 28.0);
    let shown: Vec<&Plot> = plots.iter().filter(|plot| plot.points().next().is_some()).collect();
    let tall = (height as f32 - size) / shown.len().max(1) as f32;
    for (index, plot) in shown.into_iter().enumerate() {
        let area = (size, size * 0.5 + index as f32 * tall, width as f32 - 2.0 * size, tall - size * 0.5);
        plot.draw(area, size, &mut canvas);
    }
    canvas.png()
}

impl Plot {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines.iter().flat_map(|(_, points)| points).copied()
    }

    fn draw(&self, area: (f32, f32, f32, f32), size: f32, canvas: &mut Canvas) {
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (left, right) = ends(&mut self.points().map(|(x, _)| x));
        let (low, high) = ends(&mut self.points().map(|(_, y)| y));
        let across = Axis::around(left, right, self.log, Unit::Count);
        // Rates are read from 0, unless the axis is logarithmic.
        let up = Axis::around(if self.log { low } else { low.min(0.0) }, high, self.log, self.unit);
        let Some(grid) = canvas.frame(area, size, (&self.title, &self.across), (&across, &up)) else { return };
        let (x0, y0, width, height) = grid;
        let place = |&(x, y): &(f64, f64)| {
            (x0 + across.place(x) as f32 * width, y0 + (1.0 - up.place(y)).clamp(0.0, 1.0) as f32 * height)
        };
        for (index, (_, points)) in self.lines.iter().enumerate() {
            let points: Vec<(f32, f32)> = points.iter().map(place).collect();
            canvas.line(&points, colour_of(index), 1.0, size * 0.13);
            points.iter().for_each(|point| canvas.dot(*point, size * 0.22, colour_of(index)));
        }
        canvas.line(&[(x0, y0), (x0, y0 + height), (x0 + width, y0 + height)], INK, 1.0, 1.2);
        let longest = self.lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) as f32;
        let start = x0 + width - longest * size * 0.6;
        let tall = self.lines.len() as f32 * size * 1.3;
        canvas.rectangle((start - size * 0.5, y0, x0 + width - start + size * 0.5, tall), [255; 3]);
        for (index, (name, _)) in self.lines.iter().enumerate() {
            let baseline = y0 + (index as f32 + 0.9) * size * 1.3;
            canvas.text(x0 + width, baseline, size * 0.9, colour_of(index), name, Anchor::Right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_leave_their_colours_and_nothing_is_drawn_of_nothing() {
        let line = |k: f64| (1..5).map(|x| (f64::from(x), k * f64::from(x))).collect::<Vec<_>>();
        let plot = Plot {
            title: "rate".into(),
            across: "tokens".into(),
            log: false,
            unit: Unit::Count,
            lines: vec![("one".into(), line(10.0)), ("two".into(), line(30.0))],
        };
        let coloured = |plots: &[Plot]| {
            let picture = tiny_skia::Pixmap::decode_png(&png(plots, 640, 480).unwrap()).unwrap();
            let count = |index: usize| {
                let [r, g, b] = colour_of(index);
                picture.pixels().iter().filter(|p| (p.red(), p.green(), p.blue()) == (r, g, b)).count()
            };
            [count(0), count(1), count(2)]
        };
        let [one, two, three] = coloured(std::slice::from_ref(&plot));
        assert!(one > 200 && two > 200 && three == 0, "{one} {two} {three}");
        assert_eq!(coloured(&[Plot { lines: vec![("none".into(), vec![])], ..plot.clone() }]), [0; 3]);
        // One point, and a logarithmic axis from 0, are no reason to fail.
        for (log, points) in [(false, vec![(3.0, 0.0)]), (true, vec![(0.0, 0.0), (1e6, 1e3)])] {
            png(&[Plot { log, lines: vec![("p".into(), points)], ..plot.clone() }], 320, 240).unwrap();
        }
        assert!(png(&[plot], 10, 10).is_err());
    }
}
