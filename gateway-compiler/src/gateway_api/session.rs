//! `rules[].sessionPersistence` of HTTPRoute and GRPCRoute (GEP-1619), in the words of v1.7 and of those before.
//!
//! The key of a rule's tokens is made of its name and its route's `metadata.uid`: the same for every gateway of the
//! cluster, after every restart, and unknown outside. A route from a file has no uid: who knows its name could make
//! tokens, and with them choose among the endpoints of the rule that it might have been given anyway.

use super::duration;
use super::filters::is_token;
use crate::hash::fnv;
use crate::objects::kinds::{CookieSpec, SessionSpec};
use gateway_core::ir::{RuleName, Session, SessionToken};
use gateway_core::session;
use std::time::Duration;

const PATH_BYTES_MAX: usize = 1024;

/// Field below `sessionPersistence`, problem, remedy.
pub(super) type Bad = (&'static str, String, &'static str);

pub(super) fn convert(spec: &SessionSpec, rule: &RuleName, uid: &str) -> Result<Session, Bad> {
    let absolute = time(&spec.absolute_timeout, "absoluteTimeout")?;
    let token = match spec.kind.as_deref().unwrap_or("Cookie") {
        "Cookie" => cookie(spec, rule, absolute)?,
        "Header" => {
            let name = spec.header.as_ref().map(|header| &header.name);
            let name = name.or(spec.session_name.as_ref()).cloned();
            let name = name.unwrap_or_else(|| generated(rule)).to_ascii_lowercase();
            checked(&name, "header.name")?;
            SessionToken::Header { name }
        }
        other => {
            let problem = format!("{other:?} is no kind of session");
            return Err(("type", problem, "write Cookie or Header"));
        }
    };
    Ok(Session {
        token,
        absolute,
        idle: time(&spec.idle_timeout, "idleTimeout")?,
        key: session::key(&format!("{rule} {uid}")),
    })
}

fn cookie(spec: &SessionSpec, rule: &RuleName, absolute: Option<Duration>) -> Result<SessionToken, Bad> {
    let none = CookieSpec::default();
    let cookie = spec.cookie.as_ref().or(spec.cookie_config.as_ref()).unwrap_or(&none);
    let name = cookie.name.as_ref().or(spec.session_name.as_ref()).cloned();
    let name = name.unwrap_or_else(|| generated(rule));
    checked(&name, "cookie.name")?;
    let path = cookie.path.clone().unwrap_or_else(|| "/".to_owned());
    let fine = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX || !path.bytes().all(fine) {
        let problem = format!("{path:?} is no path of a cookie");
        return Err(("cookie.path", problem, "write / or a path below it, without semicolons"));
    }
    let permanent = match cookie.lifetime_type.as_deref().unwrap_or("Session") {
        "Session" => false,
        "Permanent" if absolute.is_some() => true,
        "Permanent" => {
            let problem = "a permanent cookie needs an absoluteTimeout".to_owned();
            return Err(("cookie.lifetimeType", problem, "add sessionPersistence.absoluteTimeout"));
        }
        other => {
            let problem = format!("{other:?} is no lifetime of a cookie");
            return Err(("cookie.lifetimeType", problem, "write Session or Permanent"));
        }
    };
    Ok(SessionToken::Cookie { name, path, permanent })
}

/// A name of the rule's own.
fn generated(rule: &RuleName) -> String {
    format!("sluice-session-{:016x}", fnv(rule.as_str().as_bytes()))
}

fn checked(name: &str, field: &'static str) -> Result<(), Bad> {
    match is_token(name) {
        true => Ok(()),
        false => {
            let problem = format!("{name:?} is no name");
            Err((field, problem, "use letters, digits and hyphens"))
        }
    }
}

/// Zero is none.
fn time(text: &Option<String>, field: &'static str) -> Result<Option<Duration>, Bad> {
    let Some(text) = text else { return Ok(None) };
    match duration::parse(text) {
        Some(time) => Ok(Some(time).filter(|time| !time.is_zero())),
        None => {
            let problem = format!("{text:?} is no duration");
            Err((field, problem, "write a duration such as 1h"))
        }
    }
}
