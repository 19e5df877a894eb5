//! A goroutine needs no async.

#[oxigo::main]
async fn main() {}
