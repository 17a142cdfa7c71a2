//! Parser events to one tree, within bounds.

use super::loose::Loose;
use super::{ALIAS_BYTES_MAX, DEPTH_MAX, Key, Mark, NODES_MAX, Node, Scalar, SyntaxError, Value};
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One document of a text.
#[derive(Default)]
pub(super) struct Loaded {
    /// `None` when it holds nothing.
    pub root: Option<Node>,
    /// What was read although it is probably a mistake.
    pub remarks: Vec<SyntaxError>,
}

/// One document whose text begins after `lines_before` lines; `again` bounds what mending its indentation may cost.
pub(super) fn document(text: &str, lines_before: u32, again: &mut usize) -> Result<Loaded, SyntaxError> {
    let mut loose = Loose::new(text);
    let mut first = None;
    loop {
        let (problem, line, column) = match attempt(&loose, lines_before) {
            Ok(loaded) => return Ok(loaded),
            Err(Failure::Beyond(error)) => return Err(error),
            Err(Failure::Syntax { problem, line, column }) => (problem, line, column),
        };
        let mark = beyond(loose.mark(line, column), lines_before);
        let remedy = "correct the syntax or the indentation";
        first.get_or_insert_with(|| fault(mark, format!("this is not YAML: {problem}"), remedy));
        if let (false, Some(error)) = (loose.indent(&problem, line, column, again), first.take()) {
            return Err(error);
        }
    }
}

/// Why a document was not read.
enum Failure {
    /// The parser's words and place.
    Syntax {
        problem: String,
        line: usize,
        column: usize,
    },
    /// It is YAML, and beyond what is read of it.
    Beyond(SyntaxError),
}

fn attempt(loose: &Loose, lines_before: u32) -> Result<Loaded, Failure> {
    let mut loader = Loader::default();
    for event in Parser::new_from_str(&loose.text) {
        let (event, span) = event.map_err(|error| Failure::Syntax {
            problem: error.info().to_owned(),
            line: error.marker().line(),
            column: error.marker().col(),
        })?;
        let mark = beyond(loose.mark(span.start.line(), span.start.col()), lines_before);
        loader.take(event, mark).map_err(Failure::Beyond)?;
    }
    let remarks = loader.remarks;
    let root = match loader.root {
        Some(Node {
            value: Value::Scalar(scalar),
            ..
        }) if scalar.is_null() => None,
        root => root,
    };
    Ok(Loaded { root, remarks })
}

fn beyond(mark: Mark, lines_before: u32) -> Mark {
    Mark {
        line: mark.line.saturating_add(lines_before),
        ..mark
    }
}

/// A collection that is still open.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<Key>,
}

/// What an anchor stands for and what repeating it costs.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
}

#[derive(Default)]
struct Loader {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
    alias_bytes: usize,
    remarks: Vec<SyntaxError>,
}

