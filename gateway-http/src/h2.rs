//! HTTP/2 (RFC 9113): frames, settings, field sections and their compression. Pure functions over slices; the
//! life of connections and streams is in `engine`.

pub mod frame;
pub mod headers;
pub mod hpack;
pub mod settings;
