//! Internet checksums, updated in place (RFC 1624 eq. 3).
