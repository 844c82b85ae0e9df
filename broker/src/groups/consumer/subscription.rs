//! Which topics members mean: by name, and by regular expressions that match a whole name (RE2's syntax but for `\Q…\E`
//! and `\C`, matched in linear time).

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
    // By itself first: brackets that end what stands around it are no expression.
    build(expression).and_then(|_| build(&format!(r"\A(?:{expression})\z"))).map_err(|_| {
        let message = format!("SubscribedTopicRegex `{expression}` is not a valid regular expression.");
        Refusal::new(ErrorCode::InvalidRegularExpression, message)
    })
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
}
