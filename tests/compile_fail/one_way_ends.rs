//! An end goes one way only, and does not lead back to the channel of two.

use oxigo::{Chan, unbuffered};

fn main() {
    let (tx, rx) = unbuffered::<u8>();
    let _ = tx.recv();
    let _ = rx.send(1);
    let _ = rx.close();
    let _: Chan<u8> = tx.into();
    let _: Chan<u8> = rx.into();
}
