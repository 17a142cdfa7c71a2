//! Fixtures: a row a line, cells split by ` | `, the first its name, the second what must become of it.
//!
//! In cells `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH` are those bytes and `{TEXT*N}` is TEXT, N times. Lines that begin with
//! `#` are for readers.

/// One row.
pub struct Row {
    pub name: String,
    pub verdict: String,
    pub cells: Vec<Vec<u8>>,
}

/// All rows; at least `least` of them, so that a table cannot vanish unnoticed.
pub fn rows(text: &str, least: usize) -> Vec<Row> {
    let rows: Vec<Row> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(row)
        .collect();
    assert!(rows.len() >= least, "{} rows of {least}", rows.len());
    for (at, row) in rows.iter().enumerate() {
        assert!(
            rows[..at].iter().all(|other| other.name != row.name),
            "twice: {}",
            row.name
        );
    }
    rows
}

fn row(line: &str) -> Row {
    let mut cells = line.split(" | ");
    let mut next = || {
        cells
            .next()
            .unwrap_or_else(|| panic!("a cell is missing: {line}"))
            .to_owned()
    };
    Row {
        name: next(),
        verdict: next(),
        cells: cells.map(bytes).collect(),
    }
}

/// The bytes a cell stands for.
pub fn bytes(cell: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = cell.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'\\' => {
                let (kind, after) = rest.split_first().expect("something behind the backslash");
                rest = after;
                out.push(match kind {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'0' => 0,
                    b'x' => {
                        let (digits, after) = rest.split_at(2);
                        rest = after;
                        let digits = std::str::from_utf8(digits).expect("two digits");
                        u8::from_str_radix(digits, 16).expect("hexadecimal")
                    }
                    other => *other,
                });
            }
            b'{' => {
                let end = rest.iter().position(|byte| *byte == b'}').expect("a closing brace");
                let inside = std::str::from_utf8(&rest[..end]).expect("text");
                let (text, times) = inside.rsplit_once('*').expect("{TEXT*N}");
                out.extend(bytes(text).repeat(times.parse().expect("a number")));
                rest = &rest[end + 1..];
            }
            byte => out.push(*byte),
        }
    }
    out
}
