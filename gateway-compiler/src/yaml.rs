//! YAML text to trees that know where they were written.
//!
//! A stream is cut at its `---` lines first, so a syntax error costs one document and not its neighbours. What a text
//! can make us build is bounded: bytes, nodes, depth, and what its aliases repeat.

pub mod decode;
mod load;
mod loose;

use std::sync::Arc;

/// Largest text of one source.
pub const SOURCE_BYTES_MAX: usize = 16 << 20;
/// Most nodes (scalars, sequences, mappings) of one document, aliases resolved.
pub const NODES_MAX: usize = 1_000_000;
/// Deepest nesting of one document.
pub const DEPTH_MAX: usize = 64;
/// Most bytes of scalars that the aliases of one document may repeat.
pub const ALIAS_BYTES_MAX: usize = 1 << 20;

/// Where something was written. Both count from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub line: u32,
    pub column: u32,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub mark: Mark,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// In the order written; no key twice.
    Mapping(Vec<(Key, Node)>),
}

/// A scalar as written; what it means depends on `plain` (YAML 1.2 core schema).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    pub text: Arc<str>,
    /// Unquoted and untagged: may be a number, a boolean or null.
    pub plain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub mark: Mark,
    pub text: Arc<str>,
}

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub mark: Mark,
    pub problem: String,
    pub remedy: String,
}

/// A document of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub root: Result<Node, SyntaxError>,
    /// What was read although it is probably a mistake.
    pub remarks: Vec<SyntaxError>,
}

/// Reads every document of a text; empty ones are left out. Each document fails alone.
pub fn documents(text: &str) -> Vec<Result<Node, SyntaxError>> {
    read(text).into_iter().map(|document| document.root).collect()
}

/// As [`documents`], with what is remarkable about each.
pub fn read(text: &str) -> Vec<Document> {
    let failed = |error| Document {
        root: Err(error),
        remarks: Vec::new(),
    };
    if text.len() > SOURCE_BYTES_MAX {
        return vec![failed(SyntaxError {
            mark: Mark { line: 1, column: 1 },
            problem: format!("the text has {} bytes, more than {SOURCE_BYTES_MAX}", text.len()),
            remedy: "split it into several files".to_owned(),
        })];
    }
    let mut again = loose::AGAIN_BYTES_MAX;
    let mut found = Vec::new();
    for (line, chunk) in chunks(text) {
        match load::document(chunk, line, &mut again) {
            Ok(load::Loaded {
                root: Some(node),
                remarks,
            }) => found.push(Document {
                root: Ok(node),
                remarks,
            }),
            Ok(load::Loaded { root: None, .. }) => {}
            Err(error) => found.push(failed(error)),
        }
    }
    found
}

/// Cuts a stream before every line that starts a document (`---`) and after every line that ends one (`...`); inside
/// a document neither can stand at the start of a line (YAML 1.2.2, 9.1.2). With the number of lines before each.
fn chunks(text: &str) -> Vec<(u32, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let (mut start, mut start_line, mut at, mut line) = (0, 0, 0, 0);
    for row in text.split_inclusive('\n') {
        if is_marker(row, "---") && at > start {
            found.push((start_line, &text[start..at]));
            (start, start_line) = (at, line);
        }
        at += row.len();
        line += 1;
        if is_marker(row, "...") {
            found.push((start_line, &text[start..at]));
            (start, start_line) = (at, line);
        }
    }
    found.push((start_line, &text[start..]));
    found
}

