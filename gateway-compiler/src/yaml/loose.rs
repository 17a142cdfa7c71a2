//! What every API server reads although YAML does not allow it: lines of a quoted text or of a flow collection that are
//! indented no deeper than what they belong to (libyaml, and all that came of it, never looked).
//!
//! Its law: white space is added where none means anything, at the beginning of such a line; positions are those of the
//! text as it was written.

use super::Mark;
use std::collections::BTreeMap;

/// What reading again may cost, in bytes read, over all documents of a text: enough for a megabyte of CRDs, some of which
/// have such a text at every second field.
pub(super) const AGAIN_BYTES_MAX: usize = 64 << 20;
/// What one reading costs at least.
const ONCE_BYTES_MIN: usize = 256;

/// A document's text, with what was added to it.
pub(super) struct Loose {
    pub text: String,
    /// Columns added, by line; lines count from 1.
    added: BTreeMap<usize, usize>,
}

impl Loose {
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            added: BTreeMap::new(),
        }
    }

    /// Where a parser's position in this text is in the one that was written; `line` counts from 1, `column` from 0.
    pub fn mark(&self, line: usize, column: usize) -> Mark {
        let column = column.saturating_sub(self.added.get(&line).copied().unwrap_or_default());
        Mark {
            line: u32::try_from(line.max(1)).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
        }
    }

    /// Indents what a parser found indented too little, where that means nothing; `false` when it means something, or
    /// when `budget` is used up.
    pub fn indent(&mut self, problem: &str, line: usize, column: usize, budget: &mut usize) -> bool {
        let cost = self.text.len().max(ONCE_BYTES_MIN);
        if *budget < cost {
            return false;
        }
        *budget -= cost;
        match problem {
            // Said of the first token of a line, within a flow collection only.
            "invalid indentation" | "invalid indentation in flow construct" => self.indent_line(line),
            // Said of the quote that opens it.
            "invalid indentation in quoted scalar" => self.indent_quoted(line, column),
            _ => false,
        }
    }

    /// As far as the line before it reaches: nothing that is open there begins further right.
    fn indent_line(&mut self, line: usize) -> bool {
        let before = self.text.lines().take(line.saturating_sub(1));
        let Some(before) = before.filter(|line| !line.trim().is_empty()).last() else {
            return false;
        };
        let columns = before.trim_end().chars().count().max(1);
        self.add(&[line], columns)
    }

    /// Every line that a quoted text goes on in.
    fn indent_quoted(&mut self, line: usize, column: usize) -> bool {
        let Some((last, _)) = self.closing(line, column) else {
            return false;
        };
        let lines: Vec<usize> = (line + 1..=last).collect();
        // Once is enough: whatever it stands in begins left of its quote.
        !lines.iter().any(|line| self.added.contains_key(line)) && self.add(&lines, column + 1)
    }

    /// Line and column of the quote that closes the one at `line` and `column`.
    fn closing(&self, line: usize, column: usize) -> Option<(usize, usize)> {
        let mut lines = self.text.lines().enumerate().skip(line.checked_sub(1)?);
        let (_, first) = lines.next()?;
        let mut rest = first.chars().enumerate().skip(column);
        let quote = rest
            .next()
            .map(|(_, quote)| quote)
            .filter(|quote| "\"'".contains(*quote))?;
        let mut open = closes(quote, rest);
        if let Some(column) = open {
            return Some((line, column));
        }
        for (index, text) in lines {
            open = closes(quote, text.chars().enumerate());
            if let Some(column) = open {
                return Some((index + 1, column));
            }
        }
        None
    }

    fn add(&mut self, lines: &[usize], columns: usize) -> bool {
        let mut text = String::with_capacity(self.text.len() + lines.len() * columns);
        let mut changed = false;
        for (index, row) in self.text.split_inclusive('\n').enumerate() {
            if lines.contains(&(index + 1)) && !row.trim().is_empty() {
                text.extend(std::iter::repeat_n(' ', columns));
                *self.added.entry(index + 1).or_default() += columns;
                changed = true;
            }
            text.push_str(row);
        }
        self.text = text;
        changed
    }
}

/// The column in this line of the quote that closes.
fn closes(quote: char, line: impl Iterator<Item = (usize, char)>) -> Option<usize> {
    let mut line = line.peekable();
    while let Some((column, letter)) = line.next() {
        match letter {
            '\\' if quote == '"' => _ = line.next(),
            _ if letter != quote => {}
            // Two of them are one of the text.
            '\'' if line.peek().is_some_and(|(_, next)| *next == '\'') => _ = line.next(),
            _ => return Some(column),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::{Mark, Node, documents, load};

    fn one(text: &str) -> Node {
        documents(text).remove(0).expect("a document that API servers take")
    }

    fn text<'n>(node: &'n Node, path: &str) -> Option<&'n str> {
        node.at(path).and_then(Node::text)
    }

    #[test]
    fn a_quoted_text_may_go_on_at_any_column() {
        let node = one("a:\n  b: \"x \\\" \\\n  y\n\nz\"\n  c: 'it''s\n  so'\nd: 1\n");
        assert_eq!(text(&node, "a.b"), Some("x \" y\nz"));
        assert_eq!(text(&node, "a.c"), Some("it's so"));
        assert_eq!(node.locate("d"), Mark { line: 8, column: 4 });
    }

    #[test]
    fn a_flow_collection_may_close_at_the_column_of_its_key() {
        let node = one("a:\n- b: [\n    \"x\",\n  \"y\"\n  ]\n  c: {\n  \"d\": 1\n}\n");
        assert_eq!(
            (text(&node, "a[0].b[1]"), text(&node, "a[0].c.d")),
            (Some("y"), Some("1"))
        );
        assert_eq!(node.locate("a[0].b[1]"), Mark { line: 4, column: 3 });
        assert_eq!(node.locate("a[0].c.d"), Mark { line: 7, column: 8 });
    }

    #[test]
    fn what_is_never_closed_is_said_where_it_was_noticed_first() {
        for (open, line) in [("a: [1, 2\nb: 3\nc: 4\n", 2), ("a:\n  b: \"x\n  y\nc: 4\n", 2)] {
            let error = documents(open).remove(0).unwrap_err();
            assert_eq!(error.mark.line, line, "{error:?}");
        }
    }

    #[test]
    fn reading_again_ends() {
        let flows = format!("a: {}\n]", "[\n".repeat(60));
        let texts = format!("a:\n{}", "  b: \"x\n y\"\n".repeat(1_000));
        for text in [flows, texts] {
            let mut budget = 1 << 20;
            let _ = load::document(&text, 0, &mut budget);
            assert!(
                load::document(&text, 0, &mut 0).is_err() && budget < 1 << 20,
                "{budget}"
            );
        }
    }
}
