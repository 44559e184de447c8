//! Rules that are data, as `peerdma explain` prints them.

use crate::machine::{json_of, peerdma, stdout_of};
use peerdma::buffer::terms::{LIFETIMES, RULES, Stays};

#[test]
fn lifetimes_are_printed_with_every_memory_and_every_rule_in_order() {
    let text = stdout_of(&["explain", "lifetimes"], 0);
    for stays in Stays::ALL {
        assert!(text.lines().any(|line| line.starts_with(&format!("{stays}  "))), "{stays}: {text}");
    }
    let mut rest = text.as_str();
    for about in RULES {
        let at = rest.find(&format!("  {} ", about.word)).unwrap_or_else(|| panic!("{}: {rest}", about.word));
        rest = &rest[at..];
        assert!(rest.contains(about.sentence) && rest.contains(about.fix), "{}", about.word);
    }
    let vfio = text.lines().find(|line| line.starts_with("may be revoked")).unwrap();
    let cells: Vec<&str> = vfio["may be revoked".len()..].split("  ").filter(|cell| !cell.trim().is_empty()).collect();
    assert_eq!(
        cells.iter().map(|cell| cell.trim()).collect::<Vec<_>>(),
        ["refused: revoked", "revocable", "revocable"]
    );
}

#[test]
fn the_document_of_lifetimes_has_each_cell_and_each_rule() {
    let document = json_of(&["explain", "lifetimes", "--json"], 0);
    let (lifetimes, rules) = (document["lifetimes"].as_array().unwrap(), document["rules"].as_array().unwrap());
    assert_eq!((lifetimes.len(), rules.len()), (LIFETIMES.len(), RULES.len()));
    for cell in lifetimes {
        assert_ne!(cell["lifetime"].is_null(), cell["refused"].is_null(), "{cell}");
        if let Some(rule) = cell["refused"].as_str() {
            assert!(rules.iter().any(|known| known["rule"] == rule), "{cell}");
        }
    }
    let held = lifetimes.iter().find(|cell| cell["moves"] == "unless_pinned" && cell["takes"] == "pinned").unwrap();
    assert_eq!((&held["lifetime"], &held["pin"]), (&"pinned".into(), &true.into()));
    assert!(json_of(&["explain", "lifetimes", "--schema"], 0)["properties"]["rules"].is_object());
}

#[test]
fn states_are_explained_with_their_disturbances_and_transitions() {
    let text = stdout_of(&["explain", "states"], 0);
    for words in ["live -> invalidating", "on decode-off", "moving -> dead", "dead stays", "function-reset"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let document = json_of(&["explain", "states", "--json"], 0);
    let count = |key: &str| document[key].as_array().unwrap().len();
    assert_eq!((count("phases"), count("disturbances")), (7, 11));
    let named = |key: &str, field: &str| -> Vec<String> {
        document[key].as_array().unwrap().iter().map(|row| row[field].as_str().unwrap().to_string()).collect()
    };
    let phases = named("phases", "phase");
    assert!(named("transitions", "from").iter().chain(&named("transitions", "to")).all(|phase| phases.contains(phase)));
    let private = document["private_memory"].as_array().unwrap();
    assert!(private.iter().all(|row| row["goes"].is_null() || row["refused"].is_null()), "{private:?}");
    assert!(json_of(&["explain", "states", "--schema"], 0)["properties"]["transitions"].is_object());
}

#[test]
fn a_topic_that_there_is_not_is_usage_and_the_answer_lists_those_there_are() {
    let output = peerdma(&["explain", "fences"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("lifetimes, states"));
}
