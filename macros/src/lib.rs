//! The attributes `#[oxigo::main]` and `#[oxigo::test]`; use them through the crate `oxigo`.
