//! Which paths a source file names, written out in full.

use crate::source::{Kind, Token};

/// A path out of a `use` or out of the middle of the code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Import {
    /// Segments, the first being `crate` or a crate's name. A last segment `*` is a
    /// glob. A lone segment is a whole crate under another name.
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

/// Reads all paths that start at a crate; `module` is the file's own module path.
pub(super) fn imports(tokens: &[Token<'_>], module: &[String]) -> Vec<Import> {
    let mut reader = Reader { tokens, at: 0, module: module.to_vec(), open: Vec::new(), depth: 0, found: Vec::new() };
    while reader.at < tokens.len() {
        reader.step();
    }
    reader.found
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    /// Module path at the current token.
    module: Vec<String>,
    /// Depths of braces that inline modules opened.
    open: Vec<usize>,
    depth: usize,
    found: Vec<Import>,
}

impl<'a> Reader<'a> {
    fn token(&self, ahead: usize) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at + ahead)
    }

    fn is(&self, ahead: usize, mark: &str) -> bool {
        self.token(ahead).is_some_and(|token| token.is(mark))
    }

    fn step(&mut self) {
        let token = self.tokens[self.at];
        if token.is("{") {
            self.depth += 1;
            self.at += 1;
        } else if token.is("}") {
            self.depth = self.depth.saturating_sub(1);
            if self.open.last() == Some(&self.depth) {
                self.open.pop();
                self.module.pop();
            }
            self.at += 1;
        } else if token.is_word("mod") && self.is(2, "{") {
            self.module.push(self.tokens[self.at + 1].text.to_string());
            self.open.push(self.depth);
            self.at += 2;
        } else if token.is_word("use") && !self.is(1, "<") {
            self.at += 1;
            self.tree(&mut Vec::new());
        } else if token.is_word("extern") && self.token(1).is_some_and(|next| next.is_word("crate")) {
            if let Some(name) = self.token(2).filter(|name| name.kind == Kind::Word) {
                self.found.push(Import { path: vec![name.text.to_string()], line: name.line });
            }
            self.at += 3;
        } else if token.kind == Kind::Word && self.is(1, "::") && !self.continues_a_path() {
            self.inline_path();
        } else {
            self.at += 1;
        }
    }

    /// Whether the word at hand stands behind `a::` or `>::`.
    fn continues_a_path(&self) -> bool {
        let before = |back: usize| self.at.checked_sub(back).map(|at| self.tokens[at]);
        before(1).is_some_and(|token| token.is("::"))
            && before(2).is_some_and(|token| token.kind == Kind::Word || token.is(">"))
    }

    fn inline_path(&mut self) {
        let line = self.tokens[self.at].line;
        let mut path = vec![self.tokens[self.at].text];
        self.at += 1;
        while let (true, Some(next)) = (self.is(0, "::"), self.token(1).filter(|token| token.kind == Kind::Word)) {
            path.push(next.text);
            self.at += 2;
        }
        // Exported macros live at the root wherever they are written.
        let is_macro = path.len() == 2 && self.is(0, "!");
        if !is_macro {
            self.push(&path, line);
        }
    }

    /// Reads one tree of a `use` up to the `;`, `,` or `}` behind it.
    fn tree(&mut self, prefix: &mut Vec<&'a str>) {
        while let Some(&token) = self.token(0) {
            if token.is("::") {
                self.at += 1;
            } else if token.is("{") {
                self.at += 1;
                while !self.is(0, "}") && self.token(0).is_some() {
                    self.tree(&mut prefix.clone());
                    if self.is(0, ",") {
                        self.at += 1;
                    }
                }
                self.at += 1;
                return;
            } else if token.is("*") {
                prefix.push("*");
                self.push(prefix, token.line);
                self.at += 1;
                return;
            } else if token.kind == Kind::Word {
                prefix.push(token.text);
                self.at += 1;
                if self.is(0, "::") {
                    continue;
                }
                if self.token(0).is_some_and(|next| next.is_word("as")) {
                    self.at += 2;
                }
                self.push(prefix, token.line);
                return;
            } else {
                // Not Rust; go on behind it rather than stand still.
                self.at += 1;
                return;
            }
        }
    }

    /// Notes a path, with `self` and `super` written out.
    fn push(&mut self, segments: &[&str], line: usize) {
        let mut path: Vec<String> = segments.iter().map(ToString::to_string).collect();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let ups = path.iter().take_while(|segment| *segment == "super").count();
        let own = path.first().is_some_and(|first| first == "self");
        if ups > 0 || own {
            let kept = self.module.len().saturating_sub(ups);
            let above = self.module[..kept].iter().cloned();
            let rest: Vec<String> =
                path.drain(ups + usize::from(own)..).skip_while(|segment| segment == "super").collect();
            path = std::iter::once("crate".to_string()).chain(above).chain(rest).collect();
        }
        self.found.push(Import { path, line });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tokens;

    fn paths(text: &str) -> Vec<String> {
        let module = ["pcie".to_string(), "acs".to_string()];
        imports(&tokens(text), &module).iter().map(|import| import.path.join("::")).collect()
    }

    #[test]
    fn trees_are_written_out() {
        assert_eq!(
            paths("use crate::{a::{self, B as C}, d::*, e}; pub use ::x::y;"),
            ["crate::a", "crate::a::B", "crate::d::*", "crate::e", "x::y"]
        );
    }

    #[test]
    fn super_and_self_are_resolved_through_inline_modules() {
        assert_eq!(
            paths(
                "use super::b; mod t { use super::super::c; fn f() { super::d::e() } } use self::g; use super::super::h;"
            ),
            ["crate::pcie::b", "crate::pcie::c", "crate::pcie::acs::d::e", "crate::pcie::acs::g", "crate::h"]
        );
    }

    #[test]
    fn paths_in_code_are_read_once_and_whole() {
        assert_eq!(
            paths("fn f(x: crate::a::B) { <crate::c::D as E>::f(); crate::g!(1); Vec::<crate::h::I>::new() }"),
            ["crate::a::B", "crate::c::D", "Vec", "crate::h::I"]
        );
    }

    #[test]
    fn text_that_is_not_rust_ends_the_reading() {
        for text in ["use", "use {", "use crate::{a,", "mod x {", "use crate::{{{", "use =;", "}}}", "extern crate"] {
            let _ = paths(text);
        }
    }
}
