//! `cargo xtask questions`: `docs/questions.md` is complete and its proofs exist.
//!
//! A document that names tests rots when tests are renamed. Here every `Test:`
//! line must lead to a function that the test runner runs.

use crate::failure::{Failure, no_arguments};
use crate::repo;
use crate::source::{Kind, Token, tokens};
use std::fs;
use std::path::Path;

const DOCUMENT: &str = "docs/questions.md";
const QUESTIONS: usize = 31;
/// What the numbers of the `Issue:` lines stand for; the document's head says the same.
const ISSUES: [&str; 8] = [
    "routes",
    "virtual machines as an oracle",
    "the fabric's view and the operators' tool",
    "the DMA mapping engine",
    "the emulated platform",
    "shared buffers",
    "pins",
    "real devices",
];
/// What every answer says, in this order.
const PARTS: [&str; 4] = ["**Asked.**", "**Linux 7.2.**", "**peerdma.**", "**Command.**"];

/// One `### N.` section.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Question {
    line: usize,
    title: String,
    parts: Vec<String>,
    tests: Vec<(usize, String)>,
    issues: Vec<(usize, String)>,
}

/// Runs the check on the working tree.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    no_arguments(arguments)?;
    let root = repo::root()?;
    let path = root.join(DOCUMENT);
    let text = fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))?;
    let questions = read(&text);
    let found = check(&questions, &|test| find_test(&root, test));
    for line in &found {
        say!("{DOCUMENT}:{line}");
    }
    if !found.is_empty() {
        let (count, s) = (found.len(), if found.len() == 1 { "" } else { "s" });
        return Err(Failure::Found(format!(
            "{count} mistake{s} in {DOCUMENT}; mend the document, or bring the test back"
        )));
    }
    let proven = questions.iter().filter(|question| !question.tests.is_empty()).count();
    let whole = questions.iter().filter(|question| !question.tests.is_empty() && question.issues.is_empty()).count();
    let tests: usize = questions.iter().map(|question| question.tests.len()).sum();
    say!("questions: {QUESTIONS} answered, {proven} with tests ({tests} named, all there), {whole} of them wholly");
    for (number, name) in (1..).zip(ISSUES) {
        let waiting: Vec<String> = (1..)
            .zip(&questions)
            .filter(|(_, question)| question.issues.iter().any(|(_, issue)| *issue == format!("{number}")))
            .map(|(question, _): (usize, _)| question.to_string())
            .collect();
        if !waiting.is_empty() {
            say!("  waiting for {number} ({name}): {}", waiting.join(", "));
        }
    }
    Ok(())
}

/// Splits the document into its questions; prose before the first is skipped.
fn read(text: &str) -> Vec<Question> {
    let mut questions: Vec<Question> = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        if let Some(title) = content.strip_prefix("### ") {
            questions.push(Question { line, title: title.to_string(), ..Question::default() });
            continue;
        }
        let Some(question) = questions.last_mut() else { continue };
        let content = content.trim().trim_start_matches("- ");
        if let Some(part) = PARTS.iter().find(|part| content.starts_with(**part)) {
            let has_text = content.len() > part.len();
            question.parts.push(if has_text { (*part).to_string() } else { format!("{part} without text") });
        } else if let Some(test) = content.strip_prefix("Test:") {
            question.tests.push((line, test.trim().trim_matches('`').to_string()));
        } else if let Some(issue) = content.strip_prefix("Issue:") {
            question.issues.push((line, issue.trim().to_string()));
        }
    }
    questions
}

/// What is wrong, each with its line.
fn check(questions: &[Question], find: &dyn Fn(&str) -> Result<(), String>) -> Vec<String> {
    let mut found = Vec::new();
    if questions.len() != QUESTIONS {
        found.push(format!("1: holds {} questions, not {QUESTIONS}", questions.len()));
    }
    for (number, question) in (1..).zip(questions) {
        let line = question.line;
        if !question.title.starts_with(&format!("{number}. ")) {
            found.push(format!("{line}: `{}` should be question {number}", question.title));
        }
        if question.parts != PARTS {
            found.push(format!("{line}: question {number} has {:?}, not {PARTS:?}", question.parts));
        }
        if question.tests.is_empty() && question.issues.is_empty() {
            found.push(format!("{line}: question {number} names neither a test nor the issue that brings one"));
        }
        for (line, test) in &question.tests {
            if let Err(why) = find(test) {
                found.push(format!("{line}: {why}"));
            }
        }
        for (line, issue) in &question.issues {
            if !issue.parse().is_ok_and(|number: usize| (1..=ISSUES.len()).contains(&number)) {
                found.push(format!("{line}: `{issue}` is not the number of an issue, 1 to {}", ISSUES.len()));
            }
        }
    }
    found
}

