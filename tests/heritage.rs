//! What goroutines inherit from those that start them: labels and ancestors, and how dumps show them.

mod common;

use std::time::{Duration, Instant};

use common::{at_1_2_4, rt};
use oxigo::{Runtime, WaitGroup, debug, go, unbuffered};

/// Dumps until `found` likes one: what was just started may not wait yet.
#[track_caller]
fn dump_until(found: impl Fn(&str) -> bool) -> String {
    let begin = Instant::now();
    loop {
        let mut text = Vec::new();
        debug::dump(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        if found(&text) {
            return text;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{text}");
        oxigo::time::sleep(Duration::from_millis(5));
    }
}

#[test]
fn dg_04_labels_are_inherited_and_end_with_their_guard() {
    at_1_2_4(|| {
        assert_eq!(debug::label_value("user"), None);
        let user = debug::label("user", "kim");
        let (see, seen) = oxigo::bounded(8);
        go({
            let see = see.clone();
            move || {
                see.send(debug::label_value("user")).unwrap();
                // A child's own value is its own and its children's.
                let _inner = debug::label("user", "lee");
                let _more = debug::label("step", "2");
                go({
                    let see = see.clone();
                    move || see.send(debug::label_value("user")).unwrap()
                })
                .join()
                .unwrap();
                drop(_inner);
                see.send(debug::label_value("user")).unwrap();
            }
        })
        .join()
        .unwrap();
        assert_eq!(debug::label_value("step"), None);
        let kim = Some("kim".to_owned());
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [kim.clone(), Some("lee".into()), kim.clone()]);

        // A goroutine keeps what it was started with.
        let (go_on, wait) = unbuffered::<()>();
        let keeps = go(move || {
            wait.recv().unwrap_err();
            debug::label_value("user")
        });
        drop(user);
        assert_eq!(debug::label_value("user"), None);
        assert_eq!(go(|| debug::label_value("user")).join().unwrap(), None);
        drop(go_on);
        assert_eq!(keeps.join().unwrap(), kim);

        // WaitGroup, scope and nested values.
        let _user = debug::label("user", "a");
        {
            let _user = debug::label("user", "b");
            oxigo::scope(|s| s.go(|| assert_eq!(debug::label_value("user").as_deref(), Some("b"))).join().unwrap());
        }
        let group = WaitGroup::new();
        group.go(|| assert_eq!(debug::label_value("user").as_deref(), Some("a")));
        group.wait();
    });
}

/// Guards are values, and may be dropped in any order: the last label of a key that is left counts.
#[test]
fn dg_04_labels_are_taken_away_in_any_order() {
    rt(1, || {
        let value = |key| debug::label_value(key);
        let (first, other) = (debug::label("k", "1"), debug::label("j", "3"));
        let second = debug::label("k", "2");
        drop(first);
        assert_eq!(value("k").as_deref(), Some("2"));
        let third = debug::label("k", "4");
        assert_eq!(value("k").as_deref(), Some("4"));
        let inherits = go(|| (debug::label_value("k"), debug::label_value("j")));
        assert_eq!(inherits.join().unwrap(), (Some("4".into()), Some("3".into())));
        drop(third);
        assert_eq!(value("k").as_deref(), Some("2"));
        drop((second, other));
        assert_eq!((value("k"), value("j")), (None, None));
    });
}

#[test]
fn dg_04_labels_of_a_thread_pass_to_what_it_starts() {
    let _label = debug::label("thread", "yes");
    assert_eq!(go(|| debug::label_value("thread")).join().unwrap().as_deref(), Some("yes"));
    assert_eq!(rt(2, || debug::label_value("thread")).as_deref(), Some("yes"));
    assert_eq!(std::thread::spawn(|| debug::label_value("thread")).join().unwrap(), None);
}

#[test]
fn dg_04_dumps_show_labels_and_keep_different_ones_apart() {
    rt(2, || {
        let (tx, rx) = unbuffered::<()>();
        let mut waiting = Vec::new();
        for path in ["/a", "/b", "/b"] {
            let _path = debug::label("path", path);
            let _kind = debug::label("kind", "labelled");
            let rx = rx.clone();
            waiting.push(go(move || rx.recv().is_err()));
        }
        let text = dump_until(|text| {
            let blocks: Vec<_> =
                text.split("\n\n").filter(|block| block.contains("kind=labelled}: chan receive")).collect();
            blocks.len() == 2 && blocks[1].contains("and 1 more like it")
        });
        assert!(
            text.contains(&format!("goroutine {} {{path=/a, kind=labelled}}: chan receive on 0x", waiting[0].id())),
            "{text}"
        );
        assert!(
            text.contains(&format!("goroutine {} {{path=/b, kind=labelled}}: chan receive on 0x", waiting[1].id())),
            "{text}"
        );
        drop(tx);
        assert!(waiting.into_iter().all(|handle| handle.join().unwrap()));
    });
}

#[test]
fn dg_03_ancestors_are_kept_as_deep_as_asked_for() {
    let runtime = Runtime::builder().workers(2).ancestors(2).build().unwrap();
    runtime.run(|| {
        let (tx, rx) = unbuffered::<()>();
        let great = go(move || {
            let grand = go(move || {
                let parent = go(move || {
                    let child =
                        oxigo::Builder::new().name("youngest".into()).spawn(move || rx.recv().is_err()).unwrap();
                    (child, oxigo::current().id())
                });
                (parent.join().unwrap(), oxigo::current().id())
            });
            grand.join().unwrap()
        });
        let great_id = great.id();
        let ((child, parent), grand) = great.join().unwrap();
        let text = dump_until(|text| text.contains("[youngest]: chan receive"));
        let entry = &text[text.find("[youngest]").unwrap()..];
        let entry = &entry[..entry.find("\n\n").unwrap()];
        let lines: Vec<_> = entry.lines().skip(1).take(4).map(str::trim).collect();
        assert!(lines[0].starts_with("started at tests/heritage.rs:"), "{entry}");
        assert!(lines[1].starts_with(&format!("by goroutine {parent}, started at tests/heritage.rs:")), "{entry}");
        assert!(lines[2].starts_with(&format!("by goroutine {grand}, started at tests/heritage.rs:")), "{entry}");
        assert!(!entry.contains(&format!("by goroutine {great_id},")), "{entry}");
        drop(tx);
        assert!(child.join().unwrap());
    });
}
