//! Operands of wrong types: the error points at the operand.

use oxigo::{select, unbuffered};

fn main() {
    let (tx, rx) = unbuffered::<u8>();
    select! { recv(tx) -> _ => {} }
    select! { send(rx, 1) -> _ => {} }
    select! { send(tx, "text") -> _ => {} }
    select! { default(5) => {} }
}
