//! Programs that must not compile, and what the compiler says of them.

#[test]
fn refused_programs_are_refused_where_the_mistake_is() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
