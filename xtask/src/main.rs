//! `cargo xtask`: everything a person or a machine does with this repository, as a table of verbs.
//!
//! Links none of our crates and nothing from a registry, so it builds in seconds when all else is broken.
//! stdout belongs to the verb's result (`run --once --json` prints only JSON); what is being done goes to stderr.

mod bench;
mod budget;
mod check;
mod conformance;
mod ebpf;
mod fuzz;
mod package;
mod run;
mod setup;
mod shell;
mod tally;
mod test;
mod tidy;
mod tools;
mod vm;

use std::process::ExitCode;

use shell::Failure;

/// One word after `cargo xtask`.
struct Verb {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

const VERBS: &[Verb] = &[
    Verb {
        name: "setup",
        about: "install what building, running and testing need; quick when nothing is missing",
        run: setup::verb,
    },
    Verb {
        name: "ebpf",
        about: "build the kernel programs into gateway-ebpf/target/sluice.bpf.o",
        run: ebpf::verb,
    },
    Verb {
        name: "run",
        about: "set up, build, and run the laboratory [--once] [--json]",
        run: run::verb,
    },
    Verb {
        name: "test",
        about: "set up, build, and run every test [-- FILTER and libtest flags]",
        run: test::verb,
    },
    Verb {
        name: "check",
        about: "formatting, clippy, house rules, licences and bans; nothing is changed",
        run: check::verb,
    },
    Verb {
        name: "tidy",
        about: "the house rules alone: crate and folder edges, unsafe, sizes, names, licences",
        run: tidy::verb,
    },
    Verb {
        name: "fuzz",
        about: "run the fuzz targets: fuzz [TARGET..] [--secs N] [--merge]",
        run: fuzz::verb,
    },
    Verb {
        name: "conformance",
        about: "the Gateway API's own suite in a real API server: conformance [--profile P].. [--run TEST] [--suite V] [--then SCRIPT] [--keep]",
        run: conformance::verb,
    },
    Verb {
        name: "package",
        about: "the chart and kustomizations: rendered, taken by a real API server, the pod run from its manifest [--write|--build]",
        run: package::verb,
    },
    Verb {
        name: "bench",
        about: "what a request costs here and in installed peers: bench l7 [--only PART] [--rounds N] [--secs S] [--write]",
        run: bench::verb,
    },
    Verb {
        name: "budget",
        about: "instructions the HTTP engine spends on a request, against gateway-http/budget.toml",
        run: budget::verb,
    },
    Verb {
        name: "vm",
        about: "run the tests, or a command, on another supported kernel under QEMU: vm 6.1|6.12 [COMMAND..]",
        run: vm::verb,
    },
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        if !name.is_empty() {
            eprintln!("xtask: there is no verb '{name}'");
        }
        eprint!("{}", usage());
        return ExitCode::from(shell::EXIT_USAGE);
    };
    match (verb.run)(&rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask {name}: {}", failure.why);
            ExitCode::from(failure.exit)
        }
    }
}

fn usage() -> String {
    let mut text = String::from("cargo xtask VERB [ARGS]\n\n");
    for verb in VERBS {
        text.push_str(&format!("  {:<11} {}\n", verb.name, verb.about));
    }
    text
}
