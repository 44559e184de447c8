//! A small tokenizer of Rust source: words and marks with their lines.
//!
//! Comments, strings, characters, lifetimes and numbers are left out, so what
//! remains can be searched for paths and keywords without being fooled by prose.
//! Rejected: a full parser, which would be the largest dependency here for two
//! questions that need no grammar.

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Identifier or keyword.
    Word,
    /// `::`, or any other single character.
    Mark,
}

/// A token and the line it stands on, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) kind: Kind,
    pub(crate) line: usize,
}

impl Token<'_> {
    /// Whether this is the given mark.
    pub(crate) fn is(&self, mark: &str) -> bool {
        self.kind == Kind::Mark && self.text == mark
    }

    /// Whether this is the given word.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }
}

/// Splits source text into tokens.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { text, at: 0, line: 1, tokens: Vec::new() };
    while lexer.step() {}
    lexer.tokens
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Moves on by `len` bytes, counting lines.
    fn skip(&mut self, len: usize) {
        let end = (self.at + len).min(self.text.len());
        self.line += self.text.as_bytes()[self.at..end].iter().filter(|&&byte| byte == b'\n').count();
        self.at = end;
    }

    fn push(&mut self, kind: Kind, len: usize) {
        let text = &self.text[self.at..self.at + len];
        self.tokens.push(Token { text, kind, line: self.line });
        self.skip(len);
    }

    fn step(&mut self) -> bool {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return false };
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment(rest));
        } else if let Some(len) = string(rest) {
            self.skip(len);
        } else if first == '\'' {
            self.skip(character_or_lifetime(rest));
        } else if first.is_ascii_digit() {
            self.skip(word_len(rest));
        } else if let Some(raw) = rest.strip_prefix("r#").filter(|raw| word_len(raw) > 0) {
            self.skip(2);
            self.push(Kind::Word, word_len(raw));
        } else if word_len(rest) > 0 {
            self.push(Kind::Word, word_len(rest));
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if rest.starts_with("::") {
            self.push(Kind::Mark, 2);
        } else {
            self.push(Kind::Mark, first.len_utf8());
        }
        true
    }
}

fn word_len(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Length of the block comment that `text` starts with; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of the string literal that `text` starts with, of any kind.
fn string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| {
            rest.starts_with('"') || prefix.ends_with('r') && rest.trim_start_matches('#').starts_with('"')
        })
    })?;
    let body = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let start = hashes + 1;
        let len = body[start..].find(&end).map_or(body.len(), |at| start + at + end.len());
        return Some(prefix.len() + len);
    }
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix.len() + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// Length of the character literal or lifetime that `text` starts with.
fn character_or_lifetime(text: &str) -> usize {
    let inner = &text[1..];
    match inner.chars().next() {
        // An escape: at least one character after the backslash belongs to it.
        Some('\\') => {
            inner[1..].char_indices().skip(1).find(|&(_, c)| c == '\'').map_or(text.len(), |(at, _)| 2 + at + 1)
        }
        Some(c) if inner[c.len_utf8()..].starts_with('\'') => 1 + c.len_utf8() + 1,
        _ => 1 + word_len(inner),
    }
}

/// Leaves out items that exist only in tests: whatever follows `#[cfg(test)]`.
pub(crate) fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if let Some(end) = attribute_end(tokens, at)
            && is_for_tests(&tokens[at..end])
        {
            at = item_end(tokens, end);
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// One past the `]` of the outer attribute that starts at `at`, if one does.
pub(crate) fn attribute_end(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let opens = tokens.get(at)?.is("#") && tokens.get(at + 1)?.is("[");
    opens.then(|| closing(tokens, at + 1))
}

fn is_for_tests(attribute: &[Token<'_>]) -> bool {
    let has = |word: &str| attribute.iter().any(|token| token.is_word(word));
    has("cfg") && has("test") && !has("not")
}

/// One past the bracket that closes the one at `open`.
pub(crate) fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if ["(", "[", "{"].iter().any(|mark| token.is(mark)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|mark| token.is(mark)) {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at + 1;
            }
        }
    }
    tokens.len()
}

/// One past the item that starts at `at`: its `;`, or the braces of its body.
fn item_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        if token.is(";") {
            return at + 1;
        }
        if token.is("{") {
            let end = closing(tokens, at);
            // `use a::{b};` goes on behind its braces.
            return if tokens.get(end).is_some_and(|token| token.is(";")) { end + 1 } else { end };
        }
        at = if token.is("(") || token.is("[") { closing(tokens, at) } else { at + 1 };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).iter().filter(|token| token.kind == Kind::Word).map(|token| token.text).collect()
    }

    #[test]
    fn prose_strings_and_characters_hold_no_words() {
        let text = r####"
            // use crate::a;
            /* outer /* unsafe */ still out */
            let x = "use crate::b \" unsafe"; let y = r##"un"#safe"##; let z = b"q"; let c = br#"x"#;
            let q = '"'; let e = '\''; let u = '\u{1F600}'; let l: &'static str = c"z"; 0x1fu8
        "####;
        assert_eq!(
            words(text),
            ["let", "x", "let", "y", "let", "z", "let", "c", "let", "q", "let", "e", "let", "u", "let", "l", "str"]
        );
    }

    #[test]
    fn lines_count_through_what_is_left_out() {
        let found = tokens("/* a\n b */\n\"x\ny\"\nlast");
        assert_eq!((found[0].text, found[0].line), ("last", 5));
    }

    #[test]
    fn raw_words_and_paths_are_read() {
        let found: Vec<&str> = tokens("r#type::b(r)").iter().map(|token| token.text).collect();
        assert_eq!(found, ["type", "::", "b", "(", "r", ")"]);
    }

    #[test]
    fn what_exists_only_in_tests_is_left_out() {
        let text = "#[cfg(test)] mod tests { use a; { b } } keep1;\n#[cfg(test)] #[x] use c::{d}; keep2\n#[cfg(not(test))] keep3;\n#[cfg(test)] fn f(x: [u8; 2]) { y } keep4";
        let all = tokens(text);
        let kept: Vec<&str> =
            without_tests(&all).iter().map(|token| token.text).filter(|text| text.starts_with("keep")).collect();
        assert_eq!(kept, ["keep1", "keep2", "keep3", "keep4"]);
        assert!(!without_tests(&all).iter().any(|token| ["a", "b", "c", "d", "f", "y"].contains(&token.text)));
    }
}
