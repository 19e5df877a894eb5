//! Arms of `select!` that stop short: each error points at the arm that lacks something.

use oxigo::{select, select_biased, unbuffered};

fn main() {
    let (tx, rx) = unbuffered::<u8>();

    // No `=>` and no body: alone, before a comma, before another arm.
    select! { recv(rx) -> value }
    select! { recv(rx) -> value, }
    select! { recv(rx) -> value, recv(rx) -> other => {} }
    select! {
        recv(rx) -> value
        send(tx, 1) -> _ => {}
    }
    select_biased! { recv(rx) -> value, default => {} }
    // No body after `=>`.
    select! { recv(rx) -> value => }
    select! { recv(rx) -> value =>, send(tx, 1) -> _ => {} }
    select! {
        recv(rx) -> value =>
        send(tx, 1) -> _ => {}
    }
    select! { default }
    select! { default => }
    select! { recv(rx) -> _ => {}, default }
    select! { default {} }
    // No `=>`.
    select! { recv(rx) -> _ => drop(1), default {} }
    select! { default(std::time::Duration::ZERO) {} }
    // No `->` and no pattern, in the second arm.
    select! { recv(rx) -> _ => drop(1), send(tx, 1) }
    select! { recv(rx) -> _ => drop(1), send(tx, 1) => {} }
    select! { recv(rx) -> _ => drop(1), send -> _ => {} }
    // No comma.
    select! {
        recv(rx) -> value => drop(value)
        send(tx, 1) -> _ => {}
    }
    // A slot is not borrowed.
    let mut slot = Some(1);
    select! { send(tx, from &mut slot) -> _ => {} }
}
