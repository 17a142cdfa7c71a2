//! What a client claims that only a proxy may say: whom it forwards for, and names that hide behind an underscore.
//!
//! The endpoint believes those fields because the gateway writes them; so what the client wrote under the same names,
//! or under names that CGI makes the same (`x_forwarded_for`), does not go through.

use super::Engine;
use crate::head::{Token, is_forwarding};
use crate::limits::{ForwardedFields, Underscores};

/// Longest name that is compared with hyphens for underscores, bytes.
const TWIN_BYTES_MAX: usize = 64;

impl Engine {
    /// Settles the claims in a stream's head; `false` when the request is refused for one.
    pub(super) fn settle_claims(&mut self, index: u32) -> bool {
        let believes = self.limits.forwarded_fields == ForwardedFields::Append;
        let head = &mut self.streams[index].head;
        let underscores = head
            .fields()
            .iter()
            .any(|field| field.is_claim() && head.name(field).contains(&b'_'));
        if underscores && self.limits.underscores == Underscores::Reject {
            return false;
        }
        head.retain(|token, name, _| {
            if token == Token::OTHER {
                if name.contains(&b'_') {
                    !is_twin(name)
                } else {
                    believes || !is_forwarding(name)
                }
            } else {
                believes || !token.is_forwarding()
            }
        });
        true
    }
}

/// Whether a name with underscores is, with hyphens, one that the gateway vouches for.
fn is_twin(name: &[u8]) -> bool {
    let mut hyphens = [0; TWIN_BYTES_MAX];
    let Some(twin) = hyphens.get_mut(..name.len()) else {
        return false;
    };
    for (to, from) in twin.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    let token = Token::of(twin);
    is_forwarding(twin) || token.is_forwarding() || (token != Token::OTHER && !token.may_trail())
}

#[cfg(test)]
mod tests {
    use super::is_twin;

    #[test]
    fn twins_of_what_the_gateway_vouches_for_are_known() {
        for name in [
            "x_forwarded_for",
            "x-forwarded_proto",
            "content_length",
            "transfer_encoding",
            "x_real_ip",
        ] {
            assert!(is_twin(name.as_bytes()), "{name}");
        }
        for name in ["device_id", "x_api_key", &"_".repeat(100)] {
            assert!(!is_twin(name.as_bytes()), "{name}");
        }
    }
}
