//! Field lists on standard input, their blocks by our encoder behind them on standard output: what
//! `tests/fixtures/hpack/generate.py` gives an independent decoder to read.
//!
//! Lines: `connection NAME` (a new encoder), `table SIZE` (the peer's SETTINGS_HEADER_TABLE_SIZE), `NAME: VALUE`
//! (a field), `encode` (the fields since the last one, as one block). Output: one block in hexadecimal for each.

use gateway_http::h2::hpack::Encoder;
use gateway_http::head::FieldList;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut encoder, mut list) = (Encoder::new(), FieldList::new());
    for line in std::io::stdin().lines() {
        let line = line?;
        if line.starts_with("connection ") {
            encoder = Encoder::new();
        } else if let Some(size) = line.strip_prefix("table ") {
            encoder.set_table_size_max(size.parse()?);
        } else if line == "encode" {
            let mut block = Vec::new();
            encoder.encode(&list, &mut block);
            list.clear();
            println!(
                "{}",
                block.iter().map(|octet| format!("{octet:02x}")).collect::<String>()
            );
        } else {
            let colon = 1 + line[1..].find(": ").ok_or("a field has a colon")?;
            list.push(&line.as_bytes()[..colon], &line.as_bytes()[colon + 2..]);
        }
    }
    Ok(())
}
