//! Rows: a sentence, the datapaths it holds on, and a function. Run one after another, because they share the
//! laboratory; reported in the words of cargo's own runner, so that whoever sums test results understands them.

use crate::lab::Lab;
use anyhow::Result;
use std::collections::BTreeMap;
use std::time::Instant;

/// `off`, `lookup`, `tcx`, `xdp`.
pub const ALL: &[&str] = &["off", "lookup", "tcx", "xdp"];
/// Those that forward packets.
pub const PACKETS: &[&str] = &["tcx", "xdp"];
/// One is enough: what it tests does not depend on the datapath.
pub const ANY: &[&str] = &["tcx"];

/// One behaviour.
pub struct Row {
    pub name: &'static str,
    pub datapaths: &'static [&'static str],
    pub run: fn(datapath: &str) -> Result<()>,
}

/// What `datapath` cannot do on this machine; `None` when it can.
pub type Lacks = BTreeMap<&'static str, String>;

/// Runs the rows whose name contains the first free argument; returns whether all passed.
pub fn run(rows: &[Row], lacks: &Lacks) -> bool {
    let filter = std::env::args()
        .skip(1)
        .find(|arg| !arg.starts_with('-'))
        .unwrap_or_default();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for datapath in ALL {
        let due: Vec<&Row> = rows
            .iter()
            .filter(|row| row.datapaths.contains(datapath) && format!("{} ({datapath})", row.name).contains(&filter))
            .collect();
        if due.is_empty() {
            continue;
        }
        if let Some(why) = lacks.get(datapath) {
            for row in due {
                println!("test {} ({datapath}) ... ignored, {why}", row.name);
                skipped += 1;
            }
            continue;
        }
        for row in due {
            let began = Instant::now();
            let outcome = Lab::up(*datapath == "xdp").and_then(|_lab| (row.run)(datapath));
            let seconds = began.elapsed().as_secs_f64();
            match outcome {
                Ok(()) => {
                    passed += 1;
                    println!("test {} ({datapath}) ... ok ({seconds:.1} s)", row.name);
                }
                Err(error) => {
                    failed += 1;
                    println!("test {} ({datapath}) ... FAILED ({seconds:.1} s)", row.name);
                    println!("\n---- {} ({datapath}) ----\n{error:#}\n\nfailures:\n", row.name);
                }
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out\n"
    );
    failed == 0
}
