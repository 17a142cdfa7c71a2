//! Where configuration comes from. Only files for now; a source reads texts and says when they changed, it does not
//! understand them.

pub mod file;
pub mod names;
