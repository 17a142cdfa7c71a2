//! All proxies that run for the chosen cells, and their turns.
//!
//! Within a round every cell meets every proxy once (A B C, then the next cell), so that drift of the machine meets all
//! of them. A peer that does not start has its reason in the table; ours ends the run.

use super::cell::Cell;
use super::load::{LOADS, Load, Sample};
use super::proxy::{Kind, OURS, Proxy};
use super::rig::{BOTH_CPUS, PROXY_CPU, Rig};
use super::{Absence, calls, idle, latency, routes};
use crate::shell::{Failure, say};

pub struct Field<'a> {
    rig: &'a Rig,
    kinds: &'a [Kind],
    loads: Vec<&'static Load>,
    cells: Vec<&'static str>,
    single: Vec<Proxy>,
    double: Vec<Proxy>,
    /// Ours with many routes, and how many.
    routed: Vec<(Proxy, usize)>,
    pub samples: Vec<Sample>,
    pub absences: Vec<Absence>,
}

impl<'a> Field<'a> {
    pub fn start(kinds: &'a [Kind], cells: &[Cell], rig: &'a Rig) -> Result<Self, Failure> {
        let cells: Vec<&'static str> = cells.iter().map(|cell| cell.name).collect();
        let loads: Vec<&Load> = LOADS.iter().filter(|load| cells.contains(&load.name)).collect();
        let mut field = Self {
            rig,
            kinds,
            loads,
            cells,
            single: Vec::new(),
            double: Vec::new(),
            routed: Vec::new(),
            samples: Vec::new(),
            absences: Vec::new(),
        };
        let of_one = |load: &&Load| load.workers == 1;
        let mut single: Vec<&'static str> = field.loads.iter().copied().filter(of_one).map(|l| l.name).collect();
        single.extend(
            [latency::P50, latency::P99, calls::CELL]
                .into_iter()
                .filter(|cell| field.has(cell)),
        );
        let double: Vec<_> = field
            .loads
            .iter()
            .filter(|load| load.workers > 1)
            .map(|load| load.name)
            .collect();
        field.single = field.start_all("one", 1, PROXY_CPU, &single)?;
        field.double = field.start_all("two", 2, BOTH_CPUS, &double)?;
        for proxy in &field.single {
            for load in &field.loads {
                if let Some(why) = load.absence(proxy) {
                    field.absences.push(absent(load.name, proxy.name(), why));
                }
            }
        }
        if field.has(routes::CELL) {
            say("starting sluice with many routes");
            field.routed = routes::start(&kinds[0], rig)?;
        }
        Ok(field)
    }

    fn has(&self, cell: &str) -> bool {
        self.cells.contains(&cell)
    }

    /// One of each kind, where any of `cells` asks for them.
    fn start_all(
        &mut self,
        role: &str,
        workers: u32,
        cpus: &str,
        cells: &[&'static str],
    ) -> Result<Vec<Proxy>, Failure> {
        let mut started = Vec::new();
        for kind in self.kinds.iter().filter(|_| !cells.is_empty()) {
            say(&format!("starting {} with {workers} worker(s)", kind.name));
            match Proxy::start(kind, role, workers, cpus, self.rig) {
                Ok(proxy) => started.push(proxy),
                Err(failure) if kind.name == OURS => return Err(failure),
                Err(failure) => {
                    say(&failure.why);
                    let why = "did not start";
                    self.absences
                        .extend(cells.iter().map(|cell| absent(cell, kind.name, why)));
                }
            }
        }
        Ok(started)
    }

    /// One short load each: connections to the endpoints stand, lazy start-up work is over, and what fails is known early.
    pub fn warm_up(&mut self) -> Result<(), Failure> {
        say("warming up");
        self.loads(1)?;
        if self.loads.is_empty() {
            for proxy in &self.single {
                LOADS[0].run(proxy, self.rig, 1)?;
            }
        }
        self.many_routes(1)?;
        self.samples.clear();
        Ok(())
    }

    /// Every cell with every proxy once.
    pub fn round(&mut self, round: u32, secs: u32) -> Result<(), Failure> {
        self.loads(secs)?;
        self.open_loop(secs)?;
        self.system_calls(round, secs)?;
        self.many_routes(secs)?;
        if round <= idle::ROUNDS_MAX {
            self.idle_connections()?;
        }
        Ok(())
    }

    fn loads(&mut self, secs: u32) -> Result<(), Failure> {
        for load in &self.loads {
            say(load.name);
            let proxies = if load.workers == 1 { &self.single } else { &self.double };
            for proxy in proxies.iter().filter(|proxy| load.absence(proxy).is_none()) {
                self.samples.push(load.run(proxy, self.rig, secs)?);
            }
        }
        Ok(())
    }

    fn open_loop(&mut self, secs: u32) -> Result<(), Failure> {
        if !self.has(latency::P50) && !self.has(latency::P99) {
            return Ok(());
        }
        say("open loop");
        let mut samples = Vec::from(latency::direct(self.rig, secs)?);
        for proxy in &self.single {
            samples.extend(latency::through(proxy, self.rig, secs)?);
        }
        samples.retain(|sample| self.cells.contains(&sample.cell));
        self.samples.extend(samples);
        Ok(())
    }

    fn system_calls(&mut self, round: u32, secs: u32) -> Result<(), Failure> {
        if !self.has(calls::CELL) {
            return Ok(());
        }
        say(calls::CELL);
        for proxy in &self.single {
            match calls::run(proxy, self.rig, secs)? {
                Ok(sample) => self.samples.push(sample),
                // Once: it is the same in every round.
                Err(why) if round == 1 => self.absences.push(absent(calls::CELL, proxy.name(), &why)),
                Err(why) => say(&why),
            }
        }
        Ok(())
    }

    fn many_routes(&mut self, secs: u32) -> Result<(), Failure> {
        for (proxy, routes) in &self.routed {
            say(proxy.name());
            self.samples.push(routes::run(proxy, *routes, self.rig, secs)?);
        }
        Ok(())
    }

    fn idle_connections(&mut self) -> Result<(), Failure> {
        for (cell, front) in idle::CELLS {
            if !self.cells.contains(&cell) {
                continue;
            }
            say(cell);
            for kind in self.kinds {
                match idle::run(cell, front, kind, self.rig) {
                    Ok(sample) => self.samples.push(sample),
                    Err(failure) if kind.name == OURS => return Err(failure),
                    Err(failure) => {
                        say(&failure.why);
                        let absence = absent(cell, kind.name, "did not start");
                        if !self.absences.contains(&absence) {
                            self.absences.push(absence);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn absent(cell: &'static str, proxy: &'static str, why: &str) -> Absence {
    Absence {
        cell,
        proxy,
        why: why.to_owned(),
    }
}
