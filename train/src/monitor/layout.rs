//! Where things stand on a screen of any size

use ratatui::layout::Rect;

/// The least height of a chart: its title and two rows of dots.
const LEAST_CHART: u16 = 3;

/// What is to be placed.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Runs, each with a line at the top.
    pub runs: usize,
    /// Whether the large chart is shown.
    pub large: bool,
    /// Charts beside it.
    pub charts: usize,
    /// Whether texts are shown.
    pub texts: bool,
    /// Whether messages are shown.
    pub messages: bool,
}

/// The places; an area that found none has no height or width.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Areas {
    /// A line for each run.
    pub header: Rect,
    /// The line of the progress bar.
    pub bar: Rect,
    /// The large chart.
    pub large: Rect,
    /// The charts that found room, in order.
    pub charts: Vec<Rect>,
    /// Generated texts.
    pub texts: Rect,
    /// Messages.
    pub messages: Rect,
    /// Keys, questions and notes.
    pub footer: Rect,
}

/// Divides a screen.
pub fn areas(screen: Rect, wanted: Wanted) -> Areas {
    let mut areas = Areas::default();
    let (mut rest, height) = (screen, screen.height);
    let lines = (wanted.runs as u16).clamp(1, (height / 4).max(1));
    (areas.header, rest) = split_top(rest, lines);
    if height >= 12 {
        (areas.bar, rest) = split_top(rest, 1);
    }
    if height >= 4 {
        (rest, areas.footer) = split_top(rest, rest.height - 1);
    }
    let has_charts = wanted.large || wanted.charts > 0;
    let has_words = wanted.texts || wanted.messages;
    let words = match (has_charts, has_words) {
        (_, false) => 0,
        (false, true) => rest.height,
        (true, true) if rest.height >= 14 => (rest.height * 3 / 10).max(5),
        (true, true) => 0,
    };
    let (charts, words) = split_top(rest, rest.height - words);
    match (wanted.texts, wanted.messages) {
        (true, true) if words.width >= 60 => (areas.texts, areas.messages) = split_left(words, words.width / 2),
        (true, false) => areas.texts = words,
        (_, true) => areas.messages = words,
        (false, false) => {}
    }
    place_charts(charts, wanted, &mut areas);
    areas
}

fn place_charts(area: Rect, wanted: Wanted, areas: &mut Areas) {
    if !wanted.large {
        // Two columns where there is room for two.
        let columns = if area.width >= 100 && wanted.charts > 1 { 2 } else { 1 };
        let (left, right) = split_left(area, area.width / columns);
        let in_left = wanted.charts.div_ceil(usize::from(columns));
        areas.charts = stack(left, in_left);
        areas.charts.extend(stack(right, wanted.charts - in_left));
        return;
    }
    if wanted.charts == 0 || area.height < LEAST_CHART {
        areas.large = area;
    } else if area.width >= 60 {
        let side = (area.width * 38 / 100).clamp(26, 90);
        let (large, side) = split_left(area, area.width - side);
        areas.large = large;
        areas.charts = stack(side, wanted.charts);
    } else if area.height >= 4 * LEAST_CHART {
        let (large, below) = split_top(area, area.height / 2);
        areas.large = large;
        areas.charts = stack(below, wanted.charts);
    } else {
        areas.large = area;
    }
}

/// As many of `wanted` areas as find room above each other.
fn stack(area: Rect, wanted: usize) -> Vec<Rect> {
    let count = wanted.min(usize::from(area.height / LEAST_CHART));
    let mut rest = area;
    let mut next = |left: usize| {
        let (top, below) = split_top(rest, rest.height / left as u16);
        rest = below;
        top
    };
    (1..=count).rev().map(&mut next).collect()
}

fn split_top(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let below = Rect { y: area.y + height, height: area.height - height, ..area };
    (Rect { height, ..area }, below)
}

fn split_left(area: Rect, width: u16) -> (Rect, Rect) {
    let width = width.min(area.width);
    let right = Rect { x: area.x + width, width: area.width - width, ..area };
    (Rect { width, ..area }, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_screen_is_covered_without_overlap() {
        for (width, height) in (0..70).flat_map(|w| (0..40).map(move |h| (w * 3, h * 2))) {
            for charts in [0, 1, 4, 9] {
                for switches in 0..8 {
                    let (large, texts, messages) = (switches & 1 == 0, switches & 2 == 0, switches & 4 == 0);
                    let wanted = Wanted { runs: 3, large, charts, texts, messages };
                    let screen = Rect::new(0, 0, width, height);
                    let areas = areas(screen, wanted);
                    let all = [areas.header, areas.bar, areas.large, areas.texts, areas.messages, areas.footer];
                    let all: Vec<Rect> = all.into_iter().chain(areas.charts).filter(|a| !a.is_empty()).collect();
                    for (i, area) in all.iter().enumerate() {
                        assert_eq!(screen.intersection(*area), *area, "{width}x{height} {wanted:?}");
                        assert!(!all[i + 1..].iter().any(|other| other.intersects(*area)), "{width}x{height}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_usual_terminals() {
        let wanted = Wanted { runs: 1, large: true, charts: 4, texts: true, messages: true };
        let small = areas(Rect::new(0, 0, 80, 24), wanted);
        assert_eq!((small.large.width, small.large.height), (50, 15));
        assert_eq!(small.charts.len(), 4);
        assert_eq!((small.texts.height, small.messages.width), (6, 40));
        let large = areas(Rect::new(0, 0, 200, 60), wanted);
        assert_eq!((large.large.width, large.charts[0].width, large.charts[3].height), (124, 76, 10));
    }
}
