//! Lists: aligned columns for people, or etcdctl's frame.

use comfy_table::{Cell, ContentArrangement, Table, presets};

/// A list with a heading for each column.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) heads: &'static [&'static str],
    pub(crate) rows: Vec<Vec<String>>,
}

impl Rows {
    /// Columns without lines. A row that is wider than the terminal is cut there: the columns stay
    /// readable, and a pipe gets all of it.
    pub(crate) fn plain(&self, width: Option<u16>) -> String {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.heads);
        for row in &self.rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut out = String::new();
        for line in table.lines() {
            let line = line.trim_end();
            match width {
                Some(width) => out.push_str(&cut(line, width.into())),
                None => out.push_str(line),
            }
            out.push('\n');
        }
        out
    }

    /// Columns in a frame.
    pub(crate) fn framed(&self) -> String {
        let mut table = Table::new();
        table
            .load_preset("||--+-++|    ++++++")
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(self.heads.iter().map(|head| Cell::new(head.to_uppercase())));
        for row in &self.rows {
            table.add_row(row);
        }
        format!("{table}\n")
    }
}

/// Columns of the terminal at standard output, if it says.
pub(crate) fn terminal_width() -> Option<u16> {
    Table::new().width()
}

/// The first `width` characters, the last of them an ellipsis if there were more.
fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width || width < 2 {
        return line.to_owned();
    }
    line.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Rows {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        Rows {
            heads: &["KEY", "VALUE"],
            rows: vec![row("a", "1"), row("longer", "two words")],
        }
    }

    #[test]
    fn columns_are_aligned_and_end_with_the_text() {
        assert_eq!(
            list().plain(None),
            "KEY     VALUE\na       1\nlonger  two words\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_lines() {
        assert_eq!(
            list().plain(Some(11)),
            "KEY     VA…\na       1\nlonger  tw…\n"
        );
    }

    #[test]
    fn a_frame_has_lines() {
        assert_eq!(
            list().framed(),
            "+--------+-----------+\n\
             | KEY    | VALUE     |\n\
             +--------+-----------+\n\
             | a      | 1         |\n\
             | longer | two words |\n\
             +--------+-----------+\n"
        );
    }
}
