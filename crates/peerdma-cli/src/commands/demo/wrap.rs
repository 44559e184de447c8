//! Lines that fit a terminal.

/// Columns that text takes at most, words that are longer apart.
const COLUMNS: usize = 100;

/// Breaks a line at blanks; what goes on stands under the words behind the first `hang` columns.
pub(super) fn wrapped(line: &str, hang: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    let indent = line.len() - line.trim_start().len();
    out.push_str(&line[..indent]);
    column += indent;
    for (index, word) in line.trim_start().split(' ').enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > COLUMNS {
            out.push('\n');
            out.push_str(&" ".repeat(hang));
            column = hang;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_goes_on_under_its_words_and_loses_none() {
        let line = format!("  why        {}", "words ".repeat(40).trim_end());
        let text = wrapped(&line, 13);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS));
        assert!(text.lines().skip(1).all(|line| line.starts_with("             words")));
        assert_eq!(text.matches("words").count(), 40);
        assert_eq!(wrapped("  a  b", 4), "  a  b");
    }
}
