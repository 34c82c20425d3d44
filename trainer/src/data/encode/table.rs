//! Parquet files: one column, a document a row.

use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::documents::{JOB_BYTES, Texts, Work};
use super::fault::TextFault;
use crate::error::{Error, Result};

/// Rows that are read at a time.
const ROWS: usize = 32;

/// The documents of a column, row group by row group.
pub struct Table {
    path: Arc<Path>,
    column: Arc<str>,
    reader: SerializedFileReader<File>,
    /// Index of the column among the leaves of the schema.
    index: usize,
    /// Level of a value that is there: 0 where the column cannot be null.
    max_level: i16,
    row_groups: std::ops::Range<usize>,
    current: Option<Current>,
    /// Rows that were handed out.
    row: u64,
    bytes: u64,
}

struct Current {
    reader: ColumnReaderImpl<ByteArrayType>,
    /// Rows still to come.
    rows: u64,
}

impl Table {
    /// Opens a file and looks for the column in its schema.
    pub fn open(path: &Arc<Path>, column: &Arc<str>) -> Result<Table> {
        guarded(path, || Table::open_unguarded(path, column))
    }

    /// The next documents; none at the end.
    pub fn next(&mut self) -> Result<Option<Work>> {
        let path = self.path.clone();
        guarded(&path, || self.next_unguarded())
    }

    fn open_unguarded(path: &Arc<Path>, column: &Arc<str>) -> Result<Table> {
        let fail = |fault| Error::Text { path: path.to_path_buf(), fault };
        let file = File::open(path).map_err(Error::io("read", path))?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len();
        let reader = SerializedFileReader::new(file).map_err(|error| fail(fault(error)))?;
        let metadata = reader.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let index = schema.columns().iter().position(|leaf| leaf.path().string() == **column).ok_or_else(|| {
            let found = schema.columns().iter().map(|leaf| leaf.path().string()).collect();
            fail(TextFault::NoColumn { column: column.to_string(), found })
        })?;
        let leaf = schema.column(index);
        if leaf.physical_type() != Type::BYTE_ARRAY || leaf.max_rep_level() > 0 {
            let kind = leaf.physical_type();
            let found = if leaf.max_rep_level() > 0 { format!("lists of {kind}") } else { kind.to_string() };
            return Err(fail(TextFault::NotTexts { column: column.to_string(), found }));
        }
        Ok(Table {
            path: path.clone(),
            column: column.clone(),
            index,
            max_level: leaf.max_def_level(),
            row_groups: 0..metadata.num_row_groups(),
            current: None,
            row: 0,
            bytes,
            reader,
        })
    }

    fn next_unguarded(&mut self) -> Result<Option<Work>> {
        let mut texts = Texts::default();
        while texts.len() < JOB_BYTES {
            if self.current.is_none() && !self.open_row_group()? {
                break;
            }
            self.read_rows(&mut texts)?;
        }
        Ok((!texts.is_empty()).then_some(Work::Texts(texts)))
    }

    /// Bytes of the file that were read, as well as rows can tell.
    pub fn consumed(&self) -> u64 {
        let rows = self.reader.metadata().file_metadata().num_rows().max(1);
        (self.bytes as f64 * (self.row as f64 / rows as f64)) as u64
    }

    fn open_row_group(&mut self) -> Result<bool> {
        let Some(group) = self.row_groups.next() else { return Ok(false) };
        let group = self.reader.get_row_group(group).map_err(|error| self.fail(fault(error)))?;
        let rows = group.metadata().num_rows().max(0) as u64;
        let reader = group.get_column_reader(self.index).map_err(|error| self.fail(fault(error)))?;
        let ColumnReader::ByteArrayColumnReader(reader) = reader else {
            return Err(self.fail(TextFault::Parquet("a row group has another type than the schema".into())));
        };
        self.current = Some(Current { reader, rows });
        Ok(true)
    }

    /// Appends some rows of the row group, and closes it at its end.
    fn read_rows(&mut self, texts: &mut Texts) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let mut levels = Vec::new();
        let mut values = Vec::new();
        let want = current.rows.min(ROWS as u64);
        let read = current.reader.read_records(want as usize, Some(&mut levels), None, &mut values);
        current.rows -= want;
        if current.rows == 0 {
            self.current = None;
        }
        let (rows, ..) = read.map_err(|error| self.fail(fault(error)))?;
        if rows as u64 != want {
            return Err(self.fail(TextFault::Parquet("a row group ends before its last row".into())));
        }
        let mut values = values.into_iter();
        for i in 0..rows {
            let present = self.max_level == 0 || levels.get(i) == Some(&self.max_level);
            let value = if present { values.next() } else { None };
            self.document(value, texts)?;
        }
        Ok(())
    }

    fn document(&mut self, value: Option<ByteArray>, texts: &mut Texts) -> Result<()> {
        let row = |what| TextFault::Row { row: self.row, column: self.column.to_string(), what };
        let value = value.ok_or_else(|| self.fail(row("null")))?;
        let text = str::from_utf8(value.data()).map_err(|_| self.fail(row("not UTF-8")))?;
        texts.start_document();
        texts.push(text);
        self.row += 1;
        Ok(())
    }

    fn fail(&self, fault: TextFault) -> Error {
        Error::Text { path: self.path.to_path_buf(), fault }
    }
}

/// The library uses some numbers of a file without looking at them first: where they are wrong it panics. That is a fault
/// of the file, not of the program.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let fault = TextFault::Parquet("it contradicts itself".into());
        Err(Error::Text { path: path.to_path_buf(), fault })
    })
}

fn fault(error: ParquetError) -> TextFault {
    TextFault::Parquet(error.to_string())
}
