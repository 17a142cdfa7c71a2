//! The sweep: writes the coarse clock and the workers' loads, walks the flow tables, removes what has ended, settles
//! rings and tells which draining endpoints have no flow left. What an entry's fate is, is decided by
//! `gateway_common::sweep`; the laws are in `docs/adr/0003-flow-state.md`.

use super::apply::{Pending, Writer};
use super::load::Maps;
use gateway_common::abi::flow::TICKS_PER_SECOND;
use gateway_common::abi::{AddrWords, Flow, FlowKey, addr_from_words};
use gateway_common::datapath::header::PROTO_UDP;
use gateway_common::datapath::slot_of;
use gateway_common::sweep::{Fate, Look, flow_fate, pressed, reverse_fate};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at the workers' loads.
const LOAD_PERIOD: Duration = Duration::from_millis(20);
/// Between two sweeps while something waits for one: an unsettled ring, a draining endpoint.
const SWEEP_SOON: Duration = Duration::from_millis(500);
/// Between two sweeps otherwise.
const SWEEP_PERIOD: Duration = Duration::from_secs(10);
/// Between two looks at the way to the endpoints.
const REFRESH_PERIOD: Duration = Duration::from_secs(2);
/// The same while some endpoint has none.
const REFRESH_SOON: Duration = Duration::from_millis(200);
/// Endpoints looked at in one refresh; the next goes on from there.
const REFRESH_MAX: usize = 1024;
/// Flows that [`list`] gives at most.
pub const LISTED_MAX: usize = 10_000;

/// A live flow of the kernel plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFlow {
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub endpoint: SocketAddr,
    pub udp: bool,
    /// Id of the VIP's listener.
    pub vip_id: u32,
    /// Since its last packet from the endpoint; of UDP, its last packet.
    pub idle: Duration,
}

/// What the sweep works with.
pub struct Sweep {
    pub maps: Arc<Maps>,
    pub writer: Arc<Mutex<Writer>>,
    pub loads: Arc<Mutex<Vec<Arc<AtomicU32>>>>,
    pub on_idle: Box<dyn Fn(Idle) + Send>,
    /// Idle limit of UDP flows that go both ways.
    pub udp_idle_ticks: u32,
}

/// What wakes the sweep before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// The maps were changed.
    Soon,
    Stop,
}

/// Endpoint indexes that drain and no open flow names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// No flow names them at all: they may be given to another endpoint.
    pub unnamed: Vec<u16>,
    /// At most flows that are closing name them: nobody would notice if they went.
    pub quiet: Vec<u16>,
}

