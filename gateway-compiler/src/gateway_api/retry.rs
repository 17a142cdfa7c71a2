//! `rules[].retry` of an HTTPRoute (GEP-1731).

use super::duration;
use crate::objects::kinds::RetrySpec;
use gateway_core::ir::Retry;
use std::time::Duration;

/// Pause before the first retry where a rule gives none, as Envoy's.
const BACKOFF: Duration = Duration::from_millis(25);
/// Most codes of one rule: there are no more.
const CODES_MAX: usize = 200;
/// More retries than this do more harm than good.
const ATTEMPTS_WISE: u32 = 5;

/// Field, problem, remedy.
pub(super) type Bad = (String, String, &'static str);

/// What is to be retried, and what is risky about it; `None` where it is switched off. `field`: the rule's.
pub(super) fn convert(spec: &RetrySpec, field: &str) -> Result<(Option<Retry>, Vec<Bad>), Bad> {
    let at = |name: &str| format!("{field}.retry.{name}");
    let attempts = match u32::try_from(spec.attempts.unwrap_or(1)) {
        Ok(attempts) => attempts,
        Err(_) => {
            let problem = "the number of attempts is negative or absurd".to_owned();
            return Err((at("attempts"), problem, "write a small number, 0 for none"));
        }
    };
    let mut statuses = Vec::new();
    if spec.codes.len() > CODES_MAX {
        let problem = format!("more than {CODES_MAX} codes");
        return Err((at("codes"), problem, "name each once"));
    }
    for (index, code) in spec.codes.iter().enumerate() {
        match u16::try_from(*code) {
            Ok(status @ 400..=599) => statuses.push(status),
            Ok(_) | Err(_) => {
                let problem = format!("{code} is no status that can be retried");
                return Err((at(&format!("codes[{index}]")), problem, "write 400 to 599"));
            }
        }
    }
    statuses.sort_unstable();
    statuses.dedup();
    let backoff = match &spec.backoff {
        None => BACKOFF,
        Some(text) => match duration::parse(text) {
            Some(backoff) => backoff,
            None => {
                let problem = format!("{text:?} is no duration");
                return Err((at("backoff"), problem, "write a duration such as 100ms"));
            }
        },
    };
    let mut risks = Vec::new();
    if attempts > ATTEMPTS_WISE {
        let problem = format!("{attempts} retries of each request make an outage worse");
        risks.push((at("attempts"), problem, "3 is plenty"));
    }
    if backoff.is_zero() && attempts > 0 {
        let problem = "retries without a pause hit an endpoint that is down already".to_owned();
        risks.push((at("backoff"), problem, "leave it out, or write 25ms or more"));
    }
    if let Some(status) = statuses
        .iter()
        .find(|status| !matches!(status, 408 | 425 | 429 | 500..))
    {
        let problem = format!("a {status} says that the request is wrong: sent again it gets the same answer");
        risks.push((
            at("codes"),
            problem,
            "retry 500 to 599, and of 4xx only 408, 425 and 429",
        ));
    }
    let retry = Retry {
        attempts,
        statuses,
        grpc_statuses: Vec::new(),
        backoff,
    };
    Ok((Some(retry).filter(|retry| retry.attempts > 0), risks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(codes: &[i64], attempts: Option<i64>, backoff: Option<&str>) -> RetrySpec {
        RetrySpec {
            codes: codes.to_vec(),
            attempts,
            backoff: backoff.map(str::to_owned),
        }
    }

    #[test]
    fn one_attempt_after_25_ms_unless_said_otherwise_and_zero_is_none() {
        let retry = |spec| convert(&spec, "r").map(|(retry, _)| retry);
        let given = Retry {
            attempts: 1,
            statuses: vec![500, 503],
            grpc_statuses: vec![],
            backoff: BACKOFF,
        };
        assert_eq!(retry(spec(&[503, 500, 503], None, None)), Ok(Some(given.clone())));
        let given = Retry {
            attempts: 3,
            statuses: vec![],
            backoff: Duration::from_millis(200),
            ..given
        };
        assert_eq!(retry(spec(&[], Some(3), Some("200ms"))), Ok(Some(given)));
        assert_eq!(retry(spec(&[500], Some(0), None)), Ok(None));
    }

    #[test]
    fn what_cannot_be_is_told_with_its_field() {
        for (spec, field) in [
            (spec(&[500, 399], None, None), "r.retry.codes[1]"),
            (spec(&[600], None, None), "r.retry.codes[0]"),
            (spec(&[], Some(-1), None), "r.retry.attempts"),
            (spec(&[], None, Some("soon")), "r.retry.backoff"),
        ] {
            assert_eq!(convert(&spec, "r").unwrap_err().0, field);
        }
    }

    #[test]
    fn what_is_risky_is_told_and_served() {
        for (spec, field) in [
            (spec(&[500], Some(6), None), "r.retry.attempts"),
            (spec(&[500], None, Some("0s")), "r.retry.backoff"),
            (spec(&[404, 503], None, None), "r.retry.codes"),
        ] {
            let (retry, risks) = convert(&spec, "r").unwrap();
            assert!(retry.is_some());
            assert_eq!(risks.iter().map(|risk| risk.0.as_str()).collect::<Vec<_>>(), [field]);
        }
        assert_eq!(convert(&spec(&[429, 500, 599], Some(3), None), "r").unwrap().1, []);
    }
}
