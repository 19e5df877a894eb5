//! What several examples need: options, durations, the descriptor limit.
#![allow(dead_code, reason = "each example uses a part of it")]

use std::{env, process, time::Duration};

/// Gives each `--name value` of the command line to `set`; explains `usage` and ends the process when one is wrong.
pub(crate) fn options(usage: &str, mut set: impl FnMut(&str, &str) -> Result<(), String>) {
    let refuse = |text: &str| -> ! {
        eprintln!("{text}\nusage: {usage}");
        process::exit(2);
    };
    let mut arguments = env::args().skip(1);
    while let Some(name) = arguments.next() {
        let Some(value) = arguments.next() else { refuse(&format!("{name} wants a value")) };
        if let Err(text) = set(&name, &value) {
            refuse(&text);
        }
    }
}

/// `250ms`, `1s`, `1.5s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is not a duration like 250ms or 1.5s");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1.0),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Lets this process have as many descriptors as the system allows it, and says how many that are when they are few.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    if let Some(n) = now
        && n < 16_384
    {
        eprintln!("note: this process may have {n} descriptors (ulimit -Hn), one for each connection");
    }
}
