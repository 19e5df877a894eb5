//! The main goroutine gets no arguments.

#[oxigo::main]
fn main(arguments: Vec<String>) {}
