//! The layers: arrows point down the table of ARCHITECTURE.md. Reads the sources as text.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(under: &str) -> Vec<(PathBuf, String)> {
    fn walk(path: &Path, found: &mut Vec<(PathBuf, String)>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(&entry.unwrap().path(), found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.to_owned(), fs::read_to_string(path).unwrap()));
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(under), &mut found);
    assert!(!found.is_empty(), "nothing below src/{under}");
    found
}

/// Lines of code in which `word` stands, comments left out.
fn uses(word: &str, under: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources(under) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(word) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn what_users_wait_with_knows_only_the_seam() {
    for room in ["chan", "select", "sync", "net", "time", "context", "future.rs"] {
        assert_eq!(uses("scheduler", room), [""; 0], "{room} reaches past runtime::park");
    }
}

#[test]
fn the_seam_knows_nothing_of_who_waits() {
    for above in ["chan::", "select::", "crate::sync"] {
        assert_eq!(uses(above, "runtime"), [""; 0], "`runtime` looks up");
    }
}

#[test]
fn stacks_and_coroutines_know_no_scheduler() {
    for room in ["stack", "coroutine.rs", "util", "facade"] {
        assert_eq!(uses("runtime::", room), [""; 0], "{room} looks up");
    }
}

#[test]
fn what_is_built_on_the_rest_is_free_of_unsafe() {
    for room in ["net", "time", "context"] {
        let all = sources(room);
        let root = all.iter().find(|(path, _)| path.ends_with(format!("{room}/mod.rs"))).unwrap();
        assert!(root.1.contains("#![forbid(unsafe_code)]"), "{room}");
    }
    for file in ["signal.rs", "local.rs", "future.rs"] {
        assert!(sources(file)[0].1.contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources("") {
        assert!(text.starts_with("//! "), "{} does not begin with what it is", path.display());
    }
}

/// What macros expand to is not public interface.
#[test]
fn every_public_function_says_whether_it_parks() {
    let mut silent = Vec::new();
    for (path, text) in sources("") {
        if path.ends_with("attributes.rs") || path.ends_with("select/macros.rs") {
            continue;
        }
        let mut said = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let function = ["pub fn ", "pub const fn ", "pub unsafe fn "].iter().any(|start| line.starts_with(start));
            said |= line == "/// # Blocking" || line == "#[doc(hidden)]";
            if function && !said {
                silent.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
            said &= !function && !line.is_empty();
        }
    }
    assert_eq!(silent, [""; 0], "without a section `# Blocking`");
}

#[test]
fn docs_name_every_file_with_unsafe_code() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/unsafe.md")).unwrap();
    let listed: Vec<_> = page.split('`').filter(|word| word.starts_with("src/") && word.ends_with(".rs")).collect();
    let has_unsafe = |text: &str| {
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        code.flat_map(str::split_whitespace).any(|word| word == "unsafe")
    };
    let mut found = Vec::new();
    for (path, text) in sources("") {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned();
        if has_unsafe(&text) {
            found.push(path);
        }
    }
    for path in &found {
        assert!(listed.contains(&path.as_str()), "{path} is not in docs/unsafe.md");
    }
    for path in listed {
        assert!(found.iter().any(|found| found == path), "{path} is in docs/unsafe.md and has no unsafe code");
    }
}

#[test]
fn contributing_lists_the_test_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let (_, list) = page.split_once("## Where the tests are").unwrap();
    let (list, _) = list.split_once("\n## ").unwrap();
    let files = list.lines().filter_map(|line| line.split('|').nth(2));
    // Between the names of files stand those of types.
    let mut listed: Vec<_> = files.flat_map(|files| files.split('`').skip(1).step_by(2)).collect();
    listed.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    listed.sort_unstable();
    found.sort_unstable();
    assert_eq!(listed, found, "CONTRIBUTING.md and the files below tests/");
}
