//! The input of a command: a file, or standard input.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;

use crate::interrupt::Interrupt;

/// The name of standard input, and of standard output, on the command line.
const DASH: &str = "-";
/// Bytes of one read.
const CHUNK: usize = 1 << 16;
/// Number of chunks that are read ahead from a pipe.
const CHUNKS_AHEAD: usize = 4;
/// Interval between two checks for an interrupt while a pipe has nothing to read.
const TICK: Duration = Duration::from_millis(50);

/// Whether a path names standard input or output.
pub(crate) fn is_dash(path: &Path) -> bool {
    path == Path::new(DASH)
}

/// An open input.
pub(crate) struct Input {
    /// Name of the input in errors.
    pub(crate) name: String,
    /// Size in bytes; `None` if it is not known, as of a pipe.
    pub(crate) size: Option<u64>,
    pub(crate) reader: BufReader<Box<dyn Read>>,
}

impl Input {
    /// Opens a file, or standard input for `-`. An interrupt ends a pipe that has nothing to read.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn open(path: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        if is_dash(path) {
            return Ok(Self::piped(
                "standard input".to_owned(),
                io::stdin(),
                interrupt,
            ));
        }
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| {
            anyhow!("cannot read {name}: {error}; write the path of a readable file, or -")
        })?;
        if !metadata.is_file() {
            return Ok(Self::piped(name, file, interrupt));
        }
        Ok(Self {
            name,
            size: Some(metadata.len()),
            reader: BufReader::with_capacity(CHUNK, Box::new(file)),
        })
    }

    fn piped(name: String, from: impl Read + Send + 'static, interrupt: &Interrupt) -> Self {
        let pipe = Pipe::start(from, interrupt.clone());
        Self {
            name,
            size: None,
            reader: BufReader::with_capacity(CHUNK, Box::new(pipe)),
        }
    }
}

/// A pipe that another thread reads, so that an interrupt ends the wait for its writer.
struct Pipe {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: io::Cursor<Vec<u8>>,
    interrupt: Interrupt,
}

impl Pipe {
    fn start(from: impl Read + Send + 'static, interrupt: Interrupt) -> Self {
        let (sender, chunks) = sync_channel(CHUNKS_AHEAD);
        thread::spawn(move || copy(from, &sender));
        Self {
            chunks,
            chunk: io::Cursor::default(),
            interrupt,
        }
    }
}

/// Reads until the end, an error, or until the receiver is gone.
fn copy(mut from: impl Read, chunks: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let outcome = match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => {
                chunk.truncate(count);
                Ok(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_last = outcome.is_err();
        if chunks.send(outcome).is_err() || is_last {
            return;
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.chunk.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            match self.chunks.recv_timeout(TICK) {
                Ok(chunk) => self.chunk = io::Cursor::new(chunk?),
                Err(RecvTimeoutError::Timeout) if self.interrupt.exit_code().is_none() => {}
                Err(_) => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let text = vec![b'x'; 3 * CHUNK + 1];
        let sent = text.clone();
        let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut read = Vec::new();
        Pipe::start(reader, Interrupt::default())
            .read_to_end(&mut read)
            .unwrap();
        assert!(read == text);
        writing.join().unwrap();
    }

    #[test]
    fn an_interrupt_ends_the_wait_for_a_writer() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"begun").unwrap();
        let interrupt = Interrupt::default();
        let mut pipe = Pipe::start(reader, interrupt.clone());
        let mut begun = [0; 5];
        pipe.read_exact(&mut begun).unwrap();
        interrupt.set(130);
        assert_eq!(pipe.read(&mut begun).unwrap(), 0);
        drop(writer);
    }

    #[test]
    fn an_error_names_the_file_once() {
        let missing = Input::open(Path::new("/nowhere/at/all.json"), &Interrupt::default());
        assert_eq!(
            shared::runtime::output::describe(&missing.err().unwrap()),
            "cannot read /nowhere/at/all.json: No such file or directory (os error 2); write the \
             path of a readable file, or -"
        );
    }
}
