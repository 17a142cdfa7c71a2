//! Host names that objects name as endpoints, resolved and kept fresh (RFC 1035), off the data path.
//!
//! A name is asked again when its records expire, within [`FRESH_MIN`] and [`FRESH_MAX`]. One that no longer resolves
//! keeps the addresses it had: a name server that is down must not take services with it.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Most names that are resolved; the rest is reported.
pub const NAMES_MAX: usize = 4096;
/// Questions that wait for answers at one time.
const QUESTIONS_MAX: usize = 32;
/// A name is not asked about more often, whatever its records say.
const FRESH_MIN: Duration = Duration::from_secs(5);
/// Nor less often.
const FRESH_MAX: Duration = Duration::from_secs(300);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// A process that starts waits so long for the first answers.
const FIRST: Duration = Duration::from_millis(500);
/// For one name, all servers and tries together.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a name came to.
pub type Resolved = Result<Vec<IpAddr>, String>;

/// The names that are wanted, and what is known about them.
#[derive(Clone)]
pub struct Names {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<BTreeMap<String, Entry>>,
    wanted: Notify,
    answered: Condvar,
}

struct Entry {
    /// None until the first answer.
    resolved: Option<Resolved>,
    due: Instant,
    asking: bool,
}

impl Names {
    /// Resolves on a thread of its own, and calls `changed` when a name's addresses are others than before.
    pub fn start(changed: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            table: Mutex::default(),
            wanted: Notify::new(),
            answered: Condvar::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let theirs = shared.clone();
        thread::Builder::new()
            .name("names".into())
            .spawn(move || runtime.block_on(resolve(&theirs, &changed)))?;
        Ok(Self { shared })
    }

    /// From now on exactly these names are resolved.
    pub fn want(&self, names: BTreeSet<String>) {
        let mut table = self.shared.table();
        table.retain(|name, _| names.contains(name));
        for name in names {
            if table.len() < NAMES_MAX {
                table.entry(name).or_insert_with(|| Entry {
                    resolved: None,
                    due: Instant::now(),
                    asking: false,
                });
            } else if !table.contains_key(&name) {
                tracing::warn!("{name} is not resolved: more than {NAMES_MAX} host names are endpoints");
            }
        }
        drop(table);
        self.shared.wanted.notify_one();
    }

    /// Waits for the first answers, though not long. Only for who serves nothing yet: no name may hold up the changes of
    /// others.
    pub fn settle(&self) {
        let unknown = |table: &mut BTreeMap<String, Entry>| table.values().any(|entry| entry.resolved.is_none());
        let waited = self
            .shared
            .answered
            .wait_timeout_while(self.shared.table(), FIRST, unknown);
        drop(waited);
    }

