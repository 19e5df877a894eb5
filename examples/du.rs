//! cargo run --release --example du -- [--root .] [--at-once 16] [--progress 500ms]
//!
//! Disk usage: how many files there are below some directories (one for each `--root`), and how many bytes they hold.
//! Every directory has a goroutine of its own, even if there are 100,000; a `Semaphore` lets so many of them read at once. File systems
//! block the thread that asks them, so the reading is done through `blocking`. Meanwhile the main goroutine adds up what comes in, and
//! shows where it stands at every tick. A file with two names counts twice.

mod common;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use oxigo::{Sender, blocking, chan, go, select, sync::Semaphore, unbuffered};

/// What one directory, or several, hold.
#[derive(Default)]
struct Usage {
    directories: u64,
    files: u64,
    bytes: u64,
}

impl Usage {
    fn add(&mut self, other: &Self) {
        self.directories += other.directories;
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directories, files, bytes } = self;
        write!(f, "{files} files in {directories} directories, {:.1} MB", *bytes as f64 / 1e6)
    }
}

/// Reads one directory: what it holds itself, and the directories in it. Symbolic links are not followed.
fn read(directory: &Path) -> io::Result<(Usage, Vec<PathBuf>)> {
    let mut usage = Usage { directories: 1, ..Usage::default() };
    let mut below = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // What was removed while we looked does not count.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            below.push(entry.path());
        } else {
            usage.files += 1;
            usage.bytes += metadata.len();
        }
    }
    Ok((usage, below))
}

/// Starts a goroutine that reads `directory` and starts others for those in it.
fn walk(directory: PathBuf, readers: Arc<Semaphore>, found: Sender<Usage>) {
    go(move || {
        let result = {
            // Given back at the end of this block: a goroutine that only hands on its result keeps nobody from reading.
            let _permit = readers.acquire(1);
            blocking(|| read(&directory))
        };
        match result {
            Ok((usage, below)) => {
                for directory in below {
                    walk(directory, Arc::clone(&readers), found.clone());
                }
                let _ = found.send(usage);
            }
            Err(error) => eprintln!("{}: {error}", directory.display()),
        }
    });
}

#[oxigo::main]
fn main() {
    let mut roots = Vec::new();
    let mut at_once = 16;
    let mut progress = Duration::from_millis(500);
    common::options("du [--root .]... [--at-once 16] [--progress 500ms]", |name, value| {
        match name {
            "--root" => roots.push(PathBuf::from(value)),
            "--at-once" => match value.parse::<usize>() {
                Ok(n) if n > 0 => at_once = n,
                _ => return Err(format!("{value} is not a number of readers")),
            },
            "--progress" => progress = common::duration(value)?,
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    });
    if roots.is_empty() {
        roots.push(".".into());
    }

    let readers = Arc::new(Semaphore::new(at_once));
    let (found, usages) = unbuffered();
    for root in roots {
        walk(root, Arc::clone(&readers), found.clone());
    }
    // From here on only the walking goroutines hold senders. The last one that ends closes the channel: no count of them is needed.
    drop(found);

    let mut total = Usage::default();
    let ticks = chan::tick(progress);
    loop {
        select! {
            recv(usages) -> usage => match usage {
                Ok(usage) => total.add(&usage),
                Err(_) => break,
            },
            recv(ticks) -> _ => eprintln!("... {total}"),
        }
    }
    println!("{total}");
}
