//! Which of the processes that serve writes statuses: the holder of a Lease (coordination.k8s.io).
//!
//! The law of client-go's leader election: a holder renews long before its lease runs out and steps down before others
//! may take it; others judge by their own clock how long a lease has not been renewed, so clocks need not agree.

use super::stamp;
use super::world::World;
use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// A lease that was not renewed for so long may be taken.
const LEASE: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long steps down.
const STEP_DOWN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// One request.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// The Lease of every process that answers for the same controller.
const NAME: &str = "sluice-gateway-controller";

/// Runs for the lease, and says in the facts whether this process holds it.
pub async fn run(world: Arc<World>, client: Client, namespace: String) {
    let mut runner = Runner {
        candidate: Candidate::new(identity()),
        api: Api::namespaced_with(client, &namespace, &resource()),
        namespace,
        warned: false,
    };
    loop {
        runner.turn().await;
        let leads = runner.candidate.leads(Instant::now());
        if world.facts.leader() != leads {
            world.facts.set_leader(leads);
            let me = &runner.candidate.me;
            match leads {
                true => info!("{me} writes statuses"),
                false => info!("{me} does not write statuses any more"),
            }
            world.touched.notify_one();
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Gives the lease back, so that the next process need not wait for its end.
pub async fn release(client: Client, namespace: &str) {
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource());
    let Ok(Ok(Some(mut lease))) = tokio::time::timeout(ANSWER_MAX, api.get_opt(NAME)).await else {
        return;
    };
    lease.data["spec"]["holderIdentity"] = json!("");
    lease.data["spec"]["leaseDurationSeconds"] = json!(1);
    // Whoever wrote meanwhile holds it now.
    let _ = tokio::time::timeout(ANSWER_MAX, api.replace(NAME, &PostParams::default(), &lease)).await;
}

fn resource() -> ApiResource {
    ApiResource {
        group: "coordination.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "coordination.k8s.io/v1".to_owned(),
        kind: "Lease".to_owned(),
        plural: "leases".to_owned(),
    }
}

/// The Pod's name, else the host's, and a part that differs after a restart.
fn identity() -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = std::env::var("POD_NAME").unwrap_or_else(|_| host());
    let lot = RandomState::new().hash_one(std::process::id());
    format!("{}_{:08x}", name.trim(), lot & 0xffff_ffff)
}

struct Runner {
    candidate: Candidate,
    api: Api<DynamicObject>,
    namespace: String,
    warned: bool,
}

impl Runner {
    async fn turn(&mut self) {
        match tokio::time::timeout(ANSWER_MAX, self.try_once()).await {
            Ok(Ok(())) => self.warned = false,
            Ok(Err(error)) => {
                if let kube::Error::Api(status) = &error
                    && matches!(status.code, 401 | 403 | 404)
                    && !std::mem::replace(&mut self.warned, true)
                {
                    warn!(
                        "no statuses are written from here: the Lease {}/{NAME} cannot be had: {} (mend: allow get, \
                         create and update of `leases` there, or say --kube-leader-election false)",
                        self.namespace, status.message
                    );
                }
                debug!("lease: {error}");
            }
            Err(_) => debug!("lease: no answer"),
        }
    }

    async fn try_once(&mut self) -> kube::Result<()> {
        let lease = self.api.get_opt(NAME).await?;
        let began = Instant::now();
        let spec = lease.as_ref().map(|lease| &lease.data["spec"]);
        let Some(spec) = self.candidate.judge(spec, began) else {
            return Ok(());
        };
        let parameters = PostParams::default();
        let written = match lease {
            Some(mut lease) => {
                lease.data["spec"] = spec;
                self.api.replace(NAME, &parameters, &lease).await
            }
            None => {
                let lease = DynamicObject::new(NAME, &resource()).data(json!({"spec": spec}));
                self.api.create(&parameters, &lease).await
            }
        };
        match written {
            Ok(lease) => self.candidate.won(&lease.data["spec"], began),
            // Somebody was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// What one process knows of the lease. Pure: time comes in.
struct Candidate {
    me: String,
    /// Holder and time of renewal as seen last, and when that was new.
    seen: Option<(String, Instant)>,
    /// When this process began the request that renewed it last.
    renewed: Option<Instant>,
}

impl Candidate {
    fn new(me: String) -> Self {
        Self {
            me,
            seen: None,
            renewed: None,
        }
    }

    fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now.duration_since(at) < STEP_DOWN)
    }

    /// The lease to write, if it is ours to renew or free to take.
    fn judge(&mut self, spec: Option<&Value>, now: Instant) -> Option<Value> {
        let text = |name: &str| spec.and_then(|spec| spec[name].as_str()).unwrap_or_default();
        let (holder, renewed) = (text("holderIdentity"), text("renewTime"));
        let stamp = format!("{holder} {renewed}");
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != stamp) {
            self.seen = Some((stamp, now));
        }
        if holder != self.me {
            self.renewed = None;
        }
        let ours = holder == self.me;
        let old = self
            .seen
            .as_ref()
            .is_some_and(|(_, since)| now.duration_since(*since) >= LEASE);
        if !ours && !holder.is_empty() && !old {
            return None;
        }
        let transitions = spec.and_then(|spec| spec["leaseTransitions"].as_i64()).unwrap_or(0);
        let stamp = stamp::now_micros();
        let acquired = match ours {
            true => text("acquireTime").to_owned(),
            false => stamp.clone(),
        };
        Some(json!({
            "holderIdentity": self.me,
            "leaseDurationSeconds": LEASE.as_secs(),
            "acquireTime": acquired,
            "renewTime": stamp,
            "leaseTransitions": transitions + i64::from(!ours && spec.is_some()),
        }))
    }

    /// The lease was written as [`Candidate::judge`] said, by a request that began then.
    fn won(&mut self, spec: &Value, began: Instant) {
        let text = |name: &str| spec[name].as_str().unwrap_or_default();
        self.seen = Some((format!("{} {}", text("holderIdentity"), text("renewTime")), began));
        self.renewed = Some(began);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_free_lease_is_taken_renewed_and_lost_to_nobody_while_it_is_renewed() {
        let begin = Instant::now();
        let (mut a, mut b) = (Candidate::new("a".to_owned()), Candidate::new("b".to_owned()));
        let lease = a.judge(None, begin).expect("it is free");
        a.won(&lease, begin);
        assert_eq!(
            (lease["holderIdentity"].as_str(), lease["leaseTransitions"].as_i64()),
            (Some("a"), Some(0))
        );
        assert!(a.leads(begin) && !b.leads(begin));
        let mut lease = lease;
        for second in (0..60).step_by(2) {
            let now = after(begin, second);
            assert_eq!(b.judge(Some(&lease), now), None, "at {second}");
            let renewed = a.judge(Some(&lease), now).expect("ours");
            assert_eq!(renewed["acquireTime"], lease["acquireTime"]);
            a.won(&renewed, now);
            lease = renewed;
        }
    }

    #[test]
    fn a_holder_that_cannot_renew_steps_down_before_another_takes_over() {
        let begin = Instant::now();
        let (mut a, mut b) = (Candidate::new("a".to_owned()), Candidate::new("b".to_owned()));
        let lease = a.judge(None, begin).expect("it is free");
        a.won(&lease, begin);
        let taken = (0..).find(|second| b.judge(Some(&lease), after(begin, *second)).is_some());
        let left = (0..).find(|second| !a.leads(after(begin, *second)));
        assert_eq!((left, taken), (Some(10), Some(15)));
        let next = b.judge(Some(&lease), after(begin, 15)).expect("run out");
        assert_eq!(next["leaseTransitions"], 1);
        // The old holder comes back and sees another one.
        assert_eq!(a.judge(Some(&next), after(begin, 16)), None);
        assert!(!a.leads(after(begin, 16)));
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let begin = Instant::now();
        let mut b = Candidate::new("b".to_owned());
        let given = json!({"holderIdentity": "", "renewTime": "x", "leaseTransitions": 4});
        let lease = b.judge(Some(&given), begin).expect("it is free");
        assert_eq!(lease["leaseTransitions"], 5);
        assert_ne!(identity(), identity());
    }
}
