//! `peerdma pin --prove` as users run it.

use crate::machine::{json_of, peerdma};
use std::io::Write;

#[test]
fn pinned_memory_is_shown_to_keep_its_place() {
    let output = peerdma(&["pin", "--prove", "--size", "4MiB", "--json"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.stdout.is_empty() {
        // Too low a limit, or a kernel without huge pages: an answer, with the reason.
        assert!(matches!(output.status.code(), Some(1 | 3)) && errors.starts_with("note: "), "{errors}");
        writeln!(std::io::stderr(), "SKIPPED proof: {}", errors.trim()).unwrap();
        return;
    }
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    if output.status.code() == Some(3) {
        assert_eq!(document["verdict"], "inconclusive");
        writeln!(std::io::stderr(), "SKIPPED proof: {}", document["notes"]).unwrap();
        return;
    }
    assert_eq!((output.status.code(), &document["verdict"]), (Some(0), &serde_json::json!("proven")));
    let kinds: Vec<_> = document["trials"].as_array().unwrap().iter().map(|trial| trial["memory"].clone()).collect();
    assert_eq!(kinds, ["plain", "mlock", "pin"]);
    assert_eq!(document["trials"][2]["moved"], 0);
    assert!(document["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains("Not tried")));
}

/// A file that is gone after the test.
struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An unused user without the capability: told by huge pages and answers, within his limit.
#[test]
fn a_user_without_privilege_sees_the_same_within_his_limit() {
    // Where he may run it: the build's own folder may be root's alone.
    let program = std::env::temp_dir().join(format!("peerdma-proof-{}", std::process::id()));
    let copy = Removed(program);
    std::fs::copy(env!("CARGO_BIN_EXE_peerdma"), &copy.0).unwrap();
    std::fs::set_permissions(&copy.0, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = copy.0.display();
    let run = |limit: &str, arguments: &str| {
        let script =
            format!("ulimit -l {limit} && exec setpriv --reuid 54733 --clear-groups {program} pin --prove {arguments}");
        std::process::Command::new("sh").args(["-c", &script]).output().unwrap()
    };
    if !rustix::process::getuid().is_root() || !std::path::Path::new("/usr/bin/setpriv").exists() {
        writeln!(std::io::stderr(), "SKIPPED proof-as-user: only root can be another user, by setpriv").unwrap();
        return;
    }
    let output = run("8192", "--json");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(126) || output.status.code() == Some(127) {
        writeln!(std::io::stderr(), "SKIPPED proof-as-user: he may not run the program: {}", errors.trim()).unwrap();
        return;
    }
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["told_by"], "huge_pages", "he has the capability, and the test is void");
    // Of 8 MiB two pages are the ring's, so that three huge pages of 2 MiB fit.
    assert!(document["bytes"].as_u64().unwrap() < 8 << 20);
    if document["verdict"] != "proven" {
        assert_eq!((document["verdict"].as_str(), output.status.code()), (Some("inconclusive"), Some(3)));
        writeln!(std::io::stderr(), "SKIPPED proof-as-user: {}", document["notes"]).unwrap();
    }
    let output = run("8192", "--size 64MiB");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("RLIMIT_MEMLOCK 8 MiB") && errors.contains("raise the limit to 64 MiB"), "{errors}");
    let output = run("0", "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("RLIMIT_MEMLOCK is 0"));
}

#[test]
fn pin_wants_to_be_told_what_to_do_and_sizes_that_huge_pages_have() {
    assert_eq!(peerdma(&["pin"]).status.code(), Some(2));
    assert_eq!(peerdma(&["pin", "--prove", "--size", "0"]).status.code(), Some(2));
    assert_eq!(json_of(&["pin", "--schema"], 0)["title"], "ProofDocument");
}
