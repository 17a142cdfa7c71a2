//! The packet table: each row of `fixtures/packets.txt` through the twin and through the loaded programs.

use crate::loaded::{Loaded, Program, Ran, flow_key, flow_words};
use crate::topology::{self, NEAR};
use anyhow::{Context, Result, bail, ensure};
use gateway_common::abi::{Action, Reason};
use gateway_common::datapath::{self, Outcome};
use gateway_common::twin::{Bytes, Twin};

/// A packet, what goes before it, what comes of it.
#[derive(Default)]
struct Row {
    name: String,
    first: Vec<Vec<u8>>,
    packet: Vec<u8>,
    expected: Vec<(Program, Reason, Vec<u8>)>,
}

/// Runs a frame through the twin as `program` would see it.
pub fn twin_run(twin: &Twin, program: Program, frame: &[u8]) -> (Outcome, Vec<u8>) {
    let bytes = frame.to_vec();
    match program {
        Program::Tcx => {
            let mut packet = Bytes::<false> { bytes, ifindex: NEAR };
            let outcome = datapath::packet(&mut packet, twin);
            (outcome, packet.bytes)
        }
        Program::Xdp => {
            let mut packet = Bytes::<true> { bytes, ifindex: NEAR };
            let outcome = datapath::packet(&mut packet, twin);
            (outcome, packet.bytes)
        }
    }
}

/// What a program must return for an outcome.
pub fn code(program: Program, outcome: Outcome) -> u32 {
    const TC_PASS: u32 = u32::MAX;
    let (tc, xdp) = match outcome.reason.action() {
        Action::Send if outcome.ifindex == NEAR => (7, 3),
        Action::Send => (7, 4),
        Action::Pass | Action::Assign => (TC_PASS, 2),
        Action::Drop => (2, 1),
    };
    match program {
        Program::Tcx => tc,
        Program::Xdp => xdp,
    }
}

/// Both must have decided, written, counted and remembered the same.
pub fn agree(loaded: &mut Loaded, twin: &Twin, program: Program, ran: &Ran, twins: &(Outcome, Vec<u8>)) -> Result<()> {
    let (outcome, bytes) = twins;
    let counted = [(outcome.vip, outcome.reason, 1)];
    ensure!(
        ran.counted == counted,
        "counted {:?}, the twin {counted:?}",
        ran.counted
    );
    ensure!(
        ran.code == code(program, *outcome),
        "returned {:#x} for {outcome:?}",
        ran.code
    );
    ensure!(
        ran.bytes == *bytes,
        "bytes differ:\nkernel {:02x?}\ntwin   {bytes:02x?}",
        ran.bytes
    );
    for (name, table) in [("FLOWS", &twin.flows), ("REVERSE", &twin.reverse)] {
        let held: Vec<_> = loaded.flows(name)?.into_iter().collect();
        let mut wanted: Vec<_> = table
            .borrow()
            .iter()
            .map(|(k, v)| (flow_key(k), flow_words(v)))
            .collect();
        wanted.sort_unstable();
        ensure!(held == wanted, "{name} differs:\nkernel {held:x?}\ntwin   {wanted:x?}");
    }
    Ok(())
}

/// Every row of the table, on both programs and the twin.
pub fn every_row_comes_out_as_scapy_built_it(loaded: &mut Loaded) -> Result<()> {
    let rows = parse(include_str!("fixtures/packets.txt"))?;
    ensure!(rows.len() > 80, "the fixture has lost rows");
    for row in &rows {
        for (program, reason, bytes) in &row.expected {
            check(loaded, row, *program, *reason, bytes).with_context(|| format!("{}, on {program:?}", row.name))?;
        }
    }
    println!("    {} rows on tcx, xdp and the twin", rows.len());
    Ok(())
}

fn check(loaded: &mut Loaded, row: &Row, program: Program, reason: Reason, expected: &[u8]) -> Result<()> {
    let mut twin = topology::fixture();
    loaded.put(&mut twin)?;
    for first in &row.first {
        loaded.run(program, first)?;
        twin_run(&twin, program, first);
    }
    let ran = loaded.run(program, &row.packet)?;
    let twins = twin_run(&twin, program, &row.packet);
    ensure!(twins.0.reason == reason, "the twin says {:?}", twins.0.reason);
    ensure!(
        twins.1 == expected,
        "the twin's bytes differ:\ntwin  {:02x?}\nscapy {expected:02x?}",
        twins.1
    );
    agree(loaded, &twin, program, &ran, &twins)
}

fn parse(text: &str) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').context("a line without a value")?;
        if word == "row" {
            rows.push(Row {
                name: rest.to_owned(),
                ..Row::default()
            });
            continue;
        }
        let row = rows.last_mut().context("a line before the first row")?;
        let program = match word {
            "first" => {
                row.first.push(unhex(rest)?);
                continue;
            }
            "in" => {
                row.packet = unhex(rest)?;
                continue;
            }
            "tcx" => Program::Tcx,
            "xdp" => Program::Xdp,
            other => bail!("no such line: {other}"),
        };
        let (name, bytes) = rest.split_once(' ').context("a reason and bytes")?;
        let reason = Reason::ALL
            .into_iter()
            .find(|r| r.name() == name)
            .with_context(|| format!("reason {name}"))?;
        let bytes = if bytes == "-" {
            row.packet.clone()
        } else {
            unhex(bytes)?
        };
        row.expected.push((program, reason, bytes));
    }
    Ok(rows)
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2), "half a byte");
    (0..text.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(&text[at..at + 2], 16)?))
        .collect()
}
