//! Hostnames of listeners, routes, redirects and rewrites (RFC 1123, 2.1; Gateway API Hostname).

use gateway_core::ir::HostPattern;

/// Longest hostname.
const HOSTNAME_BYTES_MAX: usize = 253;

/// A hostname that may begin with `*.`; `None` and `""` are any host.
pub(super) fn pattern(hostname: Option<&str>) -> Result<HostPattern, String> {
    let Some(name) = hostname.filter(|name| !name.is_empty()) else {
        return Ok(HostPattern::Any);
    };
    precise(name.strip_prefix("*.").unwrap_or(name))
        .map_err(|problem| format!("{name:?} is no hostname: {problem}"))?;
    Ok(HostPattern::parse(Some(name)))
}

/// A hostname without wildcard.
pub(super) fn precise(name: &str) -> Result<(), String> {
    if name.len() > HOSTNAME_BYTES_MAX {
        return Err(format!("it is longer than {HOSTNAME_BYTES_MAX} bytes"));
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Err("an address is not allowed here".to_owned());
    }
    for label in name.split('.') {
        let fine = (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !fine {
            return Err(format!("{label:?} is not made of a-z, 0-9 and inner hyphens"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_a_first_label_only() {
        assert_eq!(pattern(Some("*.a.b")), Ok(HostPattern::Suffix(".a.b".to_owned())));
        assert_eq!(pattern(None), Ok(HostPattern::Any));
        for bad in [
            "*", "a.*.b", "*a.b", "A.b", "a..b", "-a.b", "10.0.0.1", "a.b.", "a b", "a:80",
        ] {
            assert!(pattern(Some(bad)).is_err(), "{bad}");
        }
    }
}
