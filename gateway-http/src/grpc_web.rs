//! gRPC-Web (grpc/doc/PROTOCOL-WEB.md): gRPC for clients that cannot read HTTP trailers.
//!
//! A request is gRPC's under another content type, in the `-text` form as base64. In a response the trailers are the
//! last frame of the body, marked by the highest bit of its flags. Binary bodies pass as they are; text is coded as it
//! comes, and padded at the end of each message so that none waits for the next.

pub mod base64;

use self::base64::{Decoder, Encoder};
use crate::grpc::status;
use crate::head::facts::is_grpc;
use crate::head::{FieldList, Token};
use gateway_core::fault::Fault;

/// Flag of the frame that holds the trailers.
const TRAILERS: u8 = 0x80;
const GRPC: &[u8] = b"application/grpc";
const WEB: &[u8] = b"application/grpc-web";
const TEXT: &[u8] = b"application/grpc-web-text";

/// How bodies are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    Binary,
    /// Base64.
    Text,
}

/// What a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Speaks {
    pub request: Coding,
    pub response: Coding,
}

impl Speaks {
    /// From a request's head; `None` when it is no gRPC-Web. The response is coded as `accept` asks, else as the
    /// request.
    pub fn of(head: &FieldList) -> Option<Self> {
        let request = coding(head.get(Token::CONTENT_TYPE)?)?;
        let response = head.get(Token::ACCEPT).and_then(coding).unwrap_or(request);
        Some(Self { request, response })
    }

    fn content_type(self) -> &'static [u8] {
        match self.response {
            Coding::Binary => WEB,
            Coding::Text => TEXT,
        }
    }

    /// An answer of the gateway's own: its head into `fields`, its body into `body`.
    pub fn reply(self, code: u8, message: &str, fields: &mut FieldList, body: &mut Vec<u8>) {
        fields.push_status(200);
        fields.push_parts(Token::CONTENT_TYPE, &[self.content_type(), b"+proto"]);
        let mut frame = Vec::new();
        put_status(code, message, &mut frame);
        match self.response {
            Coding::Binary => body.extend_from_slice(&frame),
            Coding::Text => {
                let mut encoder = Encoder::default();
                encoder.encode(&frame, body);
                encoder.flush(body);
            }
        }
    }
}

/// `application/grpc-web` or `-text`, then the end, `+` or `;`. Case does not matter.
fn coding(content_type: &[u8]) -> Option<Coding> {
    [(TEXT, Coding::Text), (WEB, Coding::Binary)]
        .into_iter()
        .find(|(kind, _)| suffix(content_type, kind).is_some())
        .map(|(_, coding)| coding)
}

/// What follows `kind` in a media type: nothing, `+proto` or parameters.
fn suffix<'a>(content_type: &'a [u8], kind: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = content_type.split_at_checked(kind.len())?;
    let ends = matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b','));
    (ends && start.eq_ignore_ascii_case(kind)).then_some(rest)
}

/// The subtype of a media type of gRPC, such as `+proto`.
fn subtype(rest: &[u8]) -> &[u8] {
    let end = rest.iter().position(|byte| matches!(byte, b';' | b' ' | b','));
    &rest[..end.unwrap_or(rest.len())]
}

/// What the response of the endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Grpc,
    /// Something else with this HTTP status: its body is dropped, its status becomes a gRPC code.
    Foreign(u16),
}

/// One call, translated.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    speaks: Speaks,
    decoder: Decoder,
    encoder: Encoder,
    answer: Answer,
}

impl Translation {
    pub fn new(speaks: Speaks) -> Self {
        Self {
            speaks,
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            answer: Answer::Grpc,
        }
    }

    /// Whether request bodies pass as they are.
    pub fn request_is_plain(&self) -> bool {
        self.speaks.request == Coding::Binary
    }

    /// Makes a gRPC request of the head.
    pub fn request_head(&self, head: &mut FieldList) {
        let kind = match self.speaks.request {
            Coding::Binary => WEB,
            Coding::Text => TEXT,
        };
        let content_type = head.get(Token::CONTENT_TYPE).unwrap_or_default();
        let mut typed = GRPC.to_vec();
        typed.extend_from_slice(subtype(suffix(content_type, kind).unwrap_or_default()));
        head.set_known(Token::CONTENT_TYPE, &typed);
        head.set_known(Token::TE, b"trailers");
        head.remove(Token::CONTENT_LENGTH);
        head.remove(Token::ACCEPT);
    }

    /// Request body, appended to `out` as gRPC. `end`: nothing follows.
    pub fn request_body(&mut self, bytes: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        let decoded = self.decoder.decode(bytes, out);
        let cut = end && !self.decoder.is_whole();
        if decoded.is_err() || cut {
            Err(Fault::BadRequest)
        } else {
            Ok(())
        }
    }

