//! The object in the real kernel: its maps filled from a twin, its programs run on single packets
//! (`BPF_PROG_TEST_RUN`). Keys and values go as the words they are, so nothing here is unsafe.

use crate::topology::VIPS;
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, ArrayOfMaps, HashMap, MapData, PerCpuArray, SockMap};
use aya::programs::{SchedClassifier, SkLookup, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use gateway_common::abi::{Endpoint, Flow, FlowKey, NO_VIP, REASONS, RING_SLOTS, Reason, SOURCE_WORDS, Slot, VipKey};
use gateway_common::twin::Twin;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A key or value as the map's words.
pub type FlowTable = BTreeMap<[u32; 10], [u32; 12]>;
type Ring = [u32; RING_SLOTS];

/// Which program sees a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Program {
    Tcx,
    Xdp,
}

/// What came of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// The program's return value.
    pub code: u32,
    pub bytes: Vec<u8>,
    /// Every counter cell that changed, and by how much: row, reason, difference.
    pub counted: Vec<(u32, Reason, u64)>,
}

/// The loaded object.
pub struct Loaded {
    pub object: Ebpf,
    flows_max: u32,
    counters: PerCpuArray<MapData, u64>,
    before: BTreeMap<u32, u64>,
    /// What `RINGS` holds: a swap waits for the kernel, so only a ring that changed is put.
    rings: BTreeMap<u32, Vec<Slot>>,
}

/// The object as `cargo xtask ebpf` leaves it.
pub fn object_path() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../gateway-ebpf/target/sluice.bpf.o");
    std::env::var_os("SLUICE_BPF").map_or(built, PathBuf::from)
}

impl Loaded {
    /// Loads and verifies all programs, with flow tables of this size.
    pub fn new(flows_max: u32) -> Result<Self> {
        let path = object_path();
        let bytes = std::fs::read(&path)
            .with_context(|| format!("{} is not there: build it with `cargo xtask ebpf`", path.display()))?;
        let mut object = EbpfLoader::new()
            .map_max_entries("FLOWS", flows_max)
            .map_max_entries("REVERSE", flows_max)
            .load(&bytes)
            .context("the object does not load")?;
        let tc: &mut SchedClassifier = program(&mut object, "tc_ingress")?.try_into()?;
        tc.load().context("tc_ingress: refused by the verifier")?;
        let xdp: &mut Xdp = program(&mut object, "xdp_ingress")?.try_into()?;
        xdp.load().context("xdp_ingress: refused by the verifier")?;
        let steer: &mut SkLookup = program(&mut object, "steer")?.try_into()?;
        steer.load().context("steer: refused by the verifier")?;
        let counters = PerCpuArray::try_from(object.take_map("COUNTERS").context("COUNTERS")?)?;
        let mut loaded = Self {
            object,
            flows_max,
            counters,
            before: BTreeMap::new(),
            rings: BTreeMap::new(),
        };
        loaded.changes()?;
        Ok(loaded)
    }

    /// Makes every table what the twin holds, and the twin's room what the tables have.
    pub fn put(&mut self, twin: &mut Twin) -> Result<()> {
        twin.flows_max = self.flows_max as usize;
        let mut vips: HashMap<_, [u32; 5], [u32; 2]> = self.map("VIPS")?.try_into()?;
        for key in vips.keys().collect::<Result<Vec<_>, _>>()? {
            vips.remove(&key)?;
        }
        for (key, vip) in &twin.vips {
            vips.insert(vip_key(key), [vip.id, vip.mode], 0).context("VIPS")?;
        }
        for (id, ring) in &twin.rings {
            if self.rings.get(id) != Some(ring) {
                self.put_ring(*id, ring)?;
                self.rings.insert(*id, ring.clone());
            }
        }
        let mut endpoints: Array<_, [u32; 9]> = self.map("ENDPOINTS")?.try_into()?;
        for (index, endpoint) in &twin.endpoints {
            endpoints
                .set(u32::from(*index), endpoint_words(endpoint), 0)
                .context("ENDPOINTS")?;
        }
        let mut sources: Array<_, [u64; SOURCE_WORDS]> = self.map("SOURCES")?.try_into()?;
        sources.set(0, twin.sources.words, 0).context("SOURCES")?;
        let mut clock: Array<_, u32> = self.map("CLOCK")?.try_into()?;
        clock.set(0, twin.clock, 0).context("CLOCK")?;
        for (name, twin) in [("FLOWS", &twin.flows), ("REVERSE", &twin.reverse)] {
            let mut table: HashMap<_, [u32; 10], [u32; 12]> = self.map(name)?.try_into()?;
            for key in table.keys().collect::<Result<Vec<_>, _>>()? {
                table.remove(&key)?;
            }
            for (key, flow) in &*twin.borrow() {
                table.insert(flow_key(key), flow_words(flow), 0).context(name)?;
            }
        }
        Ok(())
    }

