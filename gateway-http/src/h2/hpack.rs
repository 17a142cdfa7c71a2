//! HPACK (RFC 7541): field sections to bytes and back.

pub mod decoder;
pub mod encoder;
mod huffman;
mod integer;
mod memo;
pub mod static_table;
mod table;

pub use decoder::Decoder;
pub use encoder::Encoder;

/// What a section may hold before it is too large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectionLimits {
    /// Names and values, and 32 bytes per field (RFC 9113 6.5.2).
    pub size_max: usize,
    pub fields_max: usize,
}

/// Why a field block cannot be decoded. The connection ends: its table is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HpackError {
    /// The block ends inside a representation.
    Truncated,
    /// An integer of more than 28 bits (RFC 7541 5.1).
    Integer,
    /// Index 0, or behind the end of the table (RFC 7541 2.3.3).
    Index,
    /// No Huffman code, EOS inside, or wrong padding (RFC 7541 5.2).
    Huffman,
    /// A size update behind a field, or above our limit (RFC 7541 4.2, 6.3).
    SizeUpdate,
    /// A block that decodes to more than anyone can mean.
    Flood,
}
