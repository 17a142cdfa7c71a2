//! What is sent beside requests: copies to mirrors, and questions to authorization services.

use super::exposition::{Exposition, Kind};
use gateway_http::authorization::Unanswered;
use gateway_http::metrics::Metrics;

pub(super) fn put(http: &Metrics, out: &mut Exposition) {
    out.family(
        "sluice_http_mirrors_total",
        Kind::Counter,
        "Copies of requests: begun, dropped because they lagged or there were too many, and not answered.",
    )
    .sample(&[("outcome", "begun")], http.mirrors_total)
    .sample(&[("outcome", "dropped")], http.mirrors_dropped_total)
    .sample(&[("outcome", "failed")], http.mirrors_failed_total);
    out.family(
        "sluice_http_auth_total",
        Kind::Counter,
        "Questions to authorization services: allowed, denied, and refused because no answer came.",
    )
    .sample(&[("outcome", "allowed")], http.auth_allowed_total)
    .sample(&[("outcome", "denied")], http.auth_denied_total)
    .sample(&[("outcome", "failed")], http.auth_failed_total);
    out.family(
        "sluice_http_auth_unanswered_total",
        Kind::Counter,
        "Questions to authorization services that came to no answer, by what ended them; their requests were refused.",
    );
    for why in Unanswered::ALL {
        out.sample(&[("reason", why.name())], http.auth_unanswered[why as usize]);
    }
}