    /// Swaps one ring in.
    fn put_ring(&mut self, vip: u32, ring: &[Slot]) -> Result<()> {
        let mut words: Box<Ring> = vec![0u32; RING_SLOTS]
            .into_boxed_slice()
            .try_into()
            .expect("as many as slots");
        for (word, slot) in words.iter_mut().zip(ring) {
            *word = u32::from(slot.current) | u32::from(slot.previous) << 16;
        }
        let mut inner: Array<MapData, Ring> = Array::create(1, 0)?;
        let words: &Ring = &words;
        inner.set(0, words, 0).context("a ring")?;
        let mut rings: ArrayOfMaps<_, Array<MapData, Ring>> = self.map("RINGS")?.try_into()?;
        rings.set(vip, &inner, 0).context("RINGS")?;
        Ok(())
    }

    /// Runs a program on a frame that came in on loopback.
    pub fn run(&mut self, which: Program, frame: &[u8]) -> Result<Ran> {
        let mut out = vec![0u8; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let result = match which {
            Program::Tcx => {
                let tc: &mut SchedClassifier = program(&mut self.object, "tc_ingress")?.try_into()?;
                tc.test_run(options)
            }
            Program::Xdp => {
                let xdp: &mut Xdp = program(&mut self.object, "xdp_ingress")?.try_into()?;
                xdp.test_run(options)
            }
        }?;
        ensure!(result.data_size_out as usize <= out.len(), "the packet grew");
        out.truncate(result.data_size_out as usize);
        Ok(Ran {
            code: result.return_value,
            bytes: out,
            counted: self.changes()?,
        })
    }

    /// What one flow table holds.
    pub fn flows(&mut self, name: &str) -> Result<FlowTable> {
        let table: HashMap<_, [u32; 10], [u32; 12]> = self.map(name)?.try_into()?;
        Ok(table.iter().collect::<Result<_, _>>()?)
    }

    /// Puts a worker's listening socket.
    pub fn listen(&mut self, index: u32, socket: &std::net::TcpListener) -> Result<()> {
        let mut listeners: SockMap<_> = self.map("LISTENERS")?.try_into()?;
        Ok(listeners.set(index, socket, 0)?)
    }

    /// Writes a word of `CONFIG`.
    pub fn config(&mut self, index: u32, value: u32) -> Result<()> {
        let mut config: Array<_, u32> = self.map("CONFIG")?.try_into()?;
        Ok(config.set(index, value, 0)?)
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.object.map_mut(name).with_context(|| format!("no map {name}"))
    }

    /// The counter cells that changed since the last call.
    pub fn changes(&mut self) -> Result<Vec<(u32, Reason, u64)>> {
        let mut changed = Vec::new();
        for row in (0..VIPS).chain([NO_VIP]) {
            for reason in Reason::ALL {
                let index = row * REASONS + reason as u32;
                let now: u64 = self.counters.get(&index, 0)?.iter().sum();
                let before = self.before.insert(index, now).unwrap_or(0);
                if now != before {
                    changed.push((row, reason, now - before));
                }
            }
        }
        Ok(changed)
    }
}

fn program<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut aya::programs::Program> {
    object.program_mut(name).with_context(|| format!("no program {name}"))
}

fn vip_key(key: &VipKey) -> [u32; 5] {
    let [a, b, c, d] = key.addr;
    [a, b, c, d, u32::from(key.port_be) | u32::from(key.proto) << 16]
}

fn endpoint_words(e: &Endpoint) -> [u32; 9] {
    let [a, b, c, d] = e.addr;
    let [m, n, o] = e.macs;
    [
        a,
        b,
        c,
        d,
        e.ifindex,
        m,
        n,
        o,
        u32::from(e.port_be) | u32::from(e.state) << 16,
    ]
}

pub fn flow_key(key: &FlowKey) -> [u32; 10] {
    let ([a, b, c, d], [e, f, g, h]) = (key.src, key.dst);
    [a, b, c, d, e, f, g, h, key.ports, key.proto]
}

pub fn flow_words(flow: &Flow) -> [u32; 12] {
    let ([a, b, c, d], [m, n, o]) = (flow.addr, flow.macs);
    let ends = u32::from_ne_bytes([flow.phase, flow.fin_client, flow.fin_endpoint, 0]);
    let port = u32::from(flow.port_be) | u32::from(flow.endpoint) << 16;
    [a, b, c, d, m, n, o, flow.ifindex, flow.vip, flow.seen, port, ends]
}
