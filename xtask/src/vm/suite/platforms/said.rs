//! What a guest left of its copies.

use super::emulated::Granted;
use super::outcome::{Came, Landed, MARK, WORDS, judge};
use crate::failure::Failure;
use crate::vm::guest::Outcome;
use peerdma::addr::Iova;
use serde_json::Value;

/// The first word that an engine copies, another for each copy: an edu whose fetch fails stores what
/// it fetched before.
pub(super) fn pattern(at: usize) -> u64 {
    0x5555_0000_0000_0000 | (at as u64) << 16
}

/// What became of a `peerdma copy`, and where it was mapped.
///
/// # Errors
/// It ended otherwise than copied or refused: its code and what it wrote.
pub(super) fn copy(outcome: &Outcome, at: usize) -> Result<(Came, Option<Granted>), Failure> {
    let exit = text(outcome, &format!("{at}.exit"))?;
    let written = text(outcome, &format!("{at}.json"))?;
    let odd = || {
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        Failure::Found(format!(
            "peerdma copy ended with {} and wrote `{written}`; the guest said: {stderr}",
            exit.trim()
        ))
    };
    let document: Value = serde_json::from_str(&written).map_err(|_| odd())?;
    let granted = granted(&document);
    let untouched = document["verified"]["write"]["untouched"] == true;
    let came = match (exit.trim(), granted) {
        ("0", Some(_)) if document["verified"]["verified"] == true => Came::Landed(Landed::All),
        ("1", None) => Came::Refused,
        ("4", Some(_)) => Came::Landed(if untouched { Landed::Nothing } else { Landed::Something }),
        _ => return Err(odd()),
    };
    Ok((came, granted))
}

/// The IOVAs of a document that has some.
fn granted(document: &Value) -> Option<Granted> {
    let iova = |name: &str| {
        let range = document["granted"][name].as_str()?;
        let start = range.split('-').next()?.strip_prefix("0x")?;
        u64::from_str_radix(start, 16).ok().map(Iova::new)
    };
    Some(Granted { staging: iova("staging_iova")?, target: iova("target_iova")? })
}

/// What the guest's CPU read at the destination of a copy by bus addresses.
pub(super) fn words(outcome: &Outcome, at: usize) -> Result<Landed, Failure> {
    let text = text(outcome, &format!("{at}.words"))?;
    let found: Vec<u64> =
        text.lines().filter_map(|line| u64::from_str_radix(line.trim().strip_prefix("0x")?, 16).ok()).collect();
    if found.len() as u64 != WORDS {
        return Err(Failure::Stopped(format!("the guest read `{text}`, which is not {WORDS} words")));
    }
    let sent: Vec<u64> = (0..WORDS).map(|word| pattern(at) + 8 * word).collect();
    Ok(judge(&found, &sent, &vec![MARK; found.len()]))
}

fn text(outcome: &Outcome, name: &str) -> Result<String, Failure> {
    let bytes = outcome.files.get(name).ok_or_else(|| {
        let said = String::from_utf8_lossy(&outcome.stderr).trim().to_string();
        Failure::Stopped(format!("the guest did not leave {name}; what it said: {said:?}"))
    })?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peerdma_wrote_is_read_for_the_iovas_and_not_guessed() {
        let document =
            serde_json::json!({ "granted": { "staging_iova": "0x100000-0x102fff", "target_iova": "0x104000" } });
        let granted = granted(&document).unwrap();
        assert_eq!((granted.staging, granted.target), (Iova::new(0x10_0000), Iova::new(0x10_4000)));
        assert_eq!(super::granted(&serde_json::json!({ "granted": null })), None);
    }
}
