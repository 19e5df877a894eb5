//! A goroutine may start on any worker: what it captures has to be `Send`.

use std::rc::Rc;

fn main() {
    let shared = Rc::new(1);
    oxigo::go(move || println!("{shared}"));
}