    /// What is known.
    pub fn known(&self) -> BTreeMap<String, Resolved> {
        let table = self.shared.table();
        let known = table
            .iter()
            .filter_map(|(name, entry)| Some((name.clone(), entry.resolved.clone()?)));
        known.collect()
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names that are due, at most `room`, and when the next one is.
    fn due(&self, now: Instant, room: usize) -> (Vec<String>, Option<Instant>) {
        let mut table = self.table();
        let mut due = Vec::new();
        for (name, entry) in table
            .iter_mut()
            .filter(|(_, entry)| !entry.asking && entry.due <= now)
            .take(room)
        {
            entry.asking = true;
            due.push(name.clone());
        }
        let next = table
            .values()
            .filter(|entry| !entry.asking)
            .map(|entry| entry.due)
            .min();
        (due, next)
    }

    /// Takes an answer; true if it is another than before.
    fn learn(&self, name: &str, answer: Result<(Vec<IpAddr>, Instant), String>, now: Instant) -> bool {
        let mut table = self.table();
        let Some(entry) = table.get_mut(name) else { return false };
        entry.asking = false;
        let (resolved, due) = match answer {
            Ok((mut addresses, until)) => {
                addresses.sort();
                addresses.dedup();
                (Ok(addresses), until.clamp(now + FRESH_MIN, now + FRESH_MAX))
            }
            Err(_) if matches!(entry.resolved, Some(Ok(_))) => {
                entry.due = now + RETRY;
                return false;
            }
            Err(why) => (Err(why), now + RETRY),
        };
        entry.due = due;
        if entry.resolved.as_ref() == Some(&resolved) {
            return false;
        }
        entry.resolved = Some(resolved);
        self.answered.notify_all();
        true
    }
}

async fn resolve(shared: &Shared, changed: &dyn Fn()) {
    // The host's own configuration; read again when nothing can be asked with it.
    let mut resolver = of_the_host();
    let mut questions = JoinSet::new();
    loop {
        let (due, next) = shared.due(Instant::now(), QUESTIONS_MAX - questions.len());
        for name in due {
            let resolver = resolver.clone();
            questions.spawn(async move {
                let answer = ask(resolver, &name).await;
                (name, answer)
            });
        }
        let next = next.unwrap_or_else(|| Instant::now() + FRESH_MAX);
        tokio::select! {
            Some(Ok((name, answer))) = questions.join_next() => {
                if let Err(why) = &answer {
                    tracing::debug!("{name} does not resolve: {why}");
                    resolver = of_the_host();
                }
                if shared.learn(&name, answer, Instant::now()) {
                    changed();
                }
            }
            () = shared.wanted.notified() => {}
            () = tokio::time::sleep_until(next.into()), if questions.len() < QUESTIONS_MAX => {}
        }
    }
}

fn of_the_host() -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Expiry is ours.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

async fn ask(resolver: Result<TokioResolver, String>, name: &str) -> Result<(Vec<IpAddr>, Instant), String> {
    // Absolute: the search list of the host is not part of the name.
    let asked = format!("{name}.");
    let resolver = resolver?;
    match tokio::time::timeout(PATIENCE, resolver.lookup_ip(asked)).await {
        Ok(Ok(found)) => Ok((found.iter().collect(), found.valid_until())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn shared(names: &[&str]) -> Names {
        let names_of = Names {
            shared: Arc::new(Shared {
                table: Mutex::default(),
                wanted: Notify::new(),
                answered: Condvar::new(),
            }),
        };
        names_of.want(names.iter().map(|name| (*name).to_owned()).collect());
        names_of
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_that_stops_resolving_keeps_its_addresses() {
        let names = shared(&["a.example"]);
        let now = Instant::now();
        assert_eq!(names.shared.due(now, 9).0, ["a.example"]);
        assert_eq!(names.shared.due(now, 9).0, [""; 0], "nobody asks twice at a time");
        assert!(
            names
                .shared
                .learn("a.example", Ok((vec![at("192.0.2.2"), at("192.0.2.1")], now)), now)
        );
        assert!(!names.shared.learn("a.example", Err("down".into()), now));
        assert_eq!(
            names.known(),
            BTreeMap::from([("a.example".to_owned(), Ok(vec![at("192.0.2.1"), at("192.0.2.2")]))])
        );
        assert_eq!(names.shared.due(now + RETRY, 9).0, ["a.example"]);
    }

    #[test]
    fn expiry_is_kept_within_bounds_and_the_same_answer_is_no_news() {
        let names = shared(&["a.example"]);
        let now = Instant::now();
        let answer = |until| Ok((vec![at("192.0.2.1")], until));
        assert!(names.shared.learn("a.example", answer(now), now));
        assert!(names.shared.due(now + FRESH_MIN / 2, 9).0.is_empty());
        assert!(!names.shared.learn("a.example", answer(now + FRESH_MAX * 9), now));
        assert_eq!(names.shared.due(now + FRESH_MAX, 9).0, ["a.example"]);
        names.want(BTreeSet::new());
        assert!(
            !names.shared.learn("a.example", answer(now), now),
            "nobody wants it any more"
        );
        assert!(names.known().is_empty());
    }

    #[test]
    fn a_name_of_the_hosts_file_resolves_and_is_told() {
        let (send, receive) = channel();
        let names = Names::start(move || send.send(()).unwrap()).unwrap();
        names.want(["localhost".to_owned()].into());
        receive.recv_timeout(Duration::from_secs(20)).expect("an answer");
        let known = names.known();
        let Ok(addresses) = &known["localhost"] else {
            panic!("{known:?}")
        };
        assert!(
            addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty(),
            "{known:?}"
        );
    }
}
