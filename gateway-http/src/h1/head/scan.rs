//! The fields of a head, once through: what goes into the list, and what they say about body and connection.

use crate::h1::{Framing, Persistence, Rejected, Version};
use crate::h2::hpack::SectionLimits;
use crate::head::facts::{ContentLength, Malformed, Method, ResponseFacts, is_grpc, may_be_tunnelled};
use crate::head::{ENTRY_OVERHEAD, FieldList, Token};
use httparse::Header;

/// Most options in `connection`; each is compared with every field.
pub(super) const OPTIONS_MAX: usize = 32;

/// Most protocols in `upgrade`; who lists more is answered without one.
const PROTOCOLS_MAX: usize = 8;

/// What the fields say about the message and its connection.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) length: ContentLength,
    pub(super) hosts: u32,
    pub(super) is_grpc: bool,
    pub(super) expects_continue: bool,
    pub(super) claims: bool,
    transfer: Option<Transfer>,
    /// `te` has `trailers`.
    takes_trailers: bool,
    close: bool,
    keep_alive: bool,
    /// `connection` names fields.
    names_fields: bool,
    /// Size of the fields of the connection, which are not in the list.
    dropped_bytes: usize,
    /// `connection` has `upgrade`, and there is an `upgrade` field.
    may_upgrade: bool,
    upgrades: bool,
}

/// What `transfer-encoding` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transfer {
    Chunked,
    /// Other codings below chunked: understood, not done.
    Other,
    /// Not chunked at the end, or several fields.
    Unclear,
}