impl Sweep {
    /// Runs until told to stop or until nobody can tell any more.
    pub fn run(&self, wakes: &Receiver<Wake>) {
        // The clock counts time during which a process watched: it goes on from the value it finds.
        let base = self.maps.clock.get(&0).ok().flatten().unwrap_or(0);
        let start = Instant::now();
        let mut shown = Vec::new();
        let mut clock = None;
        let mut swept = start;
        let mut refreshed = start;
        let mut again = start;
        let mut refresh_at = 0;
        let mut entries = 0;
        loop {
            match wakes.recv_timeout(LOAD_PERIOD) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Wake::Soon) | Err(RecvTimeoutError::Timeout) => {}
            }
            let ticks = base.wrapping_add((start.elapsed().as_millis() / u128::from(1000 / TICKS_PER_SECOND)) as u32);
            self.write_loads(&mut shown);
            if clock != Some(ticks) {
                clock = Some(ticks);
                self.report(self.writer().write_clock(ticks), "write the clock");
            }
            let pending = self.writer().pending();
            let waits = !pending.rings.is_empty() || !pending.draining.is_empty();
            if swept.elapsed() >= if waits { SWEEP_SOON } else { SWEEP_PERIOD } {
                let look = Look {
                    now: ticks,
                    pressed: pressed(entries),
                    streaming: self.udp_idle_ticks,
                };
                match self.sweep(&pending, look) {
                    Ok(found) => entries = found,
                    Err(error) => self.report(Err(error), "sweep the flows"),
                }
                swept = Instant::now();
            }
            if refreshed.elapsed() >= REFRESH_PERIOD {
                self.refresh(&mut refresh_at);
                refreshed = Instant::now();
                again = refreshed;
            } else if again.elapsed() >= REFRESH_SOON {
                self.refresh_unresolved();
                again = Instant::now();
            }
        }
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        // A panic while writing leaves the mirror at the last finished operation, which is true.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A failure is told and tried again at the next turn: traffic goes on with what the maps hold.
    fn report(&self, result: io::Result<()>, doing: &str) {
        if let Err(error) = result {
            tracing::warn!("{doing}: {error}");
        }
    }

    fn write_loads(&self, shown: &mut Vec<u32>) {
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<u32> = loads.iter().map(|load| load.load(Ordering::Relaxed)).collect();
        drop(loads);
        if now != *shown {
            self.report(self.writer().write_loads(&now), "write the loads");
            *shown = now;
        }
    }

    fn refresh(&self, at: &mut usize) {
        let mut writer = self.writer();
        let all: Vec<u16> = writer.tables().endpoints.keys().copied().collect();
        if *at >= all.len() {
            *at = 0;
        }
        let some = &all[*at..all.len().min(*at + REFRESH_MAX)];
        self.report(writer.refresh_endpoints(some), "look for the way to the endpoints");
        *at += REFRESH_MAX;
    }

    fn refresh_unresolved(&self) {
        let mut writer = self.writer();
        let mut some = writer.unresolved();
        some.truncate(REFRESH_MAX);
        self.report(writer.refresh_endpoints(&some), "look for the way to the endpoints");
    }

    /// One walk over both tables. `pending` is from before the walk.
    fn sweep(&self, pending: &Pending, look: Look) -> io::Result<u32> {
        let mut reverse = HashMap::new();
        self.maps.reverse.walk(|key, flow| {
            reverse.insert(*key, *flow);
        })?;
        let endpoints: BTreeMap<u16, SocketAddr> = {
            let writer = self.writer();
            writer
                .tables()
                .endpoints
                .iter()
                .map(|(index, entry)| (*index, entry.addr))
                .collect()
        };
        let lives = |index: u16, addr: AddrWords, port_be: u16| {
            let at = SocketAddr::new(addr_from_words(addr), u16::from_be(port_be));
            endpoints.get(&index) == Some(&at)
        };
        let mut over = Vec::new();
        let mut entries = 0;
        let mut held: BTreeSet<u16> = BTreeSet::new();
        let mut open: BTreeSet<u16> = BTreeSet::new();
        let mut live: BTreeMap<u32, Vec<(u32, u16)>> = pending.rings.keys().map(|id| (*id, Vec::new())).collect();
        self.maps.flows.walk(|key, flow| {
            entries += 1;
            let twin = reverse.get(&key.twin_of_flow(flow));
            if flow_fate(key, twin, lives(flow.endpoint, flow.addr, flow.port_be), look) == Fate::Remove {
                over.push((*key, *flow));
            }
            // Removed only below, and only if it still is over: until then it counts.
            held.insert(flow.endpoint);
            if !flow.closing() && twin.is_some_and(|twin| !twin.closing()) {
                open.insert(flow.endpoint);
            }
            if let (Some(slots), Some((_, mode))) = (live.get_mut(&flow.vip), pending.rings.get(&flow.vip)) {
                slots.push((slot_of(*mode as u32, key), flow.endpoint));
            }
        })?;
        self.remove_pairs(&over, &lives, look)?;
        self.remove_alone(&reverse, &lives, look)?;
        for (vip, (version, _)) in &pending.rings {
            let live = live.remove(vip).unwrap_or_default();
            self.writer().settle(*vip, *version, &live)?;
        }
        let idle: Vec<u16> = pending
            .draining
            .iter()
            .copied()
            .filter(|index| !held.contains(index))
            .collect();
        let quiet: Vec<u16> = pending
            .draining
            .iter()
            .copied()
            .filter(|index| !open.contains(index))
            .collect();
        if !quiet.is_empty() {
            (self.on_idle)(Idle { unnamed: idle, quiet });
        }
        Ok(entries)
    }

    /// `FLOWS` first, then `REVERSE` if, read again, it is over too.
    fn remove_pairs(
        &self,
        over: &[(FlowKey, Flow)],
        lives: &impl Fn(u16, AddrWords, u16) -> bool,
        look: Look,
    ) -> io::Result<()> {
        for (key, seen) in over {
            let Some(flow) = self.maps.flows.get(key)? else {
                continue;
            };
            let twin_key = key.twin_of_flow(&flow);
            let twin = self.maps.reverse.get(&twin_key)?;
            let alive = lives(flow.endpoint, flow.addr, flow.port_be);
            if flow != *seen || flow_fate(key, twin.as_ref(), alive, look) == Fate::Keep {
                continue;
            }
            self.writer().remove_flow(key)?;
            let Some(twin) = self.maps.reverse.get(&twin_key)? else {
                continue;
            };
            let ours = twin_key.twin_of_reverse(&twin) == *key;
            if ours && reverse_fate(&twin_key, &twin, Some(&flow), alive, look) == Fate::Remove {
                self.writer().remove_reverse(&twin_key)?;
            }
        }
        Ok(())
    }

    /// Entries of `REVERSE` that have no twin for longer than it takes to open.
    fn remove_alone(
        &self,
        reverse: &HashMap<FlowKey, Flow>,
        lives: &impl Fn(u16, AddrWords, u16) -> bool,
        look: Look,
    ) -> io::Result<()> {
        for (key, flow) in reverse {
            let alive = lives(flow.endpoint, key.src, key.src_port_be());
            if reverse_fate(key, flow, None, alive, look) == Fate::Keep {
                continue;
            }
            let Some(again) = self.maps.reverse.get(key)? else {
                continue;
            };
            let twin = self.maps.flows.get(&key.twin_of_reverse(&again))?;
            if reverse_fate(key, &again, twin.as_ref(), alive, look) == Fate::Remove {
                self.writer().remove_reverse(key)?;
            }
        }
        Ok(())
    }
}

