//! `select`: waiting on several channel operations at once.
//!
//! [`select!`](crate::select) and [`select_biased!`](crate::select_biased) are for a list of arms that is written down; [`Select`] is for a
//! list that is made at run time. Both rest on `select::engine`.

pub(crate) mod dynamic;
pub(crate) mod engine;
#[doc(hidden)]
pub mod macros;
pub(crate) mod operation;

pub use dynamic::{Select, SelectedOperation};
