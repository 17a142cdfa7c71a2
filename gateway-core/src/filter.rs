//! Filters as pure functions of a request; the codec applies the edits while it encodes.

use crate::ir::{PathRewrite, Redirect};

/// The `Location` of a redirect (Gateway API HTTPRequestRedirectFilter; ports as in its table).
pub fn redirect_location(
    redirect: &Redirect,
    scheme: &str,
    host: &str,
    listener_port: u16,
    path: &[u8],
    query: Option<&[u8]>,
    prefix_len: usize,
) -> String {
    let _ = (redirect, scheme, host, listener_port, path, query, prefix_len);
    todo!()
}

/// The path after a rewrite, appended to `out`.
pub fn rewrite_path(rewrite: &PathRewrite, path: &[u8], prefix_len: usize, out: &mut Vec<u8>) {
    let _ = (rewrite, path, prefix_len, out);
    todo!()
}
