//! The differences that are accepted on purpose, as `accepted.txt` lists them.
//!
//! 1. Every entry has a reason.
//! 2. An entry that a whole run did not need is reported: the list says what is so, not what once was.

/// Columns of an entry: API, case, path, left value, right value, reason.
const COLUMNS: usize = 6;

/// One accepted difference. All but the reason are patterns, in which `*` stands for any text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Accepted {
    patterns: [String; COLUMNS - 1],
    /// Why the difference is right.
    pub(crate) reason: String,
}

/// Reads the list: an entry a line, columns between `|`, `#` begins a comment.
///
/// # Errors
/// When a line has not all its columns.
pub(crate) fn parse(text: &str) -> Result<Vec<Accepted>, String> {
    let mut entries = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.splitn(COLUMNS, '|').map(str::trim).collect();
        let [patterns @ .., reason] = columns.as_slice() else { continue };
        let Ok(patterns) = <[&str; COLUMNS - 1]>::try_from(patterns) else {
            return Err(format!("line {}: {COLUMNS} columns are wanted", at + 1));
        };
        if reason.is_empty() {
            return Err(format!("line {}: no reason", at + 1));
        }
        entries.push(Accepted { patterns: patterns.map(str::to_owned), reason: (*reason).to_owned() });
    }
    Ok(entries)
}

impl Accepted {
    /// Whether this entry speaks of a difference: API, case, path, left value, right value.
    pub(crate) fn matches(&self, difference: [&str; COLUMNS - 1]) -> bool {
        self.patterns.iter().zip(difference).all(|(pattern, text)| is_like(pattern, text))
    }

    /// The entry's patterns, for people.
    pub(crate) fn title(&self) -> String {
        self.patterns.join(" | ")
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((front, mut rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(front) else { return false };
    while let Some((middle, after)) = rest.split_once('*') {
        let Some(at) = text.find(middle) else { return false };
        text = &text[at + middle.len()..];
        rest = after;
    }
    text.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [("*", ""), ("a*", "abc"), ("*c", "abc"), ("a*c*e", "abcde"), ("abc", "abc")] {
            assert!(is_like(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "ab"), ("*x*", "abc"), ("ab*b", "ab")] {
            assert!(!is_like(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn an_entry_needs_all_columns_and_a_reason() {
        assert_eq!(parse("# a comment\n\n").unwrap(), Vec::new());
        let entries = parse("Fetch | * | session_id | * | 0 | sessions are not kept").unwrap();
        assert!(entries[0].matches(["Fetch", "any", "session_id", "77", "0"]));
        assert!(!entries[0].matches(["Fetch", "any", "session_id", "77", "1"]));
        assert!(parse("Fetch | * | session_id").is_err());
        assert!(parse("Fetch | * | * | * | * | ").is_err());
    }

    #[test]
    fn the_list_of_this_crate_is_well_formed() {
        parse(include_str!("../accepted.txt")).unwrap();
    }
}
