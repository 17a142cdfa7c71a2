//! `CheckResponse`: what an authorization service said.
//!
//! A status of OK lets the request pass, every other one refuses it, whatever stands beside it. What says nothing, or
//! contradicts itself, is no permission: neither an empty message, nor `denied_response` beside OK.

use super::Unread;
use super::wire::{Fields, Value};

/// Edits and names in one answer; more are malformed.
pub const EDITS_MAX: usize = 256;
/// Of a refusal that names none: 403.
const FORBIDDEN: u16 = 403;

/// How a field comes to a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// In the place of fields of its name.
    Set,
    /// Beside them.
    Append,
    /// If there is none of its name.
    AddIfAbsent,
    /// If there is one, in its place.
    SetIfPresent,
}

/// A field, its name in lower case. Whether it is well formed is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edit {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
    pub how: How,
}

/// What becomes of a request that passes, in this order.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Permission {
    pub edits: Vec<Edit>,
    /// Names of fields, lower case.
    pub removed: Vec<Vec<u8>>,
    /// For the response's head.
    pub response: Vec<Edit>,
    pub query_set: Vec<(Vec<u8>, Vec<u8>)>,
    pub query_removed: Vec<Vec<u8>>,
}

/// What the client is answered.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Denial {
    /// 200 to 599.
    pub status: u16,
    pub fields: Vec<Edit>,
    pub body: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Allowed(Permission),
    Denied(Denial),
    /// The service says that it could not find out.
    Failed,
}

/// What is in `http_response`, of which the last one counts.
enum Said {
    Nothing,
    Ok(Permission),
    Denied(Denial),
    Error,
}

/// Reads a `CheckResponse`.
///
/// # Errors
/// [`Unread::Malformed`]: it is none, it says nothing, or it has more than [`EDITS_MAX`] edits.
pub fn read(message: &[u8]) -> Result<Answer, Unread> {
    let mut code = None;
    let mut said = Said::Nothing;
    for field in Fields(message) {
        match field? {
            (1, value) => {
                code = code.or(Some(0));
                for field in Fields(value.bytes()?) {
                    if let (1, value) = field? {
                        code = Some(value.number()?);
                    }
                }
            }
            (2, value) => {
                let before = match said {
                    Said::Denied(denial) => denial,
                    Said::Nothing | Said::Ok(_) | Said::Error => Denial::default(),
                };
                said = Said::Denied(denial(value, before)?);
            }
            (3, value) => {
                let before = match said {
                    Said::Ok(permission) => permission,
                    Said::Nothing | Said::Denied(_) | Said::Error => Permission::default(),
                };
                said = Said::Ok(permission(value, before)?);
            }
            (5, value) => {
                value.bytes()?;
                said = Said::Error;
            }
            (_, _) => {}
        }
    }
    match (code, said) {
        (None, Said::Nothing) => Err(Unread::Malformed),
        (Some(0), Said::Nothing) => Ok(Answer::Allowed(Permission::default())),
        (None | Some(0), Said::Ok(permission)) => Ok(Answer::Allowed(permission)),
        (_, Said::Error) => Ok(Answer::Failed),
        (_, Said::Denied(denial)) => Ok(Answer::Denied(checked(denial))),
        (Some(_), Said::Ok(_) | Said::Nothing) => Ok(Answer::Denied(checked(Denial::default()))),
    }
}

/// A status that no final response has is the one that stands for none.
fn checked(denial: Denial) -> Denial {
    let status = match denial.status {
        status @ 200..=599 => status,
        _ => FORBIDDEN,
    };
    Denial { status, ..denial }
}

fn denial(value: Value<'_>, mut into: Denial) -> Result<Denial, Unread> {
    for field in Fields(value.bytes()?) {
        match field? {
            (1, value) => {
                for field in Fields(value.bytes()?) {
                    if let (1, value) = field? {
                        into.status = u16::try_from(value.number()?).unwrap_or(0);
                    }
                }
            }
            (2, value) => push(&mut into.fields, edit(value, How::Set)?)?,
            (3, value) => into.body = value.text()?.to_vec(),
            (_, _) => {}
        }
    }
    Ok(into)
}