/// Looks up `path::name`, where `name` may be preceded by module names.
fn find_test(root: &Path, test: &str) -> Result<(), String> {
    let Some((path, name)) = test.split_once(".rs::") else {
        return Err(format!("`{test}` is not of the form path/to/file.rs::name_of_the_test"));
    };
    let path = format!("{path}.rs");
    let name = name.rsplit("::").next().unwrap_or(name);
    let Ok(text) = fs::read_to_string(root.join(&path)) else {
        return Err(format!("there is no file {path}, so no test {name} in it"));
    };
    holds_test(&text, name).map_err(|why| format!("{path} {why}"))
}

fn holds_test(text: &str, name: &str) -> Result<(), String> {
    let tokens = tokens(text);
    let defined = |at: usize| tokens[at].is_word("fn") && tokens.get(at + 1).is_some_and(|next| next.is_word(name));
    let mut starts = (0..tokens.len()).filter(|&at| defined(at)).peekable();
    if starts.peek().is_none() {
        return Err(format!("holds no function {name}"));
    }
    let mut why = format!("has a function {name}, but without #[test]");
    for at in starts {
        let attributes = words_of_attributes_before(&tokens, at);
        if attributes.contains(&"ignore") {
            why = format!("has a test {name}, but it is ignored");
        } else if attributes.contains(&"test") {
            return Ok(());
        }
    }
    Err(why)
}

/// All words inside the `#[…]` groups right before the item at `at`.
fn words_of_attributes_before<'a>(tokens: &[Token<'a>], mut at: usize) -> Vec<&'a str> {
    let mut words = Vec::new();
    // `pub`, `const`, `async` and the like may stand between.
    while at > 0 && tokens[at - 1].kind == Kind::Word {
        at -= 1;
    }
    while at > 0 && tokens[at - 1].is("]") {
        let mut depth = 0usize;
        while at > 0 {
            at -= 1;
            let token = tokens[at];
            depth += usize::from(token.is("]"));
            depth -= usize::from(token.is("["));
            if depth == 0 {
                break;
            }
            if token.kind == Kind::Word {
                words.push(token.text);
            }
        }
        at = if at > 0 && tokens[at - 1].is("#") { at - 1 } else { 0 };
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(last: &str) -> String {
        let section = |number: usize, proof: &str| {
            format!(
                "### {number}. T\n\n**Asked.** a\n\n**Linux 7.2.** b\n\n**peerdma.** c\n\n**Command.** d\n\n{proof}\n"
            )
        };
        let mut text = String::from("# Head\n");
        for number in 1..QUESTIONS {
            text.push_str(&section(number, "- Test: `a.rs::b`\n- Issue: 2"));
        }
        text + &section(QUESTIONS, last)
    }

    fn wrong(text: &str) -> Vec<String> {
        check(&read(text), &|test| if test == "a.rs::b" { Ok(()) } else { Err(format!("no {test}")) })
    }

    #[test]
    fn a_whole_document_passes_and_each_lack_is_named() {
        assert_eq!(wrong(&document("Issue: 8")), [""; 0]);
        assert!(wrong(&document(""))[0].contains("names neither"));
        assert!(wrong(&document("Issue: 9"))[0].contains("`9`"));
        assert!(wrong(&document("Test: `a.rs::gone`"))[0].ends_with("no a.rs::gone"));
        assert!(wrong(&document("Issue: 1").replace("### 7. T", "### 8. T"))[0].contains("question 7"));
        assert_eq!(wrong(&document("Issue: 1").replacen("**Command.** d", "", 1)).len(), 1);
        assert_eq!(wrong(&document("Issue: 1").replacen("**Asked.** a", "**Asked.**", 1)).len(), 1);
        assert!(wrong("# nothing").iter().any(|line| line.contains("holds 0")));
    }

    #[test]
    fn only_what_the_test_runner_runs_is_a_test() {
        let text = "#[test]\n#[should_panic]\n/// d\nfn a() {}\nfn b() {}\n#[test] #[ignore = \"slow\"] fn c() {}\n\
                    proptest! { #![x(1)] #[test] fn d(x in 0..1u8) {} }\n// #[test] fn e() {}\nconst X: [u8; 1] = f[0]; fn g() {}";
        assert_eq!(holds_test(text, "a"), Ok(()));
        assert!(holds_test(text, "b").is_err_and(|why| why.contains("without")));
        assert!(holds_test(text, "c").is_err_and(|why| why.contains("ignored")));
        assert_eq!(holds_test(text, "d"), Ok(()));
        assert!(holds_test(text, "e").is_err_and(|why| why.contains("no function")));
        assert!(holds_test(text, "g").is_err());
    }
}
