//! Where in a JSON document a reader stopped, for messages about a field: `interfaces[0].mac`.
//!
//! *Why not `serde_path_to_error`.* It makes a second reader of every type: a fifteenth of the plugin's file, for messages that
//! hardly any call prints. The position that `serde_json` reports leads to the same path.

/// A step from a value into one that it holds.
enum Step {
    /// Into an object: the key read last, and whether its value has begun.
    Key { name: String, is_complete: bool },
    /// Into a list: the number of the element.
    Index(usize),
}

/// The path of the value that a reader of `text` was at, by the line and column of its error, which count from one and in
/// bytes (`serde_json::Error::line`, `column`), and by what it reports. The path of the whole document is `.`.
///
/// A field that is unknown, or whose value is wrong, is named itself; an object that lacks a field is named as a whole.
#[must_use]
#[cold]
pub fn json_path(text: &[u8], line: usize, column: usize, report: &str) -> String {
    let lines = text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1));
    let before: usize = lines.map(<[u8]>::len).sum();
    let mut read = text.get(..before + column).unwrap_or(text);
    // A value that has been read and then refused is reported where its object ends, if it is the last one there.
    if let [start @ .., b'}'] = read
        && !report.starts_with("missing field")
    {
        read = start;
    }
    let mut read = read.iter();
    let mut steps = Vec::new();
    while let Some(byte) = read.next() {
        match byte {
            b'{' => steps.push(Step::Key { name: String::new(), is_complete: false }),
            b'[' => steps.push(Step::Index(0)),
            b'}' | b']' => drop(steps.pop()),
            b':' => {
                if let Some(Step::Key { is_complete, .. }) = steps.last_mut() {
                    *is_complete = true;
                }
            }
            b',' => match steps.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                Some(step) => *step = Step::Key { name: String::new(), is_complete: false },
                None => {}
            },
            b'"' => {
                let string = rest_of_string(&mut read);
                if let Some(Step::Key { name, is_complete: false }) = steps.last_mut() {
                    *name = string;
                }
            }
            _ => {}
        }
    }
    shown(&steps)
}

/// A string after its opening quote, with its escapes as they are written.
fn rest_of_string<'a>(read: &mut impl Iterator<Item = &'a u8>) -> String {
    let (mut string, mut is_escaped) = (Vec::new(), false);
    for byte in read {
        match byte {
            b'"' if !is_escaped => break,
            _ => is_escaped = *byte == b'\\' && !is_escaped,
        }
        string.push(*byte);
    }
    String::from_utf8_lossy(&string).into_owned()
}

fn shown(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key { name, .. } if name.is_empty() => {}
            Step::Key { name, .. } => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    if path.is_empty() { ".".to_owned() } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The path of the end of what is before `^` in a text.
    fn at(text: &str) -> String {
        of_report(text, "missing field")
    }

    fn of_report(text: &str, report: &str) -> String {
        let (before, after) = text.split_once('^').unwrap();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap().len();
        json_path(format!("{before}{after}").as_bytes(), line, column, report)
    }

    #[test]
    fn a_value_is_named_by_keys_and_indices() {
        assert_eq!(at(r#"{"a":{"b":[1,{"c":"x"^}]}}"#), "a.b[1].c");
        assert_eq!(at("{\"a\":1,\n \"b\":[[2],\n[3,4^]]}"), "b[1][1]");
        assert_eq!(at(r#"[{"a":1},{"b":2^}]"#), "[1].b");
    }

    #[test]
    fn a_key_names_itself_and_a_closed_object_its_holder() {
        assert_eq!(at(r#"{"a":[{"color"^:1}]}"#), "a[0].color");
        assert_eq!(at(r#"{"a":[{"b":1}^]}"#), "a[0]");
        assert_eq!(at(r#"{"a":1}^"#), ".");
        assert_eq!(at(r#"{^"a":1}"#), ".");
    }

    #[test]
    fn a_last_value_that_is_refused_once_it_was_read_is_named_itself() {
        assert_eq!(of_report(r#"{"a":[{"b":1,"c":"x"}^]}"#, "invalid address"), "a[0].c");
        assert_eq!(of_report(r#"{"a":[{"b":1,"c":"x"}^]}"#, "missing field `d`"), "a[0]");
    }

    #[test]
    fn brackets_and_quotes_inside_of_strings_are_text() {
        assert_eq!(at(r#"{"a":"}],\"{:","b":"\\","c":["x,y",1^]}"#), "c[1]");
    }

    #[test]
    fn text_that_is_no_json_and_positions_outside_of_it_do_no_harm() {
        assert_eq!(json_path(b"]}:,\"", 1, 5, ""), ".");
        assert_eq!(json_path(b"[[1]]", 9, 900, ""), ".");
        assert_eq!(json_path(b"", 0, 0, ""), ".");
    }
}