    /// Makes a gRPC-Web response of the head. `end`: it is all there is; its status then goes into `out` as a frame.
    pub fn response_head(&mut self, status: u16, fields: &mut FieldList, end: bool, out: &mut Vec<u8>) {
        let content_type = fields.get(Token::CONTENT_TYPE).unwrap_or_default();
        let ours = status == 200 && is_grpc(content_type);
        self.answer = if ours { Answer::Grpc } else { Answer::Foreign(status) };
        let mut typed = self.speaks.content_type().to_vec();
        match suffix(content_type, GRPC).map(subtype) {
            Some(kind) if ours && !kind.is_empty() => typed.extend_from_slice(kind),
            Some(_) | None => typed.extend_from_slice(b"+proto"),
        }
        fields.set_known(Token::CONTENT_TYPE, &typed);
        fields.remove(Token::CONTENT_LENGTH);
        fields.remove(Token::TRAILER);
        fields.remove_named(b"content-encoding");
        if !ours {
            fields.set_known(Token::STATUS, b"200");
        }
        if end {
            let told = |name: &[u8]| name.starts_with(b"grpc-status") || name == b"grpc-message";
            let mut trailers = FieldList::new();
            for (name, value) in fields.iter().filter(|(name, _)| told(name)) {
                trailers.push(name, value);
            }
            fields.retain(|_, name, _| !told(name));
            self.trailers(Some(&trailers), out);
        }
    }

    /// Response body, appended to `out`. `boundary`: a message ends with `bytes`.
    pub fn response_body(&mut self, bytes: &[u8], boundary: bool, out: &mut Vec<u8>) {
        match (self.answer, self.speaks.response) {
            (Answer::Foreign(_), _) => {}
            (Answer::Grpc, Coding::Binary) => out.extend_from_slice(bytes),
            (Answer::Grpc, Coding::Text) => {
                self.encoder.encode(bytes, out);
                if boundary {
                    self.encoder.flush(out);
                }
            }
        }
    }

    /// Whether response bodies pass as they are.
    pub fn response_is_plain(&self) -> bool {
        self.answer == Answer::Grpc && self.speaks.response == Coding::Binary
    }

    /// The end of the response: its trailers as the last frame, appended to `out`. Returns the code that the client
    /// is told, if the endpoint gave none.
    pub fn trailers(&mut self, trailers: Option<&FieldList>, out: &mut Vec<u8>) -> Option<u8> {
        let mut frame = Vec::new();
        let mut made = None;
        match (self.answer, trailers) {
            (Answer::Grpc, Some(fields)) if fields.find(Token::GRPC_STATUS).is_some() => {
                put_frame(fields.iter(), &mut frame);
            }
            (Answer::Foreign(status), _) => {
                let code = status::from_http(status);
                made = Some(code);
                put_status(
                    code,
                    &format!("the endpoint answered HTTP {status} without gRPC"),
                    &mut frame,
                );
            }
            (Answer::Grpc, _) => {
                made = Some(status::UNKNOWN);
                put_status(status::UNKNOWN, "the endpoint gave no status", &mut frame);
            }
        }
        self.last_frame(&frame, out);
        made
    }

    /// The end of a response that went wrong here.
    pub fn fault(&mut self, code: u8, message: &str, out: &mut Vec<u8>) {
        let mut frame = Vec::new();
        put_status(code, message, &mut frame);
        self.last_frame(&frame, out);
    }

    fn last_frame(&mut self, frame: &[u8], out: &mut Vec<u8>) {
        match self.speaks.response {
            Coding::Binary => out.extend_from_slice(frame),
            Coding::Text => {
                self.encoder.encode(frame, out);
                self.encoder.flush(out);
            }
        }
    }
}

fn put_status(code: u8, message: &str, out: &mut Vec<u8>) {
    let mut fields = FieldList::new();
    crate::grpc::put_status(&mut fields, code, message);
    put_frame(fields.iter(), out);
}

