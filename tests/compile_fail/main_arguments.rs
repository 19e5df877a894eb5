//! What the attributes take.

#[oxigo::test(workers = 0)]
fn a_test() {}

#[oxigo::test(crate = oxigo)]
fn another_test() {}

#[oxigo::test(crate = "oxigo<u32>")]
fn one_more_test() {}

#[oxigo::test(workers = 2, leaks = "allow", workers = 3)]
fn a_test_with_two_numbers() {}

#[oxigo::main(threads = 4)]
fn main() -> std::io::Result<()> {
    Ok(())
}
