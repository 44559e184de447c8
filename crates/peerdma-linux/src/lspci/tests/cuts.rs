//! A text that was cut anywhere says nothing that the whole text does not say.

use super::*;
use peerdma::topology::FunctionId;
use proptest::prelude::*;

/// All verdicts of a topology that are definite, by addresses.
fn verdicts(topology: &Topology) -> Vec<(PciAddr, PciAddr, MapType)> {
    let view = KernelView::new(topology);
    let ids: Vec<FunctionId> = topology.functions().map(|(id, _)| id).collect();
    let address = |id| topology.function(id).address();
    let pairs = ids.iter().flat_map(|&provider| ids.iter().map(move |&client| (provider, client)));
    pairs
        .map(|(provider, client)| (address(provider), address(client), view.decide(provider, client).map_type))
        .filter(|(_, _, map_type)| *map_type != MapType::Unknown)
        .collect()
}

/// Cuts `text` at every `step`th byte; returns how many definite verdicts the parts had.
fn assert_cuts_are_sound(text: &str, step: usize) -> usize {
    let whole = topology(text);
    let whole_view = KernelView::new(&whole);
    let mut definite = 0;
    let mut before = None;
    for cut in (0..text.len()).step_by(step) {
        let Ok(mut part) = read(&text[..cut], &PciNames::built_in()) else { continue };
        part.builder.machine().cpu = Some("intel:6".parse().unwrap());
        let part = part.builder.build();
        // Most cuts inside a line lead to the same machine.
        if before.as_ref() == Some(&part) {
            continue;
        }
        for (provider, client, map_type) in verdicts(&part) {
            let (Some(p), Some(c)) = (whole.at(provider), whole.at(client)) else {
                panic!("cut at {cut}: {provider} or {client} is not in the whole text")
            };
            let of_whole = whole_view.decide(p, c).map_type;
            let agrees = of_whole == map_type || of_whole == MapType::Unknown;
            assert!(agrees, "cut at {cut}: {provider} {client} is {map_type}, of the whole {of_whole}");
            definite += 1;
        }
        before = Some(part);
    }
    definite
}

#[test]
fn a_privileged_dump_may_be_cut_at_any_byte() {
    assert!(assert_cuts_are_sound(SWITCH, 1) > 300);
}

#[test]
fn a_dump_with_other_line_endings_or_without_empty_lines_may_be_cut_at_any_byte() {
    assert_cuts_are_sound(&SWITCH.replace('\n', "\r\n"), 3);
    assert_cuts_are_sound(&SWITCH.replace("\n\n", "\n"), 3);
}

#[test]
fn a_dump_of_one_kind_of_text_may_be_cut_at_any_byte() {
    let names_only = SWITCH
        .lines()
        .filter(|line| !line.starts_with("\t\t") && !line.starts_with("\tStatus"))
        .map(|line| line.replace(" v1]", "]").replace("\tControl: ", "\tFlags: ") + "\n")
        .collect::<String>();
    assert!(assert_cuts_are_sound(&names_only, 1) > 0);
    let denied = SWITCH.replace("Capabilities: [", "Capabilities: <access denied>\n\tx [");
    assert_cuts_are_sound(&denied, 3);
}

#[test]
fn bytes_alone_and_below_their_text_may_be_cut_anywhere() {
    assert!(assert_cuts_are_sound(&hex_machine(), 23) > 0);
    let machine = hex_machine();
    let port = machine.split_inclusive("\n\n").nth(1).unwrap().split_once('\n').unwrap().1;
    let text = "00:01.0 PCI bridge: Intel Corporation Device 352a\n\tControl: I/O- Mem+ BusMaster+\n\
        \tBus: primary=00, secondary=01, subordinate=01, sec-latency=0\n\
        \tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00\n\
        \tCapabilities: [100 v1] Access Control Services\n\
        \t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-\n\
        \t\tACSCtl:\tSrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-\n";
    assert_cuts_are_sound(
        &format!("{text}{port}01:00.0 3D controller: x\n\tControl: Mem+\n\tStatus: Cap- 66MHz-\n\n"),
        23,
    );
}

#[test]
fn outputs_after_each_other_may_be_cut_anywhere() {
    let listing: String = SWITCH
        .lines()
        .filter(|line| line.contains(":0"))
        .filter(|line| !line.starts_with('\t'))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_cuts_are_sound(&format!("{listing}\n{SWITCH}"), 3);
    assert_cuts_are_sound(&format!("{SWITCH}{listing}"), 3);
    assert_cuts_are_sound(&format!("{SWITCH}{SWITCH}"), 11);
}

#[test]
fn paths_may_be_cut_anywhere() {
    let paths = SWITCH
        .replace("\n01:00.0", "\n00:01.0/01:00.0")
        .replace("\n02:0", "\n00:01.0/01:00.0/02:0")
        .replace("\n03:00.0", "\n00:01.0/01:00.0/02:00.0/03:00.0")
        .replace("\n04:00.", "\n00:01.0/01:00.0/02:01.0/04:00.");
    assert!(assert_cuts_are_sound(&paths, 3) > 100);
    let short = paths.replace("/01:", "/").replace("/02:", "/").replace("/03:", "/").replace("/04:", "/");
    assert!(assert_cuts_are_sound(&short, 3) > 100);
}

/// Lines that have made parsers stumble, to be shuffled.
fn any_line() -> impl Strategy<Value = String> {
    let known: Vec<String> = SWITCH.lines().chain(hex_machine().lines().take(20)).map(str::to_owned).collect();
    prop_oneof![
        6 => prop::sample::select(known),
        1 => Just(String::new()),
        1 => "[ \t]{0,3}[!-~ ]{0,40}",
        1 => "\t?(Capabilities: |Bus: |Region |ACSCtl:|BAR )?\\PC{0,30}",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}", lines in prop::collection::vec(any_line(), 0..60)) {
        let _ = read(&text, &PciNames::built_in());
        if let Ok(dump) = read(&lines.join("\n"), &PciNames::built_in()) {
            verdicts(&dump.builder.build());
        }
    }

    /// Lines left out, as people do, may lose verdicts or not; but a cut of what is
    /// left must not differ from it.
    #[test]
    fn a_trimmed_dump_may_be_cut_anywhere(keep in prop::collection::vec(0u8..8, 80), cut in 0usize..6000) {
        let mut kept = keep.iter().cycle();
        let opens = |line: &str| !line.starts_with(['\t', '\n']);
        let text: String = SWITCH.split_inclusive('\n').filter(|line| kept.next() != Some(&0) || opens(line)).collect();
        let cut = cut.min(text.len().saturating_sub(1));
        if read(&text, &PciNames::built_in()).is_ok() {
            let whole = topology(&text);
            let view = KernelView::new(&whole);
            let Ok(mut part) = read(&text[..cut], &PciNames::built_in()) else { return Ok(()) };
            part.builder.machine().cpu = Some("intel:6".parse().unwrap());
            for (provider, client, map_type) in verdicts(&part.builder.build()) {
                let of_whole = view.decide(whole.at(provider).unwrap(), whole.at(client).unwrap()).map_type;
                prop_assert!(of_whole == map_type || of_whole == MapType::Unknown, "{provider} {client} {map_type} {of_whole}");
            }
        }
    }
}
