//! The input files: what their names say about them, and the jobs they are cut into.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

use super::Options;
use super::documents::{Job, Work};
use super::fault::TextFault;
use super::lines::Lines;
use super::table::Table;
use super::text::Text;
use crate::error::{Error, Result};

/// All inputs as one row of jobs.
pub struct Inputs {
    files: std::vec::IntoIter<InputFile>,
    current: Option<Current>,
    /// Bytes of the files before the current one.
    done: u64,
    total: u64,
    column: Arc<str>,
    split_on: Option<String>,
}

struct InputFile {
    path: Arc<Path>,
    format: Format,
    bytes: u64,
}

struct Current {
    bytes: u64,
    path: Arc<Path>,
    reader: Reader,
    /// Whether there was a job.
    any: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text(Packing),
    Lines(Packing),
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

enum Reader {
    Text(Text),
    Lines(Lines),
    Table(Box<Table>),
}

impl Inputs {
    /// Looks at all files, but not into them.
    pub fn new(options: &Options) -> Result<Inputs> {
        let files = options.inputs.iter().map(|path| InputFile::new(path)).collect::<Result<Vec<_>>>()?;
        Ok(Inputs {
            total: files.iter().map(|file| file.bytes).sum(),
            files: files.into_iter(),
            current: None,
            done: 0,
            column: options.column.as_str().into(),
            split_on: options.split_on.clone(),
        })
    }

    /// Bytes of all files, as they are on disk.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    fn next_job(&mut self) -> Result<Option<Job>> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(file) = self.files.next() else { return Ok(None) };
                self.current = Some(file.open(&self.column, self.split_on.as_deref())?);
                continue;
            };
            if let Some(work) = current.reader.next()? {
                current.any = true;
                let input_bytes = self.done + current.reader.consumed().min(current.bytes);
                return Ok(Some(Job { input_bytes, work }));
            }
            if !current.any {
                return Err(Error::Text { path: current.path.to_path_buf(), fault: TextFault::Empty });
            }
            self.done += current.bytes;
            self.current = None;
        }
    }
}

impl Iterator for Inputs {
    type Item = Result<Job>;

    fn next(&mut self) -> Option<Result<Job>> {
        self.next_job().transpose()
    }
}

impl InputFile {
    fn new(path: &Path) -> Result<InputFile> {
        let fail = |fault| Err(Error::Text { path: path.to_path_buf(), fault });
        let metadata = path.metadata().map_err(Error::io("read", path))?;
        if !metadata.is_file() {
            return fail(TextFault::NotAFile);
        }
        match Format::of(path) {
            Some(format) => Ok(InputFile { path: path.into(), format, bytes: metadata.len() }),
            None => fail(TextFault::Unknown),
        }
    }

    fn open(self, column: &Arc<str>, split_on: Option<&str>) -> Result<Current> {
        let path = &self.path;
        let reader = match self.format {
            Format::Text(packing) => Reader::Text(Text::new(Stream::open(path, packing)?, split_on)),
            Format::Lines(packing) => Reader::Lines(Lines::new(Stream::open(path, packing)?, column)),
            Format::Parquet => Reader::Table(Box::new(Table::open(path, column)?)),
        };
        Ok(Current { bytes: self.bytes, path: self.path, reader, any: false })
    }
}

impl Reader {
    fn next(&mut self) -> Result<Option<Work>> {
        match self {
            Reader::Text(text) => text.next(),
            Reader::Lines(lines) => lines.next(),
            Reader::Table(table) => table.next(),
        }
    }

    /// Bytes of the file that were read so far.
    fn consumed(&self) -> u64 {
        match self {
            Reader::Text(text) => text.stream.consumed(),
            Reader::Lines(lines) => lines.stream.consumed(),
            Reader::Table(table) => table.consumed(),
        }
    }
}

impl Format {
    fn of(path: &Path) -> Option<Format> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let (name, packing) = match name.rsplit_once('.')? {
            (name, "gz") => (name, Packing::Gzip),
            (name, "zst") => (name, Packing::Zstd),
            _ => (name.as_str(), Packing::Plain),
        };
        match (name.rsplit_once('.')?.1, packing) {
            ("txt", packing) => Some(Format::Text(packing)),
            ("jsonl", packing) => Some(Format::Lines(packing)),
            ("parquet", Packing::Plain) => Some(Format::Parquet),
            _ => None,
        }
    }
}

/// An unpacked file.
pub struct Stream {
    pub path: Arc<Path>,
    pub reader: Box<dyn BufRead + Send>,
    consumed: Arc<AtomicU64>,
}

impl Stream {
    fn open(path: &Arc<Path>, packing: Packing) -> Result<Stream> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let consumed = Arc::new(AtomicU64::new(0));
        let file = Counting { file, consumed: consumed.clone() };
        let reader: Box<dyn BufRead + Send> = match packing {
            Packing::Plain => Box::new(BufReader::new(file)),
            Packing::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file)))),
            Packing::Zstd => {
                let decoder = zstd::Decoder::new(file).map_err(Error::io("read", path))?;
                Box::new(BufReader::new(decoder))
            }
        };
        Ok(Stream { path: path.clone(), reader, consumed })
    }

    /// A failure of reading or unpacking.
    pub fn io(&self) -> impl FnOnce(std::io::Error) -> Error + use<> {
        Error::io("read", &self.path)
    }

    /// A fault of the text.
    pub fn fault(&self, fault: TextFault) -> Error {
        Error::Text { path: PathBuf::from(&*self.path), fault }
    }

    fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }
}

/// Counts the bytes that are read of a file, below its unpacking.
struct Counting {
    file: File,
    consumed: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.consumed.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_the_format() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!(of("a/b c.txt"), Some(Format::Text(Packing::Plain)));
        assert_eq!(of("b.txt.zst"), Some(Format::Text(Packing::Zstd)));
        assert_eq!(of("x.y.JSONL.gz"), Some(Format::Lines(Packing::Gzip)));
        assert_eq!(of("x.jsonl"), Some(Format::Lines(Packing::Plain)));
        assert_eq!(of("x.parquet"), Some(Format::Parquet));
        for name in ["x", "x.json", "x.parquet.gz", "x.gz", "txt", "x.txt.bz2", ""] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
