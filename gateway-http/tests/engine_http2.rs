//! The engine between the `h2` crate as client and as endpoint.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/peer.rs"]
mod peer;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/rig.rs"]
mod rig;

use bytes::Bytes;
use config::Config;
use gateway_http::limits::Limits;
use http::HeaderMap;
use peer::{body, call, client, echo, endpoint, get, send_all};
use rig::Rig;

async fn rig(config: Config) -> Rig {
    Rig::start(config.snapshot(), Limits::default())
}

#[tokio::test(start_paused = true)]
async fn a_get_is_forwarded_and_answered() {
    let rig = rig(Config::new(1)).await;
    let _endpoint = endpoint(&rig, 1, |incoming| echo("be1", incoming)).await;
    let mut client = client(&rig).await;
    let (response, _) = client.send_request(get("/a/./b?x=1"), true).expect("sent");
    let response = response.await.expect("answered");
    assert_eq!(response.status(), 200);
    let fields = response.headers();
    assert_eq!(fields["x-endpoint"], "be1");
    assert_eq!(fields["echo-path"], "/a/b?x=1");
    assert_eq!(fields["echo-scheme"], "http");
    assert_eq!(fields["echo-authority"], "example.com");
    assert_eq!(fields["echo-x-forwarded-for"], "198.18.1.2");
    assert_eq!(fields["echo-x-forwarded-proto"], "http");
    assert_eq!(fields["echo-x-request-id"].len(), 36);
    let (bytes, trailers) = body(&mut response.into_body()).await.expect("whole");
    assert!(bytes.is_empty());
    assert_eq!(trailers.expect("trailers")["x-trailer"], "be1");
    let done = rig.done(1).await;
    assert_eq!((done[0].status, done[0].attempts, done[0].fault), (200, 1, None));
    assert!(done[0].rule && done[0].first_byte && done[0].endpoint.is_some());
}
