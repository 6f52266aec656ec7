//! A grid of dots on character cells: eight a cell in braille, one a cell in ASCII

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Dots of a braille cell, by row and column (Unicode standard, chapter 21).
const BRAILLE: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/// Dots over an area of a screen. Later dots of another style take a cell's colour, and in ASCII its character.
pub struct Dots {
    columns: usize,
    rows: usize,
    braille: bool,
    cells: Vec<Option<Cell>>,
}

#[derive(Clone, Copy)]
struct Cell {
    dots: u8,
    mark: char,
    style: Style,
}

impl Dots {
    /// A grid for `area`, in braille or else in ASCII.
    pub fn new(area: Rect, braille: bool) -> Self {
        let (columns, rows) = (usize::from(area.width), usize::from(area.height));
        Dots { columns, rows, braille, cells: vec![None; columns * rows] }
    }

    /// Dots from left to right.
    pub fn width(&self) -> usize {
        if self.braille { self.columns * 2 } else { self.columns }
    }

    /// Dots from top to bottom.
    pub fn height(&self) -> usize {
        if self.braille { self.rows * 4 } else { self.rows }
    }

    /// Sets a dot; `mark` is its character in ASCII. Outside the grid nothing happens.
    pub fn set(&mut self, x: usize, y: usize, mark: char, style: Style) {
        if x >= self.width() || y >= self.height() {
            return;
        }
        let (column, row, dot) = match self.braille {
            true => (x / 2, y / 4, BRAILLE[y % 4][x % 2]),
            false => (x, y, 1),
        };
        let cell = &mut self.cells[row * self.columns + column];
        let dots = cell.map_or(0, |cell| cell.dots) | dot;
        *cell = Some(Cell { dots, mark, style });
    }

    /// Sets the dots of a column from `a` to `b`, whichever is higher.
    pub fn column(&mut self, x: usize, a: usize, b: usize, mark: char, style: Style) {
        (a.min(b)..=a.max(b)).for_each(|y| self.set(x, y, mark, style));
    }

    /// Puts the grid on the screen, where its cells hold dots.
    pub fn render(&self, area: Rect, buffer: &mut Buffer) {
        for (index, cell) in self.cells.iter().enumerate() {
            let Some(cell) = cell else { continue };
            let (x, y) = (area.x + (index % self.columns) as u16, area.y + (index / self.columns) as u16);
            let character = match self.braille {
                true => char::from_u32(0x2800 + u32::from(cell.dots)).unwrap_or('.'),
                false => cell.mark,
            };
            if let Some(target) = buffer.cell_mut((x, y)) {
                target.set_char(character).set_style(cell.style);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_by_hand() {
        let area = Rect::new(0, 0, 2, 1);
        let mut buffer = Buffer::empty(area);
        let mut dots = Dots::new(area, true);
        assert_eq!((dots.width(), dots.height()), (4, 4));
        dots.set(0, 0, '*', Style::new());
        dots.column(1, 3, 2, '*', Style::new());
        dots.set(3, 3, '*', Style::new());
        dots.set(4, 0, '*', Style::new());
        dots.set(0, 4, '*', Style::new());
        dots.render(area, &mut buffer);
        assert_eq!(buffer, Buffer::with_lines(["⢡⢀"]));
        let mut buffer = Buffer::empty(area);
        let mut dots = Dots::new(area, false);
        assert_eq!((dots.width(), dots.height()), (2, 1));
        dots.set(1, 0, '*', Style::new());
        dots.render(area, &mut buffer);
        assert_eq!(buffer, Buffer::with_lines([" *"]));
    }
}
