//! What else a select must not do with a slot that its arms share.

use oxigo::{Sender, select, unbuffered};

struct Holder {
    slot: Option<u8>,
    tx: Sender<u8>,
}

impl Holder {
    fn sender(&self) -> &Sender<u8> {
        &self.tx
    }

    fn offer(&mut self, other: &Sender<u8>) {
        // A channel that is borrowed from what holds the slot.
        select! {
            send(other, from self.slot) -> _ => {}
            send(self.sender(), from self.slot) -> _ => {}
        }
    }
}

fn main() {
    let ((one, _rx), (two, _rx2)) = (unbuffered::<u8>(), unbuffered::<u8>());
    let mut slot = Some(1);
    // An operand that looks at the slot.
    select! {
        send(one, from slot) -> _ => {}
        send(if slot.is_some() { &one } else { &two }, from slot) -> _ => {}
    }
    // An operand that takes the value.
    select! {
        send(one, from slot) -> _ => {}
        send(two, from slot) -> _ => {}
        send(two, slot.take().unwrap()) -> _ => {}
    }
    // One that moves it.
    let (names, _names) = unbuffered::<String>();
    let mut name = Some(String::new());
    select! {
        send(names, from name) -> _ => {}
        send(names, from name) -> _ => {}
        send(names, name.unwrap()) -> _ => {}
    }
    // A slot that is lent to somebody else.
    let mut slot = Some(1);
    let borrowed = &slot;
    select! {
        send(one, from slot) -> _ => {}
        send(two, from slot) -> _ => {}
    }
    assert!(borrowed.is_some());
    // One slot twice that is no plain place.
    let mut slots = [Some(1)];
    select! {
        send(one, from slots[0]) -> _ => {}
        send(two, from slots[0]) -> _ => {}
    }
}
