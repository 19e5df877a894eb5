//! Operands of wrong types: the error points at the operand.

use oxigo::{select, unbuffered};

fn main() {
    let (tx, rx) = unbuffered::<u8>();
    select! { recv(tx) -> _ => {} }
    select! { send(rx, 1) -> _ => {} }
    select! { send(tx, "text") -> _ => {} }
    // A slot holds an `Option`.
    let mut slot = 1;
    select! { send(tx, from slot) -> _ => {} }
    // A time is a `Duration`, also where the operand is more than a word.
    select! { default(5) => {} }
    select! {
        recv(rx) -> _ => {}
        default(2 * 5) => {}
    }
    // Channels that share a slot are of one type.
    let (wide, _wide) = unbuffered::<u16>();
    let mut slot = Some(1);
    select! {
        send(tx, from slot) -> _ => {}
        send(wide, from slot) -> _ => {}
    }
    // The arms of a select that is a value agree.
    let _: u8 = select! { recv(rx) -> value => value, default => 0 };
}
