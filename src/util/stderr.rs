//! Standard error, for those who cannot do anything about its not being writable: in a panic hook a panic would end the process.

use std::fmt;

/// Writes `text` as `eprint!` does, so that the harness of tests captures it, in one piece; where that cannot be written, it is lost.
pub(crate) fn print(text: &str) {
    eprint!("{}", Unheard(text));
}

/// Tells nobody of an error: `eprint!` panics only when what it prints reports one.
struct Unheard<'a>(&'a str);

impl fmt::Display for Unheard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = f.write_str(self.0);
        Ok(())
    }
}
