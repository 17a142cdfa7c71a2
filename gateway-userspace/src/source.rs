//! Where configuration comes from: files and an API server, and what the names in it stand for. A source reads and says
//! when that changed; it does not understand what it reads.

pub mod file;
pub mod kube;
pub mod names;