fn is_marker(row: &str, marker: &str) -> bool {
    row.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

impl Node {
    /// The value of a mapping's key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|(k, _)| &*k.text == key).map(|(_, node)| node),
            Value::Scalar(_) | Value::Sequence(_) => None,
        }
    }

    /// The text of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) if !scalar.is_null() => Some(&scalar.text),
            Value::Scalar(_) | Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// Where the value of `path` was written (`spec.rules[0].name`, keys with dots in brackets), or the nearest thing
    /// around it that exists. A collection stands where its key does.
    pub fn locate(&self, path: &str) -> Mark {
        let (mark, node) = self.walk(path);
        match node {
            Some(Node {
                mark,
                value: Value::Scalar(_),
            }) => *mark,
            Some(_) | None => mark,
        }
    }

    /// The node at `path`.
    pub fn at(&self, path: &str) -> Option<&Node> {
        self.walk(path).1
    }

    /// Where the last key of `path` was written.
    pub fn locate_key(&self, path: &str) -> Mark {
        self.walk(path).0
    }

    /// The place of the last key on the way that exists, and the node if the whole way does.
    fn walk(&self, path: &str) -> (Mark, Option<&Node>) {
        let (mut node, mut mark) = (self, self.mark);
        for segment in segments(path) {
            let next = match &node.value {
                Value::Mapping(entries) => entries
                    .iter()
                    .find(|(key, _)| &*key.text == segment)
                    .map(|(key, value)| (key.mark, value)),
                Value::Sequence(items) => segment
                    .parse::<usize>()
                    .ok()
                    .and_then(|i| items.get(i))
                    .map(|item| (item.mark, item)),
                Value::Scalar(_) => None,
            };
            match next {
                Some((at, value)) => (mark, node) = (at, value),
                None => return (mark, None),
            }
        }
        (mark, Some(node))
    }
}

impl Scalar {
    pub fn is_null(&self) -> bool {
        self.plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }
}

/// `a.b[0][x.y]` to `a`, `b`, `0`, `x.y`.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.is_empty() {
            return None;
        }
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']').unwrap_or(inner.len());
            rest = inner.get(end + 1..).unwrap_or("");
            return Some(&inner[..end]);
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (segment, after) = rest.split_at(end);
        rest = after;
        Some(segment)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        documents(text).remove(0).expect("one good document")
    }

    #[test]
    fn a_syntax_error_costs_only_its_own_document() {
        let found = documents("a: 1\n---\nb: [1, 2\n---\nc: 3\n");
        assert_eq!(found.len(), 3);
        assert!(found[0].is_ok() && found[2].is_ok());
        let error = found[1].as_ref().unwrap_err();
        assert!(error.mark.line >= 3 && error.mark.line <= 4, "{error:?}");
    }

    #[test]
    fn fields_know_their_line_and_column_in_the_whole_stream() {
        let found = documents("# first\na: 1\n---\nspec:\n  rules:\n  - name: x\n    labels:\n      app.io/n: y\n");
        let node = found[1].as_ref().unwrap();
        assert_eq!(node.locate("spec.rules[0].name"), Mark { line: 6, column: 11 });
        assert_eq!(
            node.locate("spec.rules[0].labels[app.io/n]"),
            Mark { line: 8, column: 17 }
        );
        assert_eq!(node.locate("spec.rules[3].name"), Mark { line: 5, column: 3 });
    }

    #[test]
    fn empty_documents_and_comments_are_left_out() {
        assert_eq!(documents("---\n# nothing\n---\n...\n---\na: 1\n---\n").len(), 1);
        assert_eq!(documents("").len(), 0);
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..20 {
            let row = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{row}]\n"));
        }
        let error = documents(&text).remove(0).unwrap_err();
        assert!(
            error.problem.contains("nodes") || error.problem.contains("aliases"),
            "{error:?}"
        );
    }

    #[test]
    fn nesting_is_bounded() {
        for text in [
            "[".repeat(100_000),
            "- ".repeat(10_000),
            "a: {".repeat(1000),
            "? ".repeat(10_000),
        ] {
            assert!(documents(&text).remove(0).is_err());
        }
    }

    #[test]
    fn an_alias_repeats_its_anchor_and_a_merge_key_fills_in() {
        let node = one("a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  y: 3\n");
        assert_eq!(node.get("b").unwrap().get("x").unwrap().text(), Some("1"));
        assert_eq!(node.get("c").unwrap().get("x").unwrap().text(), Some("1"));
        assert_eq!(node.get("c").unwrap().get("y").unwrap().text(), Some("3"));
    }

    #[test]
    fn of_a_key_given_twice_the_last_counts_as_in_a_cluster_and_it_is_said_there() {
        let document = read("a: {x: 1}\nb: 1\na: {x: 2}\n").remove(0);
        let node = document.root.unwrap();
        assert_eq!(node.at("a.x").and_then(Node::text), Some("2"));
        assert_eq!(node.locate("a.x"), Mark { line: 3, column: 8 });
        let places: Vec<_> = document.remarks.iter().map(|remark| remark.mark).collect();
        assert_eq!(places, [Mark { line: 3, column: 1 }]);
    }
}