/// Live flows, at most [`LISTED_MAX`].
pub fn list(maps: &Maps) -> io::Result<Vec<KernelFlow>> {
    let now = maps.clock.get(&0)?.unwrap_or(0);
    let mut found = Vec::new();
    maps.flows.walk(|key, flow| {
        if found.len() < LISTED_MAX {
            found.push((*key, *flow));
        }
    })?;
    let mut flows = Vec::with_capacity(found.len());
    for (key, flow) in found {
        let Some(reverse) = maps.reverse.get(&key.twin_of_flow(&flow))? else {
            continue;
        };
        if reverse.closing() {
            continue;
        }
        let ticks = now.wrapping_sub(reverse.seen);
        let ticks = if ticks < 1 << 31 { ticks } else { 0 };
        flows.push(KernelFlow {
            client: SocketAddr::new(addr_from_words(key.src), u16::from_be(key.src_port_be())),
            vip: SocketAddr::new(addr_from_words(key.dst), u16::from_be(key.dst_port_be())),
            endpoint: SocketAddr::new(addr_from_words(flow.addr), u16::from_be(flow.port_be)),
            udp: key.proto == u32::from(PROTO_UDP),
            vip_id: flow.vip,
            idle: Duration::from_millis(u64::from(ticks) * 1000 / u64::from(TICKS_PER_SECOND)),
        });
    }
    Ok(flows)
}
