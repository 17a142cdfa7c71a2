//! Configuration text, through parser, compiler and both lowerings.
//!
//! Laws: total; the same twice is the same; an update over what was there before is total too and, over nothing, is what
//! a first reading gives. Input: YAML; a line `#---` divides an older text from a newer one.
#![no_main]

use gateway_compiler::{Objects, Settings, Source, compile, parse};
use gateway_core::ir::Revision;
use gateway_core::lower::{self, Ids};
use libfuzzer_sys::fuzz_target;

fn lowered(ir: &gateway_core::ir::Ir) {
    let mut ids = Ids::default();
    ids.assign(ir);
    let _ = lower::snapshot::lower(ir, Revision(1), &ids);
}

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let settings = Settings::default();
    let (older, newer) = text.split_once("\n#---\n").unwrap_or(("", text));
    let read = |text: &str| parse(&[Source::new("fuzz.yaml", text)]);
    let objects = read(newer);
    let compiled = compile(&objects, &settings);
    assert_eq!(
        compiled,
        compile(&read(newer), &settings),
        "the same text compiles to the same"
    );
    lowered(&compiled.ir);
    for status in &compiled.statuses {
        let _ = format!("{status:?}");
    }
    for diagnostic in &compiled.diagnostics {
        assert!(!diagnostic.to_string().is_empty());
    }
    if !older.is_empty() {
        let before = Objects::update(&Objects::default(), read(older));
        let after = Objects::update(&before, objects);
        lowered(&compile(&after, &settings).ir);
    }
});
