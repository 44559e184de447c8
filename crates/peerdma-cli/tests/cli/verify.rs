//! `peerdma verify`.

use crate::machine::{As, Folder, json_of, peerdma, stdout_of, write_tree};
use crate::whatif::redirecting;
use std::fs;
use std::path::Path;

/// A capture of a guest, with the groups that its kernel formed at boot.
fn guest(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peerdma-linux/tests/guests");
    folder.join(format!("{name}.peerdma")).display().to_string()
}

fn wanted(folder: &Folder, port: &str) -> String {
    let path = folder.join("wanted");
    fs::write(&path, format!("[[ports]]\nbdf = \"{port}\"\nclear = [\"rr\", \"cr\"]\n")).unwrap();
    path
}

#[test]
fn what_fix_writes_verify_reads() {
    let folder = Folder::new();
    let from = redirecting(&folder);
    let document = stdout_of(&["fix", "gpu0", "nic0", "--direct", "--from", &from, "--json"], 0);
    let wanted = folder.join("wanted.json");
    fs::write(&wanted, document).unwrap();
    let text = stdout_of(&["verify", &wanted, "--from", &from], 1);
    assert!(text.starts_with("FAIL\t0000:12:00.0\tcontrol word 0x001d, rr,cr still set\n"), "{text}");
    // The built-in machine has them clear; a described machine has formed no groups.
    let text = stdout_of(&["verify", &wanted, "--platform", "two-socket"], 3);
    assert!(text.starts_with("OK\t0000:12:00.0\t") && text.contains("UNKNOWN\tgroups\t"), "{text}");
}

#[test]
fn groups_formed_before_the_change_are_stale_until_a_reboot() {
    let folder = Folder::new();
    let wanted = wanted(&folder, "00:04.0");
    let run = |name: &str, code| stdout_of(&["verify", &wanted, "--from", &guest(name)], code);
    assert!(run("multifunction-intel.0.root", 1).starts_with("FAIL\t"));
    // Somebody cleared the bits of the running guest.
    let text = run("multifunction-intel.1.root", 1);
    assert!(text.starts_with("OK\t0000:00:04.0") && text.contains("stale: formed before the change; reboot"), "{text}");
    assert!(text.contains("STALE\tapart now, one group after a boot: 0000:00:04.0 | 0000:01:00.0"), "{text}");
    // This one was booted with a parameter that clears them.
    let text = run("multifunction-disable.0.root", 0);
    assert!(text.starts_with("OK\t0000:00:04.0") && text.contains("OK\tgroups\t"), "{text}");
    assert!(run("multifunction-disable.0.user", 3).starts_with("UNKNOWN\t"));
    let document = json_of(&["verify", &wanted, "--from", &guest("multifunction-intel.1.root"), "--json"], 1);
    assert_eq!(document["groups"]["status"], "FAIL");
    assert_eq!(document["stale_apart"][0]["parts"][0][0], "0000:00:04.0");
}

#[test]
fn a_path_counts_before_an_address() {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    let path = folder.join("wanted.toml");
    let write = |text: &str| fs::write(&path, text).unwrap();
    let from = folder.join("");
    write("[[ports]]\nbdf = \"00:00.0\"\npath = \"00:01.0/00.0/01.0\"\nclear = [\"rr\"]\n");
    assert!(stdout_of(&["verify", &path, "--from", &from], 3).starts_with("OK\t0000:02:01.0"));
    write("[[ports]]\nbdf = \"02:01.0\"\npath = \"00:01.0/00.0/05.0\"\nclear = [\"rr\"]\n");
    let text = stdout_of(&["verify", &path, "--from", &from], 1);
    assert!(text.starts_with("FAIL\t0000:00:01.0/00.0/05.0\tno function is there"), "{text}");
    write("[[ports]]\nbdf = \"03:00.0\"\nset = [\"uf\"]\n");
    assert!(stdout_of(&["verify", &path, "--from", &from], 1).contains("no ACS capability"));
}

#[test]
fn files_that_are_no_wanted_ports_fail_and_name_the_fault() {
    let folder = Folder::new();
    let path = folder.join("wanted");
    let long = " ".repeat(5 << 20);
    for (text, why) in [
        ("", "neither the JSON"),
        ("{\"ports\": [{\"bdf\": \"x\"}]}", "port 1"),
        ("[[ports]]\nbdf = \"00:01.0\"\nclear = [\"redir\"]\n", "no ACS bit"),
        ("[[ports]]\nbdf = \"00:01.0\"\nclr = [\"rr\"]\n", "unknown field `clr`"),
        ("[[ports]]\nbdf = \"00:01.0\"\n", "wants no bit"),
        ("{\"schema\": 1, \"outcome\": \"none\", \"ports\": []}", "found no ports"),
        ("{\"schema\": 7, \"ports\": []}", "schema 7"),
        (&long, "longer than"),
    ] {
        fs::write(&path, text).unwrap();
        let output = peerdma(&["verify", &path, "--platform", "two-socket"]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{errors}");
        assert!(errors.contains(why), "{errors}");
    }
    assert_eq!(peerdma(&["verify"]).status.code(), Some(2));
    for command in ["whatif", "fix", "verify"] {
        assert!(stdout_of(&[command, "--schema"], 0).contains("\"$schema\""), "{command}");
    }
}
