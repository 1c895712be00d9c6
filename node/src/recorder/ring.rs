//! The ring of files: numbered, bounded in length and in number.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Limits, Line};

/// The recording's files in `dir`, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        found.extend(number(&path).map(|number| (number, path)));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn number(path: &Path) -> Option<u64> {
    if path.extension()?.to_str()? != "jsonl" {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

/// The newest file, open for writing.
pub(super) struct Ring {
    dir: PathBuf,
    header: serde_json::Value,
    limits: Limits,
    number: u64,
    bytes: u64,
    out: BufWriter<File>,
}

impl Ring {
    /// Begins a new file after the newest in `dir`. An agent that is restarted again and again must not push the
    /// recording of the incident out of the ring, so small files are joined instead of counted: see [`Self::start_file`].
    pub(super) fn open(dir: &Path, header: serde_json::Value, limits: Limits) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let newest = files(dir)?.last().and_then(|path| number(path)).unwrap_or(0);
        let file = dir.join(file_name(newest.max(1)));
        let out = OpenOptions::new().create(true).append(true).open(&file)?;
        let bytes = out.metadata()?.len();
        let mut ring = Self {
            dir: dir.to_owned(),
            header,
            limits,
            number: newest.max(1),
            bytes,
            out: BufWriter::new(out),
        };
        if bytes > 0 {
            // Ends a line that the last process may have left torn; an empty line is skipped by the reader.
            ring.write_line(b"")?;
        }
        ring.start_file(false)?;
        ring.flush()?;
        Ok(ring)
    }

    /// Appends one line; begins a new file when this one is full.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes >= self.limits.file_bytes {
            self.rotate()?;
        }
        self.write_line(line)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.out.write_all(line)?;
        self.out.write_all(b"\n")?;
        self.bytes += line.len() as u64 + 1;
        Ok(())
    }

    fn start_file(&mut self, resumed: bool) -> io::Result<()> {
        let line = serde_json::to_vec(&Line::<()>::Start { resumed, header: self.header.clone() })?;
        self.write_line(&line)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let next = self.number + 1;
        let file = OpenOptions::new().create(true).append(true).open(self.dir.join(file_name(next)))?;
        self.out = BufWriter::new(file);
        self.number = next;
        self.bytes = 0;
        let kept = files(&self.dir)?;
        let surplus = kept.len().saturating_sub(self.limits.files);
        for old in &kept[..surplus] {
            fs::remove_file(old)?;
        }
        self.start_file(true)
    }
}

fn file_name(number: u64) -> String {
    format!("{number:010}.jsonl")
}
