//! gRPC-Web in its text form: a request's body decoded from base64, a response's body and trailers coded into it.
//!
//! Laws: pieces change nothing; what is coded is decoded to the same bytes; a response ends with one frame of trailers
//! whose length is right. Input: how it is cut, then the body.
#![no_main]

use gateway_fuzz::cut;
use gateway_http::grpc_web::{Coding, Speaks, Translation};
use gateway_http::head::FieldList;
use libfuzzer_sys::fuzz_target;

const TEXT: Speaks = Speaks {
    request: Coding::Text,
    response: Coding::Text,
};

/// A request's body as the endpoint gets it; `None` where it is refused.
fn decoded<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let (mut translation, mut out) = (Translation::new(TEXT), Vec::new());
    for chunk in chunks {
        translation.request_body(chunk, false, &mut out).ok()?;
    }
    translation.request_body(&[], true, &mut out).ok()?;
    Some(out)
}

fn head(fields: &[(&[u8], &[u8])]) -> FieldList {
    let mut list = FieldList::new();
    fields.iter().for_each(|(name, value)| list.push(name, value));
    list
}

fuzz_target!(|input: &[u8]| {
    let Some((how, body)) = input.split_first() else { return };
    let whole = decoded([body].into_iter());
    assert_eq!(whole, decoded(cut::chunks(input)), "pieces change nothing");
    if let Some(whole) = whole {
        assert!(whole.len() <= body.len() / 4 * 3 + 3);
    }

    let mut translation = Translation::new(TEXT);
    let mut coded = Vec::new();
    let mut fields = head(&[(b":status", b"200"), (b"content-type", b"application/grpc")]);
    translation.response_head(200, &mut fields, false, &mut coded);
    for (number, chunk) in cut::chunks(input).enumerate() {
        translation.response_body(chunk, number % 3 == usize::from(how % 3), &mut coded);
    }
    // What is no field value does not get here: trailers are checked before they are translated.
    let message: Vec<u8> = input.iter().copied().filter(u8::is_ascii_graphic).take(50).collect();
    let trailers = head(&[(b"grpc-status", b"0"), (b"grpc-message", &message)]);
    translation.trailers(Some(&trailers), &mut coded);
    let all = decoded([&coded[..]].into_iter()).expect("we read what we write");
    let frame = all.strip_prefix(body).expect("the body comes first, as it was");
    let [0x80, a, b, c, d, text @ ..] = frame else {
        panic!("no frame of trailers: {frame:02x?}")
    };
    assert_eq!(u32::from_be_bytes([*a, *b, *c, *d]) as usize, text.len());
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    assert!(
        lines.len() <= 3 && lines.iter().any(|line| line.starts_with(b"grpc-status")),
        "{}",
        text.escape_ascii()
    );
});
