//! What routing looks at.

use crate::session::cookie_in;

/// The fields of a request, however the codec holds them.
pub trait Fields {
    /// The first value of a field; `name` is lower case.
    fn field(&self, name: &[u8]) -> Option<&[u8]>;

    /// The value of a cookie; HTTP/2 clients may send each in a field of its own.
    fn cookie(&self, name: &[u8]) -> Option<&[u8]> {
        cookie_in(self.field(b"cookie")?, name)
    }
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
