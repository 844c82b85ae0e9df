//! Which topics members mean: by name, and by regular expressions that match a whole name (RE2's syntax but for `\C`,
//! matched in linear time).

use millrace_protocol::error_code::ErrorCode;
use regex::{Regex, RegexBuilder};

use super::Refusal;

/// Bytes that a compiled expression may take.
const COMPILED_BYTES: usize = 1 << 20;

/// Compiles a member's expression.
///
/// # Errors
/// INVALID_REGULAR_EXPRESSION.
pub(super) fn compile(expression: &str) -> Result<Regex, Refusal> {
    let build = |text: &str| RegexBuilder::new(text).size_limit(COMPILED_BYTES).build();
    let plain = without_quotes(expression);
    // By itself first: brackets that end what stands around it are no expression.
    build(&plain).and_then(|_| build(&format!(r"\A(?:{plain})\z"))).map_err(|_| {
        let message = format!("SubscribedTopicRegex `{expression}` is not a valid regular expression.");
        Refusal::new(ErrorCode::InvalidRegularExpression, message)
    })
}

/// The expression with what stands between `\Q` and `\E` (or the end) escaped character by character: RE2 has these marks,
/// the crate `regex` has not. Within brackets they are no marks, in RE2 neither, and are left for the compiler to refuse.
fn without_quotes(expression: &str) -> String {
    let mut plain = String::with_capacity(expression.len());
    let mut rest = expression;
    let mut in_brackets = false;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix(r"\Q").filter(|_| !in_brackets) {
            let (literal, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            plain.push_str(&regex::escape(literal));
            rest = after;
            continue;
        }
        // An escape is taken whole: its second character opens and closes nothing. Neither does a first `]`.
        let opens = ["[^]", "[]", "[^", "["].into_iter().find(|open| !in_brackets && rest.starts_with(open));
        let escape = first.len_utf8() + rest[first.len_utf8()..].chars().next().map_or(0, char::len_utf8);
        let length = match first {
            '\\' => escape,
            _ => opens.map_or(first.len_utf8(), str::len),
        };
        in_brackets = opens.is_some() || in_brackets && first != ']';
        plain.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_whole_names_only() {
        let regex = compile("a|ab|b.*").expect("an expression");
        for (name, matches) in [("a", true), ("ab", true), ("bcd", true), ("abc", false), ("xa", false)] {
            assert_eq!(regex.is_match(name), matches, "{name}");
        }
        assert!(!compile("").expect("an expression").is_match("a"));
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused() {
        for bad in ["(", "a)(b", "[", "a{100}{100}{100}", r"(a)\1"] {
            assert_eq!(compile(bad).expect_err(bad).error, ErrorCode::InvalidRegularExpression);
        }
    }

    #[test]
    fn what_stands_between_quotes_is_matched_as_it_is() {
        let cases = [
            (r"\Qa.b\E", "a.b", true),
            (r"\Qa.b\E", "axb", false),
            (r"\Qa.b\E.*", "a.bcd", true),
            (r"x\Q.", "x.", true),
            (r"\Qab\E*", "abb", true),
            (r"\Qab\E*", "abab", false),
            (r"[]x]\Q+\E", "]+", true),
            (r"[^]]\Q+\E", "x+", true),
            (r"\[\Q.\E", "[.", true),
            (r"\\Q", r"\Q", true),
            (r"\Q\E", "", true),
        ];
        for (expression, name, matches) in cases {
            assert_eq!(compile(expression).expect(expression).is_match(name), matches, "{expression} on {name}");
        }
        for bad in [r"[\Qa\E]", r"a\", r"\E"] {
            assert_eq!(compile(bad).expect_err(bad).error, ErrorCode::InvalidRegularExpression);
        }
    }
}
