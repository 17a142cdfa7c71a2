//! What routing looks at.

/// The fields of a request, however the codec holds them.
pub trait Fields {
    /// The first value of a field; `name` is lower case.
    fn field(&self, name: &[u8]) -> Option<&[u8]>;
}

/// What routing looks at. Borrowed from the codec's scratch buffer.
pub struct RequestHead<'a, F> {
    pub method: &'a [u8],
    /// Host of the authority: lower case, without port.
    pub host: &'a str,
    /// Normalised path, without query, starting with `/` (or `*`).
    pub path: &'a [u8],
    /// Without `?`; `None` when there is none.
    pub query: Option<&'a [u8]>,
    pub fields: &'a F,
}
