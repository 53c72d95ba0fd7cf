//! Answers on standard output: for people, or in etcdctl's formats.
//!
//! Each kind of answer implements [`Show`]; [`Out`] picks the form that was asked for and writes it.
//! Nothing else writes to standard output.

pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod table;
pub(crate) mod text;

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

use crate::failure::Failure;
use fields::Fields;
use table::Rows;

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people: aligned columns, sizes and times with units
    Human,
    /// As etcdctl: one item a line
    Simple,
    /// As etcdctl: every field with its name
    Fields,
    /// As etcdctl: one JSON object, keys and values in base64
    Json,
    /// Lists in a frame
    Table,
}

/// An answer that can be written in every form.
pub(crate) trait Show {
    /// The answer for people; lists leave this to their rows.
    fn human(&self, page: &mut Page);

    /// The answer as etcdctl's default form.
    fn simple(&self, page: &mut Page);

    /// The answer as named fields.
    fn fields(&self) -> Fields;

    /// The answer as JSON, with etcdctl's names.
    fn json(&self) -> impl Serialize;

    /// The answer as a list, if it is one.
    fn rows(&self, _style: Style) -> Option<Rows> {
        None
    }
}

/// How bytes and lines are to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Keys and values in hexadecimal.
    pub(crate) hex: bool,
    /// Columns of the terminal that reads this; `None`: a file or a pipe, which gets everything.
    pub(crate) width: Option<u16>,
}

/// Text that is being put together.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) style: Style,
    bytes: Vec<u8>,
}

/// Standard output.
pub(crate) struct Out {
    format: Format,
    style: Style,
    sink: Box<dyn Write + Send>,
}

impl Out {
    pub(crate) fn stdout(format: Format, hex: bool) -> Self {
        let stdout = io::stdout();
        // The table's library knows how to ask the terminal; 0 columns means that it did not say.
        let width = stdout.is_terminal().then(table::terminal_width).flatten();
        Self {
            format,
            style: Style { hex, width },
            sink: Box::new(stdout),
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Refuses `-w table` for what is not a list, before anything is done.
    pub(crate) fn no_table(&self, command: &str) -> Result<(), Failure> {
        if self.format == Format::Table {
            return Err(Failure::usage(format!(
                "{command} has no table; choose another --write-out"
            )));
        }
        Ok(())
    }

    /// Writes an answer.
    pub(crate) fn show(&mut self, answer: &impl Show) -> Result<(), Failure> {
        let mut page = Page {
            style: self.style,
            bytes: Vec::new(),
        };
        match self.format {
            Format::Human => match answer.rows(self.style) {
                Some(rows) => page.text(&rows.plain(self.style.width)),
                None => answer.human(&mut page),
            },
            Format::Simple => answer.simple(&mut page),
            Format::Fields => page.text(&answer.fields().to_string()),
            Format::Json => {
                let json = serde_json::to_string(&answer.json());
                page.line(json.map_err(Failure::failed)?);
            }
            Format::Table => match answer.rows(self.style) {
                Some(rows) => page.text(&rows.framed()),
                None => answer.human(&mut page),
            },
        }
        self.write(&page.bytes)
    }

    /// Writes a line as it is, in every format.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<(), Failure> {
        let mut page = Page {
            style: self.style,
            bytes: Vec::new(),
        };
        page.line(line);
        self.write(&page.bytes)
    }

    /// Writes bytes as they are and pushes them out, so that a reader at the other end of a pipe
    /// sees each answer when it is there.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.sink.write_all(bytes).and_then(|()| self.sink.flush());
        written.map_err(|err| Failure::output(&err))
    }
}

impl Page {
    /// Adds a line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.bytes.extend_from_slice(line.as_ref().as_bytes());
        self.bytes.push(b'\n');
    }

    /// Adds text that ends its own lines.
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Adds a key or a value as a line of its own, byte for byte unless `--hex` is given.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if self.style.hex {
            return self.line(text::hex(bytes));
        }
        self.bytes.extend_from_slice(bytes);
        self.bytes.push(b'\n');
    }
}

impl Style {
    /// A key or a value inside a line for people.
    pub(crate) fn shown(self, bytes: &[u8]) -> String {
        if self.hex {
            text::hex(bytes)
        } else {
            text::escape(bytes)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer as each format writes it.
    pub(crate) fn written(answer: &impl Show, format: Format, hex: bool) -> String {
        use std::sync::{Arc, Mutex};

        #[derive(Clone)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink(Arc::default());
        let style = Style { hex, width: None };
        let mut out = Out {
            format,
            style,
            sink: Box::new(sink.clone()),
        };
        out.show(answer).unwrap();
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }
}
