//! A scoped goroutine may outlive its closure's caller, not what is borrowed from within the scope.

fn main() {
    oxigo::scope(|s| {
        let inside = String::from("dropped before the goroutines end");
        s.go(|| println!("{inside}"));
    });
}
