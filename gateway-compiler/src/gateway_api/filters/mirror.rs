//! RequestMirror: which share of a rule's requests goes to a second Service too.

use super::{BadFilter, Referred, bad};
use crate::objects::kinds::{BackendRef, MirrorSpec};
use crate::status::reason;
use gateway_core::ir::Mirror;

/// A share of all requests when neither percent nor fraction is given is all of them.
pub(super) fn convert(
    spec: &MirrorSpec,
    field: &str,
    resolve: &mut dyn FnMut(&BackendRef, String) -> Referred,
) -> Result<Mirror, BadFilter> {
    let wrong = |part: &str, problem: String, remedy| {
        Err(bad(
            reason::UNSUPPORTED_VALUE,
            format!("{field}{part}"),
            problem,
            remedy,
        ))
    };
    let (numerator, denominator) = match (spec.percent, &spec.fraction) {
        (Some(_), Some(_)) => {
            let problem = "percent and fraction are both given".to_owned();
            return wrong("", problem, "keep one of them");
        }
        (None, None) => (1, 1),
        (Some(percent), None) => (percent, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
    };
    if denominator == 0 || numerator > denominator {
        let problem = format!("{numerator} of {denominator} is no share of the requests");
        return wrong("", problem, "write a percent of 0 to 100, or a fraction of at most 1");
    }
    let Referred { to, protocol, .. } = resolve(&spec.backend_ref, format!("{}.backendRef", field));
    Ok(Mirror {
        to,
        protocol,
        numerator,
        denominator,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::kinds::FractionSpec;
    use gateway_core::ir::{Destination, UpstreamProtocol};

    #[test]
    fn a_share_is_a_percent_or_a_fraction_and_at_most_all() {
        let share = |percent, fraction: Option<(u32, Option<u32>)>| {
            let spec = MirrorSpec {
                percent,
                fraction: fraction.map(|(numerator, denominator)| FractionSpec { numerator, denominator }),
                ..MirrorSpec::default()
            };
            let mut resolve = |_: &BackendRef, field: String| {
                assert_eq!(field, "[0].requestMirror.backendRef");
                Referred {
                    to: Destination::Service("default/echo:80".into()),
                    protocol: UpstreamProtocol::H2c,
                    asked: None,
                }
            };
            let mirror = convert(&spec, "[0].requestMirror", &mut resolve).ok()?;
            Some((mirror.numerator, mirror.denominator))
        };
        assert_eq!(share(None, None), Some((1, 1)));
        assert_eq!(share(Some(25), None), Some((25, 100)));
        assert_eq!(share(Some(0), None), Some((0, 100)));
        assert_eq!(share(None, Some((3, None))), Some((3, 100)));
        assert_eq!(share(None, Some((1, Some(3)))), Some((1, 3)));
        assert_eq!(share(Some(101), None), None);
        assert_eq!(share(None, Some((1, Some(0)))), None);
        assert_eq!(share(Some(1), Some((1, None))), None);
    }
}
