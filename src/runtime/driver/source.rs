//! temp
pub(crate) struct Ready { pub(crate) read: bool, pub(crate) write: bool }
pub(crate) fn dispatch(_key: u64, ready: Ready) { let _ = (ready.read, ready.write); }