fn permission(value: Value<'_>, mut into: Permission) -> Result<Permission, Unread> {
    for field in Fields(value.bytes()?) {
        match field? {
            // "append defaults to false when used in this message": what a client forged does not stay.
            (2, value) => push(&mut into.edits, edit(value, How::Set)?)?,
            (5, value) => push(&mut into.removed, value.text()?.to_ascii_lowercase())?,
            (6, value) => push(&mut into.response, edit(value, How::Append)?)?,
            (7, value) => push(&mut into.query_set, pair(value)?)?,
            (8, value) => push(&mut into.query_removed, value.text()?.to_vec())?,
            (_, _) => {}
        }
    }
    Ok(into)
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), Unread> {
    if list.len() == EDITS_MAX {
        return Err(Unread::Malformed);
    }
    list.push(item);
    Ok(())
}

/// `HeaderValueOption`. `unsaid`: what neither `append` nor `append_action` says.
fn edit(value: Value<'_>, unsaid: How) -> Result<Edit, Unread> {
    let (mut name, mut text, mut raw) = (&b""[..], &b""[..], &b""[..]);
    let (mut append, mut action) = (None, 0);
    for field in Fields(value.bytes()?) {
        match field? {
            (1, value) => {
                for field in Fields(value.bytes()?) {
                    match field? {
                        (1, value) => name = value.text()?,
                        (2, value) => text = value.text()?,
                        (3, value) => raw = value.bytes()?,
                        (_, _) => {}
                    }
                }
            }
            (2, value) => {
                append = append.or(Some(false));
                for field in Fields(value.bytes()?) {
                    if let (1, value) = field? {
                        append = Some(value.number()? != 0);
                    }
                }
            }
            (3, value) => action = value.number()?,
            (_, _) => {}
        }
    }
    let how = match (append, action) {
        (Some(true), _) => How::Append,
        (Some(false), _) => How::Set,
        (None, 0) => unsaid,
        (None, 1) => How::AddIfAbsent,
        (None, 2) => How::Set,
        (None, 3) => How::SetIfPresent,
        (None, _) => return Err(Unread::Malformed),
    };
    Ok(Edit {
        name: name.to_ascii_lowercase(),
        value: if text.is_empty() { raw.to_vec() } else { text.to_vec() },
        how,
    })
}

