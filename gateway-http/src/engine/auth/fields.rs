//! Fields of a question over HTTP, and those of its answer that the request carries on.

use super::super::edit::framing;
use crate::head::facts::Method;
use crate::head::{FieldList, Token};

/// What is asked of a service that speaks HTTP.
pub(super) struct Asked<'a> {
    pub prefix: &'a str,
    pub shown: &'a [String],
    /// The body that goes with it.
    pub body: &'a [u8],
    /// The service is spoken to over TLS.
    pub tls: bool,
}

/// Makes the head of a question about a request; `None`: there is no such question, as about a CONNECT.
pub(super) fn compose(asked: &Asked<'_>, of: &FieldList, method: Method, head: &mut FieldList) -> Option<Method> {
    // What asks for a WebSocket with CONNECT is GET in HTTP/1.1 (RFC 8441 5).
    let websocket = method == Method::Connect && of.get(Token::PROTOCOL).is_some();
    let (name, method): (&[u8], _) = match method {
        Method::Connect if !websocket => return None,
        Method::Connect => (b"GET", Method::Get),
        method => (of.get(Token::METHOD)?, method),
    };
    let target = of.get(Token::PATH)?;
    let target = if asked.prefix.is_empty() || target.starts_with(b"/") {
        target
    } else {
        b"/"
    };
    head.push_known(Token::METHOD, name);
    head.push_known(Token::SCHEME, if asked.tls { b"https" } else { b"http" });
    head.push_known(Token::AUTHORITY, of.get(Token::AUTHORITY)?);
    head.push_parts(Token::PATH, &[asked.prefix.as_bytes(), target]);
    for field in of.fields() {
        let name = of.name(field);
        if is_shown(asked.shown, name) && !framing(name) && !name.starts_with(b":") {
            head.push_copy(field, of.name_value(field));
        }
    }
    head.push_known(Token::CONTENT_LENGTH, Decimal::new(asked.body.len()).as_bytes());
    (!head.is_too_large()).then_some(method)
}

fn is_shown(shown: &[String], name: &[u8]) -> bool {
    name == b"authorization" || shown.iter().any(|shown| shown.as_bytes() == name)
}

/// Fields that describe the answer that carries them, or are never for a service to say.
fn is_about_answer(name: &[u8]) -> bool {
    name.starts_with(b":")
        || framing(name)
        || name.starts_with(b"content-")
        || matches!(name, b"host" | b"date" | b"server" | b"trailer")
}

/// Sets in a request what the service said of it. What only the service may say, and the client forged, does not stay:
/// a named field that the service was not shown is removed even if it says nothing about it.
pub(super) fn take_fields(shown: &[String], taken: &[String], answer: &FieldList, request: &mut FieldList) {
    let named = |name: &[u8]| taken.iter().any(|taken| taken.as_bytes() == name);
    let takes = |name: &[u8]| match taken.is_empty() {
        true => !is_about_answer(name),
        false => named(name) && !framing(name) && !name.starts_with(b":"),
    };
    let said = |name: &[u8]| takes(name) && answer.position(name).is_some();
    // CGI and its heirs cannot tell an underscore from a hyphen.
    let forged = |name: &[u8]| {
        let mut taken = taken.iter().map(String::as_bytes);
        taken.any(|taken| is_twin(name, taken) && (name != taken || !is_shown(shown, taken)))
    };
    request.retain(|_, name, _| name.starts_with(b":") || !(said(name) || forged(name)));
    for (name, value) in answer.iter() {
        if takes(name) {
            request.push(name, value);
        }
    }
}

/// Whether a name is another one but for underscores in the place of hyphens.
pub(super) fn is_twin(name: &[u8], of: &[u8]) -> bool {
    let same = |(a, b): (&u8, &u8)| a == b || (*a == b'_' && *b == b'-');
    name.len() == of.len() && name.iter().zip(of).all(same)
}

/// A length in decimal.
pub(super) struct Decimal {
    digits: [u8; 20],
    from: usize,
}

impl Decimal {
    pub fn new(mut number: usize) -> Self {
        let mut digits = [b'0'; 20];
        let mut from = digits.len();
        while number > 0 || from == digits.len() {
            from -= 1;
            digits[from] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        Self { digits, from }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}

#[cfg(test)]
mod tests {
    use super::Decimal;

    #[test]
    fn lengths_are_written_without_leading_zeros() {
        for number in [0, 7, 10, 4096, usize::MAX] {
            assert_eq!(Decimal::new(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
