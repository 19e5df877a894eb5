//! Programs of channel operations, decided on by the fuzzer and judged as in tests/oracle.rs: against a naive twin where one party runs
//! alone, and against the rules of a history where several do.
#![no_main]

#[path = "../../tests/common/programs.rs"]
mod programs;

use std::sync::OnceLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use oxigo::Runtime;
use programs::{Choices, PARTIES, program};

#[derive(Arbitrary, Debug)]
struct Input {
    /// On a goroutine of a runtime, or on the fuzzer's own thread.
    on_goroutine: bool,
    /// How many channels and parties, and who has which ends.
    shape: Vec<u8>,
    /// What each party does, the main one last. Behind the bytes each goes on as the seed says.
    parties: [Vec<u8>; PARTIES + 1],
    seed: u8,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

fuzz_target!(|input: Input| {
    let Input { on_goroutine, shape, mut parties, seed } = input;
    let run = move || {
        let choices = Choices::new(shape, seed.into());
        program(choices, |me| Choices::new(std::mem::take(&mut parties[me]), u64::from(seed) << 8 | me as u64));
    };
    if on_goroutine {
        let runtime = RUNTIME.get_or_init(|| Runtime::builder().workers(2).name("fuzz").build().expect("a runtime"));
        runtime.run(run);
    } else {
        run();
    }
});