/// Flags, length, then fields as HTTP/1.1 writes them.
fn put_frame<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[TRAILERS, 0, 0, 0, 0]);
    let start = out.len();
    for (name, value) in fields {
        for part in [name, b":", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start - 4..start].copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &[(&str, &str)]) -> FieldList {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        list
    }

    fn speaks(content_type: &str, accept: Option<&str>) -> Option<Speaks> {
        let mut head = list(&[("content-type", content_type)]);
        if let Some(accept) = accept {
            head.push(b"accept", accept.as_bytes());
        }
        Speaks::of(&head)
    }

    #[test]
    fn what_a_client_speaks_is_in_its_content_type_and_accept() {
        use Coding::{Binary, Text};
        for (content_type, accept, expected) in [
            ("application/grpc-web", None, Some((Binary, Binary))),
            ("application/grpc-web+proto", Some("*/*"), Some((Binary, Binary))),
            ("application/grpc-web-text", None, Some((Text, Text))),
            ("Application/gRPC-Web-Text+proto; x=y", None, Some((Text, Text))),
            (
                "application/grpc-web",
                Some("application/grpc-web-text"),
                Some((Binary, Text)),
            ),
            (
                "application/grpc-web-text",
                Some("application/grpc-web+proto"),
                Some((Text, Binary)),
            ),
            ("application/grpc", None, None),
            ("application/grpc-webby", None, None),
            ("application/json", None, None),
        ] {
            let got = speaks(content_type, accept).map(|speaks| (speaks.request, speaks.response));
            assert_eq!(got, expected, "{content_type} {accept:?}");
        }
    }

    #[test]
    fn a_request_becomes_grpc_and_keeps_its_subtype() {
        for (from, to) in [
            ("application/grpc-web", "application/grpc"),
            ("application/grpc-web+json", "application/grpc+json"),
            ("application/grpc-web-text+proto; charset=x", "application/grpc+proto"),
        ] {
            let mut head = list(&[("content-type", from), ("content-length", "9"), ("x-grpc-web", "1")]);
            Translation::new(Speaks::of(&head).unwrap()).request_head(&mut head);
            assert_eq!(head.get(Token::CONTENT_TYPE), Some(to.as_bytes()));
            assert_eq!(head.get(Token::TE), Some(&b"trailers"[..]));
            assert_eq!(head.get(Token::CONTENT_LENGTH), None);
        }
    }

    #[test]
    fn trailers_are_the_last_frame_of_the_body() {
        let mut translation = Translation::new(speaks("application/grpc-web", None).unwrap());
        let mut out = Vec::new();
        let mut head = list(&[(":status", "200"), ("content-type", "application/grpc+proto")]);
        translation.response_head(200, &mut head, false, &mut out);
        assert_eq!(head.get(Token::CONTENT_TYPE), Some(&b"application/grpc-web+proto"[..]));
        let trailers = list(&[("grpc-status", "5"), ("grpc-message", "gone"), ("x-a", "b")]);
        assert_eq!(translation.trailers(Some(&trailers), &mut out), None);
        assert_eq!(out, b"\x80\0\0\0\x29grpc-status:5\r\ngrpc-message:gone\r\nx-a:b\r\n");
    }

    #[test]
    fn a_trailers_only_answer_and_one_without_status_end_in_a_frame_too() {
        let mut translation = Translation::new(speaks("application/grpc-web", None).unwrap());
        let mut out = Vec::new();
        let mut head = list(&[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "12"),
            ("grpc-status-details-bin", "AAA"),
            ("x-a", "b"),
        ]);
        translation.response_head(200, &mut head, true, &mut out);
        assert_eq!(out, b"\x80\0\0\0\x2dgrpc-status:12\r\ngrpc-status-details-bin:AAA\r\n");
        assert_eq!(head.get(Token::GRPC_STATUS), None);
        assert!(head.position(b"x-a").is_some());
        out.clear();
        assert_eq!(translation.trailers(None, &mut out), Some(status::UNKNOWN));
        assert!(out.starts_with(b"\x80") && out.windows(13).any(|window| window == b"grpc-status:2"));
    }

    #[test]
    fn an_answer_that_is_no_grpc_becomes_its_status() {
        let mut translation = Translation::new(speaks("application/grpc-web", None).unwrap());
        let mut out = Vec::new();
        let mut head = list(&[
            (":status", "503"),
            ("content-type", "text/html"),
            ("content-length", "5"),
        ]);
        translation.response_head(503, &mut head, false, &mut out);
        translation.response_body(b"<html", true, &mut out);
        assert_eq!(out, b"");
        assert_eq!(head.get(Token::STATUS), Some(&b"200"[..]));
        assert_eq!(translation.trailers(None, &mut out), Some(14));
    }

    #[test]
    fn text_is_flushed_where_a_message_ends() {
        let mut translation = Translation::new(speaks("application/grpc-web-text", None).unwrap());
        let mut out = Vec::new();
        let mut head = list(&[(":status", "200"), ("content-type", "application/grpc")]);
        translation.response_head(200, &mut head, false, &mut out);
        translation.response_body(b"f", false, &mut out);
        assert_eq!(out, b"");
        translation.response_body(b"oob", true, &mut out);
        assert_eq!(out, b"Zm9vYg==");
    }
}
