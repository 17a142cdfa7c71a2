//! HPACK (RFC 7541): field sections to bytes and back.

pub mod static_table;
