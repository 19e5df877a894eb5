//! What the attributes take.

#[oxigo::test(workers = 0)]
fn a_test() {}

#[oxigo::main(threads = 4)]
fn main() -> std::io::Result<()> {
    Ok(())
}
