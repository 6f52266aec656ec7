//! Results of several measurements as a Markdown table and as a picture.

use std::path::Path;

use fornax_base::exit::Exit;
use fornax_base::files::{RealFs, write_atomic_bytes};
use fornax_train::monitor::picture::PictureError;
use fornax_train::monitor::plot::{Plot, png};

use super::super::report::{Failure, say};

/// Pixels of a picture.
const SIZE: (u32, u32) = (1200, 900);

/// A Markdown table whose columns are as wide as they must be; numbers stand to the right.
pub(super) fn markdown(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |i: usize| {
        let cells = rows.iter().map(|row| row[i].chars().count());
        cells.chain([heads[i].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:>width$} |"));
        format!("|{}\n", padded.collect::<String>())
    };
    let mut text = line(heads.iter().map(ToString::to_string).collect());
    text +=
        &format!("|{}\n", widths.iter().map(|width| format!("{}:|", "-".repeat(width + 1))).collect::<String>());
    rows.iter().fold(text, |text, row| text + &line(row.clone()))
}

/// Writes the picture of `plots`.
pub(super) fn draw(plots: &[Plot], path: &Path) -> Result<(), Failure> {
    let bytes = png(plots, SIZE.0, SIZE.1).map_err(|error: PictureError| Failure::new(Exit::Failed, error))?;
    write_atomic_bytes(&RealFs, path, &bytes).map_err(|error| Failure::new(Exit::BadInput, error))?;
    say(&format!("wrote {}\n", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["256".to_string(), "1,234.5".to_string()], vec!["4096".to_string(), "-".to_string()]];
        let expected = "\
| prompt | tok/s   |
";
        let table = markdown(&["prompt", "tok/s"], &rows);
        assert_eq!(table.lines().count(), 4);
        assert!(table.lines().all(|line| line.len() == expected.trim_end().len()), "{table}");
        assert!(table.ends_with("|   4096 |       - |\n"), "{table}");
    }
}
