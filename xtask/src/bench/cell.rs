//! The cells of the table: what each figure is, whom it is held against, and the goal.

use super::generator::Front;
use super::load::LOADS;
use super::proxy::OURS;
use super::{calls, idle, latency, routes};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    CpuUs,
    AddedUs,
    Bytes,
    Calls,
}

impl Unit {
    pub fn shown(self) -> &'static str {
        match self {
            Self::CpuUs => "CPU µs a request",
            Self::AddedUs => "µs added",
            Self::Bytes => "bytes a connection",
            Self::Calls => "calls a request",
        }
    }

    pub fn decimals(self) -> usize {
        match self {
            Self::CpuUs | Self::AddedUs => 1,
            Self::Bytes => 0,
            Self::Calls => 2,
        }
    }
}

/// Whose median ours is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    Peer(&'static str),
    /// The peer with the smallest figure.
    BestPeer,
    /// Nobody: the goal is a figure.
    Figure,
}

pub struct Cell {
    pub name: &'static str,
    pub unit: Unit,
    /// The row that is divided by the others.
    pub subject: &'static str,
    pub against: Against,
    /// The most that the ratio, or the figure, should be.
    pub goal: f64,
}

/// All, in the table's order.
pub fn all() -> Vec<Cell> {
    let ours = |name, unit, against, goal| Cell {
        name,
        unit,
        subject: OURS,
        against,
        goal,
    };
    let mut cells: Vec<Cell> = LOADS
        .iter()
        .map(|load| ours(load.name, Unit::CpuUs, load.against, load.goal))
        .collect();
    let nghttpx = Against::Peer("nghttpx");
    cells.push(ours(latency::P50, Unit::AddedUs, nghttpx, 0.85));
    cells.push(ours(latency::P99, Unit::AddedUs, nghttpx, 1.0));
    for (name, front) in idle::CELLS {
        let kib = if front == Front::Tls { 14.0 } else { 4.0 };
        cells.push(ours(name, Unit::Bytes, Against::Figure, kib * 1024.0));
    }
    cells.push(ours(calls::CELL, Unit::Calls, Against::Figure, 1.0));
    cells.push(Cell {
        name: routes::CELL,
        unit: Unit::CpuUs,
        subject: routes::MOST,
        against: Against::Peer(routes::FEW),
        goal: 1.05,
    });
    cells
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_cell_has_a_name_of_its_own() {
        let cells = all();
        let names: HashSet<&str> = cells.iter().map(|cell| cell.name).collect();
        assert_eq!(names.len(), cells.len());
        assert!(cells.iter().all(|cell| cell.goal > 0.0));
    }
}
