//! Takes Rust text apart into code and comments, line by line, so that a rule about code never trips over prose.
//!
//! Contents of strings and characters are blanked; nothing is parsed beyond that.

/// One line of a source.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Code without comments; literals are empty.
    pub code: String,
    /// Comments with their marks.
    pub comment: String,
}

impl Line {
    pub fn is_blank(&self) -> bool {
        self.code.trim().is_empty() && self.comment.is_empty()
    }

    pub fn is_comment(&self) -> bool {
        self.code.trim().is_empty() && !self.comment.is_empty()
    }
}

enum State {
    Code,
    LineComment,
    /// Nesting depth.
    BlockComment(u32),
    Text,
    /// Number of `#` that close it.
    RawText(usize),
}

pub fn lines(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        let here = &chars[at..];
        let line = lines.last_mut().expect("there is always a last line");
        if here[0] == '\n' {
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        let taken = match state {
            State::Code => step_in_code(here, at.checked_sub(1).map(|before| chars[before]), line, &mut state),
            State::LineComment => {
                line.comment.push(here[0]);
                1
            }
            State::BlockComment(depth) => step_in_block(here, depth, line, &mut state),
            State::Text => {
                if here[0] == '"' {
                    line.code.push('"');
                    state = State::Code;
                }
                // An escaped line break must still be seen as one.
                if here[0] == '\\' && here.get(1).is_some_and(|next| *next != '\n') {
                    2
                } else {
                    1
                }
            }
            State::RawText(hashes) => {
                let closes = here[0] == '"' && here[1..].iter().take_while(|c| **c == '#').count() >= hashes;
                if closes {
                    line.code.push('"');
                    state = State::Code;
                }
                if closes { 1 + hashes } else { 1 }
            }
        };
        at += taken;
    }
    lines
}

fn step_in_code(here: &[char], before: Option<char>, line: &mut Line, state: &mut State) -> usize {
    match here {
        ['/', '/', ..] => {
            *state = State::LineComment;
            line.comment.push_str("//");
            2
        }
        ['/', '*', ..] => {
            *state = State::BlockComment(1);
            line.comment.push_str("/*");
            2
        }
        ['"', ..] => {
            *state = State::Text;
            line.code.push('"');
            1
        }
        // r"..", r#".."#, br".."; not the end of a name and not a raw identifier.
        ['r', '"' | '#', ..] if !before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') => {
            let hashes = here[1..].iter().take_while(|c| **c == '#').count();
            line.code.push('r');
            if here.get(1 + hashes) == Some(&'"') {
                *state = State::RawText(hashes);
                line.code.push('"');
                return 2 + hashes;
            }
            1
        }
        ['\'', '\\', rest @ ..] => {
            // The escaped character itself may be a quote.
            let close = rest
                .iter()
                .skip(1)
                .position(|c| *c == '\'')
                .map_or(rest.len(), |at| at + 2);
            line.code.push_str("''");
            2 + close
        }
        ['\'', _, '\'', ..] => {
            line.code.push_str("''");
            3
        }
        _ => {
            line.code.push(here[0]);
            1
        }
    }
}

fn step_in_block(here: &[char], depth: u32, line: &mut Line, state: &mut State) -> usize {
    let (next, taken) = match here {
        ['/', '*', ..] => (State::BlockComment(depth + 1), 2),
        ['*', '/', ..] if depth == 1 => (State::Code, 2),
        ['*', '/', ..] => (State::BlockComment(depth - 1), 2),
        _ => (State::BlockComment(depth), 1),
    };
    line.comment.extend(&here[..taken]);
    *state = next;
    taken
}

/// The names in a line of code with the place each starts at.
pub fn names(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(is_part)?;
        let end = code[start..]
            .find(|c| !is_part(c))
            .map_or(code.len(), |length| start + length);
        at = end;
        Some((start, &code[start..end]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        lines(text)
            .into_iter()
            .map(|line| line.code)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn comments_leave_the_code() {
        assert_eq!(code("a // unsafe\nb /* x /* y */ z */ c"), "a \nb  c");
        assert_eq!(lines("a // why")[0].comment, "// why");
        assert!(lines("  /* a\nb */")[1].is_comment());
    }

    #[test]
    fn literals_are_blanked_and_end_where_they_end() {
        assert_eq!(code(r#"f("a \" // b") + c"#), r#"f("") + c"#);
        assert_eq!(code("f(r#\"a \" b\"#) + c"), "f(r\"\") + c");
        assert_eq!(code(r"g('\'', '/', b'\\', 'a) <'a>"), "g('', '', b'', 'a) <'a>");
        assert_eq!(code("\"one \\\n two\" three"), "\"\n\" three");
        assert_eq!(code("for r in r#type"), "for r in r#type");
    }

    #[test]
    fn names_are_found_with_their_place() {
        assert_eq!(names("a::b_1(c)").collect::<Vec<_>>(), [(0, "a"), (3, "b_1"), (7, "c")]);
    }
}
