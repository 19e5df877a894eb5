//! `select`: waiting on several channel operations at once.
//!
//! [`select!`](crate::select) and [`select_biased!`](crate::select_biased) are for arms that are known when the program is written; [`Select`] is for
//! a list of operations that is made at run time.

pub(crate) mod dynamic;
pub(crate) mod engine;
#[doc(hidden)]
pub mod macros;
pub(crate) mod operation;

pub use dynamic::{Select, SelectedOperation};
