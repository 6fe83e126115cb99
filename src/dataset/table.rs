//! A compressed table: rows by column name, and what was wrong with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::DatasetError;

/// Faults that are named one by one; the rest is counted.
pub const NAMED_FAULTS: usize = 50;

/// A cell or a row that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub file: String,
    /// From 1; the header is line 1.
    pub line: u64,
    /// Empty where the whole row is meant.
    pub column: String,
    pub value: String,
    pub why: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, line) = (&self.file, self.line);
        if self.column.is_empty() {
            return write!(f, "{file} line {line}: {}", self.why);
        }
        write!(
            f,
            "{file} line {line}, {} = {:?}: {}",
            self.column, self.value, self.why
        )
    }
}

/// What could not be read.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The first [`NAMED_FAULTS`].
    pub named: Vec<Fault>,
    /// All of them.
    pub count: u64,
    /// Rows that were left out.
    pub rows_skipped: u64,
}

impl Faults {
    /// Notes one.
    pub fn add(&mut self, fault: Fault) {
        self.count += 1;
        if self.named.len() < NAMED_FAULTS {
            self.named.push(fault);
        }
    }
}

/// A table that is read row by row.
pub struct Table {
    path: PathBuf,
    name: String,
    columns: BTreeMap<String, usize>,
    reader: csv::Reader<Box<dyn Read>>,
}

/// One row, with what is needed to name a fault in it.
pub struct Row<'a> {
    name: &'a str,
    line: u64,
    columns: &'a BTreeMap<String, usize>,
    cells: &'a csv::StringRecord,
    faults: &'a mut Faults,
}

impl Table {
    /// Opens `path`; `.zst` is decompressed on the way.
    ///
    /// # Errors
    /// [`DatasetError::Table`] if it cannot be opened or has no header.
    pub fn open(path: &Path) -> Result<Table, DatasetError> {
        let fail = |e: std::io::Error| DatasetError::Table(path.to_owned(), e);
        let file = File::open(path).map_err(fail)?;
        let bytes: Box<dyn Read> = if path.extension().is_some_and(|e| e == "zst") {
            Box::new(zstd::stream::Decoder::new(file).map_err(fail)?)
        } else {
            Box::new(std::io::BufReader::new(file))
        };
        // A carriage return before it goes with the blanks around the last cell; left to the reader, it would count
        // the line's end to the next record.
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .terminator(csv::Terminator::Any(b'\n'))
            .from_reader(bytes);
        let header = reader
            .headers()
            .map_err(|e| fail(std::io::Error::other(e)))?;
        let columns = header
            .iter()
            .enumerate()
            .map(|(at, name)| (name.trim_start_matches('\u{feff}').trim().to_owned(), at))
            .collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Table {
            path: path.to_owned(),
            name: name.into_owned(),
            columns,
            reader,
        })
    }

    /// Calls `each` for every row; where it returns `None` the row is counted as left out. A row that is
    /// no row (not UTF-8, a broken quote) is named and left out, too.
    ///
    /// # Errors
    /// [`DatasetError::Table`] if the file itself cannot be read to its end.
    pub fn each<T>(
        &mut self,
        faults: &mut Faults,
        mut each: impl FnMut(&mut Row<'_>) -> Option<T>,
    ) -> Result<Vec<T>, DatasetError> {
        let mut cells = csv::StringRecord::new();
        let mut made = Vec::new();
        loop {
            let line = self.reader.position().line();
            match self.reader.read_record(&mut cells) {
                Ok(false) => return Ok(made),
                Ok(true) if cells.len() == 1 && cells[0].trim().is_empty() => continue,
                Ok(true) => {}
                Err(e) if e.is_io_error() => {
                    return Err(DatasetError::Table(
                        self.path.clone(),
                        std::io::Error::other(e),
                    ));
                }
                Err(e) => {
                    faults.rows_skipped += 1;
                    faults.add(Fault {
                        file: self.name.clone(),
                        line,
                        column: String::new(),
                        value: String::new(),
                        why: e.to_string(),
                    });
                    continue;
                }
            }
            let mut row = Row {
                name: &self.name,
                line,
                columns: &self.columns,
                cells: &cells,
                faults,
            };
            match each(&mut row) {
                Some(value) => made.push(value),
                None => faults.rows_skipped += 1,
            }
        }
    }
}

impl Row<'_> {
    /// The cell's text; `None` where the column is missing or the cell is empty (or Ergast's `\N`).
    pub fn text(&self, column: &str) -> Option<&str> {
        let text = self.cells.get(*self.columns.get(column)?)?.trim();
        let empty = text.is_empty() || text == "\\N" || text == "nan" || text == "NaN";
        (!empty).then_some(text)
    }

    /// Names a cell that makes no sense.
    pub fn fault(&mut self, column: &str, why: &str) {
        let value = self.text(column).unwrap_or("").to_owned();
        self.faults.add(Fault {
            file: self.name.to_owned(),
            line: self.line,
            column: column.to_owned(),
            value,
            why: why.to_owned(),
        });
    }

    /// A finite number.
    pub fn number(&mut self, column: &str) -> Option<f64> {
        let value = self.text(column)?.parse::<f64>();
        match value {
            Ok(v) if v.is_finite() => Some(v),
            _ => {
                self.fault(column, "not a number");
                None
            }
        }
    }

    /// A finite number within `range`.
    pub fn within(&mut self, column: &str, range: std::ops::RangeInclusive<f64>) -> Option<f64> {
        let value = self.number(column)?;
        if range.contains(&value) {
            return Some(value);
        }
        self.fault(column, "out of range");
        None
    }

    /// A whole number; `7.0` counts as 7.
    pub fn whole<T: TryFrom<i64>>(&mut self, column: &str) -> Option<T> {
        let value = self.number(column)?;
        let whole = if value.fract() == 0.0 && value.abs() < 1e15 {
            T::try_from(value as i64).ok()
        } else {
            None
        };
        if whole.is_none() {
            self.fault(column, "not a whole number that fits");
        }
        whole
    }

    /// A whole number that the row cannot do without.
    pub fn key<T: TryFrom<i64>>(&mut self, column: &str) -> Option<T> {
        if self.text(column).is_none() {
            self.fault(column, "missing");
            return None;
        }
        self.whole(column)
    }

    /// `0`/`1`, `0.0`/`1.0`, `True`/`False`.
    pub fn flag(&mut self, column: &str) -> Option<bool> {
        match self.text(column)? {
            "1" | "1.0" | "True" | "true" | "TRUE" => Some(true),
            "0" | "0.0" | "False" | "false" | "FALSE" => Some(false),
            _ => {
                self.fault(column, "neither 0 nor 1");
                None
            }
        }
    }

    /// Anything that parses from text, such as a date.
    pub fn parsed<T: FromStr>(&mut self, column: &str) -> Option<T> {
        let value = self.text(column)?.parse().ok();
        if value.is_none() {
            self.fault(column, "cannot be read");
        }
        value
    }
}
