//! Files through the blocking pool.

mod common;

use std::{
    env,
    io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    process,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use common::{at_1_2_4, rt};
use oxigo::{
    fs::{self, File, OpenOptions},
    go, scope,
};

/// A directory of its own, removed afterwards.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("oxigo-test-fs-{}-{}", process::id(), COUNT.fetch_add(1, SeqCst));
        let path = env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn whole_files() {
    at_1_2_4(|| {
        let dir = Dir::new();
        let path = dir.0.join("a");
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(fs::copy(&path, dir.0.join("b")).unwrap(), 8);
        fs::rename(dir.0.join("b"), dir.0.join("c")).unwrap();
        assert_eq!(fs::metadata(dir.0.join("c")).unwrap().len(), 8);
        fs::remove_file(dir.0.join("c")).unwrap();
        assert!(!fs::exists(dir.0.join("c")).unwrap());
        assert_eq!(fs::read(dir.0.join("c")).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn files_read_write_and_seek() {
    at_1_2_4(|| {
        let dir = Dir::new();
        let path = dir.0.join("file");
        let mut file = File::create_new(&path).unwrap();
        assert_eq!(File::create_new(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        for n in 0..10 {
            writeln!(file, "line {n}").unwrap();
        }
        file.seek(SeekFrom::Start(5)).unwrap();
        let mut byte = [0];
        file.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"0");
        assert_eq!(file.seek(SeekFrom::End(-2)).unwrap(), 68);
        file.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"9");
        assert_eq!(file.read_at(&mut byte, 5).unwrap(), 1);
        file.write_at(b"L", 0).unwrap();
        file.set_len(7).unwrap();
        file.sync_all().unwrap();
        let lines: Vec<_> = BufReader::new(File::open(&path).unwrap()).lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["Line 0"]);
        let mut end = OpenOptions::new().append(true).open(&path).unwrap();
        end.write_all(b"end").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"Line 0\nend");
    });
}

#[test]
fn files_are_read_and_written_whole_at_a_place() {
    at_1_2_4(|| {
        let dir = Dir::new();
        let path = dir.0.join("file");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all(b"0123456789").unwrap();
        file.write_all_at(b"abc", 2).unwrap();
        file.write_all(b"end").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"01abc56789end", "its own place was not moved");
        let mut read = [0; 4];
        file.read_exact_at(&mut read, 1).unwrap();
        assert_eq!(&read, b"1abc");
        assert_eq!(file.read_exact_at(&mut read, 10).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(file.stream_position().unwrap(), 13);
    });
}

#[test]
fn a_symbolic_link_leads_where_it_says() {
    at_1_2_4(|| {
        let dir = Dir::new();
        let link = dir.0.join("link");
        fs::symlink("file", &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), PathBuf::from("file"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&link).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(dir.0.join("file"), "behind it").unwrap();
        assert_eq!(fs::read(&link).unwrap(), b"behind it");
        assert_eq!(fs::symlink("file", &link).unwrap_err().kind(), ErrorKind::AlreadyExists);
    });
}

/// Many at once, on one worker: each writes its own file and reads it back.
#[test]
fn many_goroutines_at_once() {
    rt(1, || {
        let dir = Dir::new();
        scope(|s| {
            for n in 0..100 {
                let path = dir.0.join(n.to_string());
                s.go(move || {
                    fs::write(&path, n.to_string()).unwrap();
                    assert_eq!(fs::read_to_string(&path).unwrap(), n.to_string());
                });
            }
        });
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 100);
    });
}

/// More entries than one batch, and a tree.
#[test]
fn directories_are_read_and_walked() {
    at_1_2_4(|| {
        let dir = Dir::new();
        fs::create_dir_all(dir.0.join("x/y/z")).unwrap();
        for n in 0..600 {
            std::fs::write(dir.0.join("x/y").join(n.to_string()), "").unwrap();
        }
        std::fs::write(dir.0.join("x/y/z/last"), "four").unwrap();
        std::os::unix::fs::symlink(&dir.0, dir.0.join("x/loop")).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.0.join("x/y")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 601);
        let all: Vec<_> = fs::walk(&dir.0).map(|entry| entry.unwrap()).collect();
        assert_eq!(all.len(), 2 + 601 + 1 + 1, "x, loop, what is in y, last, and y");
        let last = all.iter().find(|entry| entry.file_name() == "last").unwrap();
        assert_eq!(last.metadata().unwrap().len(), 4);
        let place = |name: &str| all.iter().position(|entry| entry.file_name() == name).unwrap();
        assert!(place("x") < place("y") && place("z") < place("last"), "a directory comes before what is in it");
        let mut missing = fs::walk(dir.0.join("missing"));
        assert_eq!(missing.next().unwrap().unwrap_err().kind(), ErrorKind::NotFound);
        assert!(missing.next().is_none());
    });
}

/// One worker: a file that takes for ever (a FIFO without a writer) holds nobody else.
#[test]
fn a_slow_file_holds_nobody_else() {
    rt(1, || {
        let dir = Dir::new();
        let path = dir.0.join("fifo");
        assert!(process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let slow = {
            let path = path.clone();
            go(move || fs::read_to_string(path).unwrap())
        };
        assert_eq!(go(|| 7).join().unwrap(), 7);
        assert!(!slow.is_finished());
        fs::write(&path, "at last").unwrap();
        assert_eq!(slow.join().unwrap(), "at last");
    });
}
