//! The tables that `peerdma explain` prints.

use crate::machine::{json_of, peerdma, stdout_of};

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
}

#[test]
fn a_subject_that_is_not_there_is_usage_and_the_answer_lists_those_there_are() {
    let output = peerdma(&["explain", "verdicts"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("states"));
    assert!(json_of(&["explain", "states", "--schema"], 0)["properties"]["transitions"].is_object());
}
