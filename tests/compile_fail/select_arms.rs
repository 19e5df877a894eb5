//! Mistakes in the arms of `select!`: each error points at the arm and says what was expected.

use oxigo::{select, select_biased, unbuffered};

fn main() {
    let (tx, rx) = unbuffered::<u8>();

    // Not an operation.
    select! { receive(rx) -> value => {} }
    // Not the beginning of an arm.
    select! { value = recv(rx) => {} }
    // No operands.
    select! { recv -> value => {} }
    // No receiver, and one too many.
    select! { recv() -> value => {} }
    select! { recv(rx, tx) -> value => {} }
    // No value.
    select! { send(tx) -> result => {} }
    // No slot.
    select! { send(tx, from) -> result => {} }
    // No pattern.
    select! { recv(rx) => {} }
    select! { recv(rx) -> => {} }
    // No body, in the second arm.
    select! {
        recv(rx) -> _ => {}
        send(tx, 1) -> _
    }
    select_biased! { recv(rx) -> _ =>, default => {} }
    // A pattern for `default`, and two of them.
    select! { default -> value => {} }
    select! {
        default => {}
        default(std::time::Duration::ZERO) => {}
    }
}
