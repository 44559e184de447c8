//! `copy` as far as it goes without devices: what it refuses, and with which exit code. The
//! bytes themselves are moved in guests.

use crate::machine::{json_of, peerdma, stdout_of};

/// Standard error of a run with the wanted exit code.
fn stderr_of(arguments: &[&str], code: i32) -> String {
    let output = peerdma(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{errors}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    errors
}

#[test]
fn what_cannot_be_meant_is_usage() {
    // The functions are not there either, which is usage too; so the reason is looked at.
    for (arguments, reason) in [
        (&["copy"][..], "<FROM>"),
        (&["copy", "0000:05:00.0"], "<TO/barN[+OFFSET,LEN]>"),
        (&["copy", "0000:05:00.0", "0000:06:00.0/bar2", "--engine", "dsa"], "'dsa'"),
        (&["copy", "0000:05:00.0", "0000:06:00.0/bar2", "--via", "vfio"], "'vfio'"),
        (&["copy", "0000:05:00.0", "0000:06:00.0/bar2", "--seed", "-1"], "'-1'"),
    ] {
        let errors = stderr_of(arguments, 2);
        assert!(errors.contains(reason), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_function_that_is_not_there_is_named() {
    // No machine has domain ffffffff.
    let errors = stderr_of(&["copy", "ffffffff:05:00.0", "ffffffff:06:00.0/bar2", "--verify"], 2);
    assert!(errors.contains("ffffffff:05:00.0 is not among"), "{errors}");
}

#[test]
fn the_schema_keeps_the_three_statements_apart() {
    let schema = json_of(&["copy", "--schema"], 0);
    for statement in ["pair", "forced", "granted", "moved", "verified"] {
        assert!(schema["properties"][statement].is_object(), "{statement}");
        assert!(schema["required"].as_array().unwrap().contains(&statement.into()), "{statement}");
    }
}

#[test]
fn the_help_tells_the_exit_codes_and_warns_of_registers() {
    let help = stdout_of(&["copy", "--help"], 0);
    for word in ["4 the bytes did not arrive", "could not be put back", "never registers", "vfio-pci", "--force"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