impl Loader {
    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), SyntaxError> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = matches!(style, ScalarStyle::Plain) && tag.is_none();
                self.count(1, mark)?;
                let node = Node {
                    mark,
                    value: Value::Scalar(Scalar {
                        text: Arc::from(&*text),
                        plain,
                    }),
                };
                self.close(node, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(Value::Sequence(Vec::new()), anchor, mark),
            Event::MappingStart(anchor, _) => self.open(Value::Mapping(Vec::new()), anchor, mark),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.close(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => self.alias(anchor, mark),
        }
    }

    fn open(&mut self, value: Value, anchor: usize, mark: Mark) -> Result<(), SyntaxError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(fault(
                mark,
                format!("nested deeper than {DEPTH_MAX}"),
                "flatten the document",
            ));
        }
        self.count(1, mark)?;
        self.open.push(Open {
            node: Node { mark, value },
            anchor,
            key: None,
        });
        Ok(())
    }

    fn count(&mut self, nodes: usize, mark: Mark) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return Err(fault(
                mark,
                format!("the document has more than {NODES_MAX} nodes"),
                "split the document",
            ));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, mark: Mark) -> Result<(), SyntaxError> {
        // An alias inside its own anchor names a collection that is still open.
        let Some(found) = self.anchors.get(&anchor) else {
            return Err(fault(
                mark,
                "this alias stands inside its own anchor".to_owned(),
                "write the value out",
            ));
        };
        let (nodes, bytes) = (found.nodes, found.bytes);
        self.alias_bytes = self.alias_bytes.saturating_add(bytes);
        if self.alias_bytes > ALIAS_BYTES_MAX || self.open.len() + depth(&found.node) > DEPTH_MAX {
            return Err(fault(
                mark,
                "the aliases repeat too much".to_owned(),
                "write fewer or smaller aliases",
            ));
        }
        let node = Node {
            mark,
            value: found.node.value.clone(),
        };
        self.count(nodes, mark)?;
        self.close(node, 0)
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, mut node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if let Value::Mapping(entries) = &mut node.value {
            let before = entries.len();
            merge(entries);
            self.count(entries.len().saturating_sub(before), node.mark)?;
        }
        if anchor != 0 {
            let (nodes, bytes) = weigh(&node);
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    nodes,
                    bytes,
                },
            );
        }
        let Some(parent) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return Ok(());
        };
        match (&mut parent.node.value, parent.key.take()) {
            (Value::Sequence(items), _) => items.push(node),
            (Value::Mapping(entries), Some(key)) => {
                // The last one counts, as an API server has it.
                match entries.iter_mut().find(|(known, _)| known.text == key.text) {
                    Some(known) => *known = (key, node),
                    None => entries.push((key, node)),
                }
            }
            (Value::Mapping(entries), None) => {
                let Value::Scalar(scalar) = node.value else {
                    return Err(fault(node.mark, "a key must be a word".to_owned(), "quote it"));
                };
                // Quadratic only within one mapping; long ones are the exception and bounded by NODES_MAX.
                let twice = entries.iter().any(|(key, _)| key.text == scalar.text);
                if twice && self.remarks.len() < REMARKS_MAX {
                    let problem = format!("`{}` is given twice: the last one counts", scalar.text);
                    self.remarks.push(fault(node.mark, problem, "keep one of them"));
                }
                if entries.len() >= DISTINCT_KEYS_MAX {
                    let problem = format!("more than {DISTINCT_KEYS_MAX} fields in one mapping");
                    return Err(fault(node.mark, problem, "split it"));
                }
                parent.key = Some(Key {
                    mark: node.mark,
                    text: scalar.text,
                });
            }
            (Value::Scalar(_), _) => {}
        }
        Ok(())
    }
}

/// Most remarks about one document.
const REMARKS_MAX: usize = 64;
/// Most fields of one mapping.
const DISTINCT_KEYS_MAX: usize = 1024;

/// `<<: *anchor` (YAML 1.1 merge key, as kubectl reads it): fills in what the mapping does not say itself.
fn merge(entries: &mut Vec<(Key, Node)>) {
    let Some(at) = entries.iter().position(|(key, _)| &*key.text == "<<") else {
        return;
    };
    let (_, from) = entries.remove(at);
    let sources = match from.value {
        Value::Sequence(items) => items,
        Value::Mapping(_) => vec![from],
        Value::Scalar(_) => Vec::new(),
    };
    for source in sources {
        let Value::Mapping(defaults) = source.value else {
            continue;
        };
        for (key, node) in defaults {
            if !entries.iter().any(|(have, _)| have.text == key.text) {
                entries.push((key, node));
            }
        }
    }
}

/// Nodes and scalar bytes of a tree.
fn weigh(node: &Node) -> (usize, usize) {
    let add = |(n, b): (usize, usize), (dn, db): (usize, usize)| (n + dn, b + db);
    match &node.value {
        Value::Scalar(scalar) => (1, scalar.text.len()),
        Value::Sequence(items) => items.iter().map(weigh).fold((1, 0), add),
        Value::Mapping(entries) => entries
            .iter()
            .map(|(key, value)| add((0, key.text.len()), weigh(value)))
            .fold((1, 0), add),
    }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(_) => 0,
        Value::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Mapping(entries) => 1 + entries.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
    }
}

fn fault(mark: Mark, problem: String, remedy: &str) -> SyntaxError {
    SyntaxError {
        mark,
        problem,
        remedy: remedy.to_owned(),
    }
}
