//! `unsafe` and leave for it, outside the one folder that may have them.

use super::Violation;
use super::arrows::UNSAFE_SOURCES;
use crate::repo::TextFile;
use crate::source::{closing, tokens};

pub(super) fn check(file: &TextFile, violations: &mut Vec<Violation>) {
    if file.path.starts_with(UNSAFE_SOURCES) {
        return;
    }
    let tokens = tokens(&file.text);
    for (at, token) in tokens.iter().enumerate() {
        let what = if token.is_word("unsafe") {
            "unsafe code"
        } else if (token.is_word("expect") || token.is_word("allow"))
            && tokens.get(at + 1).is_some_and(|next| next.is("("))
            && tokens[at + 1..closing(&tokens, at + 1)].iter().any(|token| token.is_word("unsafe_code"))
        {
            "leave for unsafe code"
        } else {
            continue;
        };
        violations.push(Violation {
            path: file.path.clone(),
            line: token.line,
            what: format!("{what} outside {UNSAFE_SOURCES}; put it behind a safe function there"),
        });
    }
}