impl Scan {
    /// Takes every field over into `list`, but for those of the connection.
    pub(super) fn take_all(
        &mut self,
        headers: &[Header<'_>],
        list: &mut FieldList,
        limits: SectionLimits,
    ) -> Result<(), Rejected> {
        for header in headers {
            list.push_parsed(header.name.as_bytes(), header.value);
            let Some(field) = list.fields().last() else { continue };
            if field.is_bad() {
                return Err(Malformed::Field.into());
            }
            self.claims |= field.is_claim();
            self.take(field.token(), header.value)?;
            if field.token().is_connection_specific() || field.token() == Token::TE {
                self.dropped_bytes += field.size();
                list.pop();
            }
        }
        // `host` becomes a pseudo-field, or is one more than the target already had.
        if headers.len() > limits.fields_max + (self.hosts as usize).min(1) {
            return Err(Rejected::TooMany);
        }
        // Only a name or a value of 64 KiB is left out, and those are over any limit.
        if list.is_too_large() {
            Err(Rejected::TooLarge)
        } else {
            Ok(())
        }
    }

    /// Whether the finished section is as small as `limits` want it, in HTTP/2's measure (RFC 9113 10.5.1): one limit
    /// for every version. `raw` bytes of head cannot be more than that and what each field adds.
    pub(super) fn fits(&self, raw: usize, list: &FieldList, limits: SectionLimits) -> Result<(), Rejected> {
        let most = raw + ENTRY_OVERHEAD * (list.len() + 1) + self.dropped_bytes;
        if most <= limits.size_max || list.section_size() + self.dropped_bytes <= limits.size_max {
            Ok(())
        } else {
            Err(Rejected::TooLarge)
        }
    }

    fn take(&mut self, token: Token, value: &[u8]) -> Result<(), Malformed> {
        match token {
            Token::CONTENT_LENGTH => self.length.take(value)?,
            Token::CONTENT_TYPE => self.is_grpc = is_grpc(value),
            Token::HOST => self.hosts += 1,
            Token::EXPECT => self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            Token::TE => self.takes_trailers |= options(value).any(|option| option.eq_ignore_ascii_case(b"trailers")),
            Token::TRANSFER_ENCODING => self.transfer = Some(self.transfer_coding(value)),
            Token::CONNECTION => self.take_options(value),
            Token::UPGRADE => self.upgrades = true,
            _ => {}
        }
        Ok(())
    }

    fn transfer_coding(&self, value: &[u8]) -> Transfer {
        if self.transfer.is_some() {
            return Transfer::Unclear;
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            return Transfer::Chunked;
        }
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let chunked_once = options(value).filter(|coding| is_chunked(coding)).count() == 1;
        if chunked_once && options(value).last().is_some_and(is_chunked) {
            Transfer::Other
        } else {
            Transfer::Unclear
        }
    }

    fn take_options(&mut self, value: &[u8]) {
        for option in options(value) {
            match option {
                _ if option.eq_ignore_ascii_case(b"close") => self.close = true,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                // These go in any case.
                _ if option.eq_ignore_ascii_case(b"upgrade") => self.may_upgrade = true,
                _ if option.eq_ignore_ascii_case(b"te") => {}
                _ => self.names_fields = true,
            }
        }
    }

    /// Removes what `connection` names (RFC 9110 7.6.1), and says again that trailers are taken.
    pub(super) fn finish_fields(&self, headers: &[Header<'_>], list: &mut FieldList) -> Result<(), Malformed> {
        if self.names_fields {
            let values = headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case("connection"));
            for (count, option) in values.flat_map(|header| options(header.value)).enumerate() {
                if count == OPTIONS_MAX {
                    return Err(Malformed::ConnectionField);
                }
                // Length and authority were settled; what is known to be for the endpoint (`authorization`, `cookie`,
                // `x-forwarded-for`) cannot be talked away either.
                list.retain(|token, name, _| token != Token::OTHER || !name.eq_ignore_ascii_case(option));
            }
        }
        if self.takes_trailers {
            list.push_known(Token::TE, b"trailers");
        }
        Ok(())
    }

    /// Whether the message speaks of another protocol (RFC 9110 7.8).
    pub(super) fn may_upgrade(&self) -> bool {
        self.may_upgrade && self.upgrades
    }

    /// Puts the protocols that may be tunnelled into `list` as one `upgrade` field; `false` when there are none.
    pub(super) fn push_upgrade(&self, headers: &[Header<'_>], list: &mut FieldList) -> bool {
        let mut parts = [&b""[..]; 2 * PROTOCOLS_MAX];
        let mut count = 0;
        let values = headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("upgrade"));
        for protocol in values.flat_map(|header| options(header.value)) {
            if count == parts.len() {
                return false;
            }
            if may_be_tunnelled(protocol) {
                parts[count] = if count == 0 { b"" } else { b", " };
                parts[count + 1] = protocol;
                count += 2;
            }
        }
        if count > 0 {
            list.push_parts(Token::UPGRADE, &parts[..count]);
        }
        count > 0
    }

    /// RFC 9112 6.3 for requests, where doubt is an error.
    pub(super) fn request_framing(&self, version: Version) -> Result<Framing, Rejected> {
        match (self.transfer, self.length.value) {
            (None, None) => Ok(Framing::None),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (Some(Transfer::Chunked), None) if version == Version::Http11 => Ok(Framing::Chunked),
            (Some(Transfer::Other), None) if version == Version::Http11 => Err(Rejected::NotImplemented),
            (Some(_), _) => Err(Malformed::Framing.into()),
        }
    }

    /// RFC 9112 6.3 for responses.
    pub(super) fn response_framing(
        &self,
        version: Version,
        facts: ResponseFacts,
        request: Method,
    ) -> Result<Framing, Malformed> {
        if facts.is_bodiless(request) {
            return Ok(Framing::None);
        }
        match (self.transfer, self.length.value) {
            (None, None) => Ok(Framing::UntilClose),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (Some(Transfer::Chunked), None) if version == Version::Http11 => Ok(Framing::Chunked),
            (Some(_), _) => Err(Malformed::Framing),
        }
    }

    /// RFC 9112 9.3.
    pub(super) fn persistence(&self, version: Version) -> Persistence {
        let stays = match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        };
        if stays {
            Persistence::KeepAlive
        } else {
            Persistence::Close
        }
    }
}

/// The elements of a comma-separated list (RFC 9110 5.6.1).
pub(crate) fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}