/// `QueryParameter`.
fn pair(value: Value<'_>) -> Result<(Vec<u8>, Vec<u8>), Unread> {
    let mut pair = (Vec::new(), Vec::new());
    for field in Fields(value.bytes()?) {
        match field? {
            (1, value) => pair.0 = value.text()?.to_vec(),
            (2, value) => pair.1 = value.text()?.to_vec(),
            (_, _) => {}
        }
    }
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext_authz::wire::{put_message, put_number, put_text};
    use proptest::prelude::*;

    fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, bytes) in fields {
            put_message(*number, bytes, &mut out);
        }
        out
    }

    fn number(field: u32, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(field, value, &mut out);
        out
    }

    fn option(name: &[u8], value: &[u8], more: &[u8]) -> Vec<u8> {
        let mut header = Vec::new();
        put_text(1, name, &mut header);
        put_text(2, value, &mut header);
        [message(&[(1, &header)]), more.to_vec()].concat()
    }

    #[test]
    fn only_ok_passes_and_what_says_nothing_or_contradicts_itself_is_no_permission() {
        let ok = Ok(Answer::Allowed(Permission::default()));
        let no = |status| {
            Ok(Answer::Denied(Denial {
                status,
                ..Denial::default()
            }))
        };
        let seven = number(1, 7);
        let gone = message(&[(1, &number(1, 410))]);
        assert_eq!(read(&message(&[(1, b"")])), ok);
        assert_eq!(read(&message(&[(1, b""), (3, b"")])), ok);
        assert_eq!(read(&message(&[(3, b"")])), ok, "no status is 0 in proto3");
        assert_eq!(read(&message(&[(1, &seven)])), no(403));
        assert_eq!(read(&message(&[(1, &seven), (3, b"")])), no(403));
        assert_eq!(read(&message(&[(1, &seven), (2, &gone)])), no(410));
        assert_eq!(read(&message(&[(1, b""), (2, &gone)])), no(410), "denied beside OK");
        assert_eq!(read(&message(&[(2, b"")])), no(403));
        assert_eq!(
            read(&message(&[(1, b""), (2, b""), (3, b"")])),
            ok,
            "the last one of a oneof counts"
        );
        assert_eq!(read(&message(&[(1, &number(1, u64::MAX))])), no(403), "a negative code");
        assert_eq!(read(&message(&[(1, &seven), (5, b"")])), Ok(Answer::Failed));
        assert_eq!(read(&message(&[(1, b""), (5, b"")])), Ok(Answer::Failed));
        for malformed in [
            &b""[..],
            b"\x22\x00",
            b"\x0a",
            b"\x08\x00",
            b"\x0a\x02\x0a\x00",
            b"\x1a\x01\x08",
            b"\x1b",
        ] {
            assert_eq!(read(malformed), Err(Unread::Malformed), "{malformed:?}");
        }
    }

    #[test]
    fn a_status_that_is_none_is_403() {
        for (said, want) in [
            (0, 403),
            (99, 403),
            (100, 403),
            (199, 403),
            (200, 200),
            (599, 599),
            (600, 403),
            (1 << 40, 403),
        ] {
            let denied = message(&[(1, &number(1, said))]);
            let Ok(Answer::Denied(denial)) = read(&message(&[(1, &number(1, 1)), (2, &denied)])) else {
                panic!("{said} is refused");
            };
            assert_eq!(denial.status, want, "{said}");
        }
    }

    #[test]
    fn fields_are_set_unless_it_is_said_otherwise_and_appended_to_responses() {
        let append = |on: &[u8]| message(&[(2, on)]);
        let ok = message(&[
            (2, &option(b"X-User", b"ann", b"")),
            (2, &option(b"x-a", b"1", &append(&number(1, 1)))),
            (2, &option(b"x-b", b"1", &append(b""))),
            (2, &option(b"x-c", b"1", &number(3, 1))),
            (2, &option(b"x-d", b"1", &number(3, 2))),
            (2, &option(b"x-e", b"1", &number(3, 3))),
            (5, b"Authorization"),
            (6, &option(b"x-r", b"1", b"")),
            (6, &option(b"x-s", b"1", &append(b""))),
            (7, &message(&[(1, b"k"), (2, b"v")])),
            (8, b"gone"),
        ]);
        let Ok(Answer::Allowed(permission)) = read(&message(&[(1, b""), (3, &ok)])) else {
            panic!("it passes");
        };
        let hows: Vec<How> = permission.edits.iter().map(|edit| edit.how).collect();
        let want = [
            How::Set,
            How::Append,
            How::Set,
            How::AddIfAbsent,
            How::Set,
            How::SetIfPresent,
        ];
        assert_eq!(hows, want);
        assert_eq!(
            (&permission.edits[0].name[..], &permission.edits[0].value[..]),
            (&b"x-user"[..], &b"ann"[..])
        );
        assert_eq!(permission.removed, [b"authorization"]);
        let hows: Vec<How> = permission.response.iter().map(|edit| edit.how).collect();
        assert_eq!(hows, [How::Append, How::Set]);
        assert_eq!(permission.query_set, [(b"k".to_vec(), b"v".to_vec())]);
        assert_eq!(permission.query_removed, [b"gone"]);
        let odd = message(&[(2, &option(b"x", b"1", &number(3, 4)))]);
        assert_eq!(
            read(&message(&[(3, &odd)])),
            Err(Unread::Malformed),
            "an action nobody knows"
        );
        let not_text = message(&[(2, &option(b"x", b"\xff", b""))]);
        assert_eq!(read(&message(&[(3, &not_text)])), Err(Unread::Malformed));
    }

    #[test]
    fn more_edits_than_may_be_are_malformed() {
        let one = option(b"x", b"1", b"");
        for (count, fits) in [(EDITS_MAX, true), (EDITS_MAX + 1, false)] {
            let ok = message(&vec![(2, &one[..]); count]);
            assert_eq!(read(&message(&[(3, &ok)])).is_ok(), fits, "{count}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none_and_no_permission_comes_of_what_denies(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = read(&bytes);
            let denied = [bytes, message(&[(2, b"")])].concat();
            prop_assert!(!matches!(read(&denied), Ok(Answer::Allowed(_))));
        }
    }
}
