//! The example of an exporter does what it says, and is as short as it says.

/// Lines of an exporter that gives every way of access, without comments and empty ones.
const MOST: usize = 40;

#[test]
fn an_exporter_with_physical_ranges_gives_every_way_of_access_in_less_than_forty_lines() {
    let text = include_str!("../../examples/export_vram.rs");
    let exporter = text.split("\nmod exporter {\n").nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap();
    let lines = exporter.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let lines = lines.count();
    assert!((15..MOST).contains(&lines), "{lines} lines");
}

#[test]
fn the_example_runs() {
    super::export_vram::main().unwrap();
}
