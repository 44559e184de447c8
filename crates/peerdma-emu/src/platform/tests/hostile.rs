use super::EVERY_KEY;
use crate::platform::Platform;
use proptest::prelude::*;
use std::fmt::Write;

#[test]
fn ten_thousand_functions_are_read() {
    let mut text = String::from("schema = 1\n");
    for segment in 0..10 {
        let base: u64 = 0x1_0000_0000 + (segment << 36);
        write!(
            text,
            "[[host_bridge]]\nname = \"hb{segment}\"\nsegment = {segment}\n\
             windows = [{{ cpu = {base}, bus = 0x8000_0000, size = \"1GiB\" }}]\n\
             [[port]]\nname = \"rp{segment}\"\nparent = \"hb{segment}\"\nkind = \"root\"\nbdf = \"00:01.0\"\n\
             [[port]]\nname = \"up{segment}\"\nparent = \"rp{segment}\"\nkind = \"upstream\"\nbdf = \"01:00.0\"\n"
        )
        .unwrap();
        for port in 0..32 {
            write!(
                text,
                "[[port]]\nname = \"dn{segment}-{port}\"\nparent = \"up{segment}\"\nkind = \"downstream\"\n\
                 bdf = \"02:{port:02x}.0\"\n"
            )
            .unwrap();
            for function in 0..32 {
                let bus = port + 3;
                write!(
                    text,
                    "[[function]]\nname = \"f{segment}-{port}-{function}\"\nparent = \"dn{segment}-{port}\"\n\
                     bdf = \"{bus:02x}:{:02x}.{}\"\nbars = [{{ n = 0, size = \"16KiB\" }}]\n",
                    function / 8,
                    function % 8
                )
                .unwrap();
            }
        }
    }
    let platform = Platform::parse(&text, "many").unwrap();
    assert_eq!(platform.functions().len(), 10 * 32 * 32);
    assert!(platform.topology().contradictions().is_empty());
}

#[test]
fn nesting_and_numbers_without_end_are_refused() {
    let deep = |open: &str, close: &str| format!("schema = 1\nram = {}{}", open.repeat(100_000), close.repeat(100_000));
    for text in [deep("[", "]"), deep("{ a = ", "}"), format!("schema = {}", "9".repeat(100_000)), "a.".repeat(100_000)]
    {
        assert!(Platform::parse(&text, "f").is_err());
    }
}

#[test]
fn ports_that_hang_below_each_other_are_refused() {
    for (first, second) in [("01:00.0", "02:00.0"), ("01:00.0", "01:00.0"), ("02:00.0", "01:00.0")] {
        let text = format!(
            "schema = 1\n[[port]]\nname = \"up\"\nparent = \"dn\"\nkind = \"upstream\"\nbdf = \"{first}\"\n\
             [[port]]\nname = \"dn\"\nparent = \"up\"\nkind = \"downstream\"\nbdf = \"{second}\"\n"
        );
        let error = Platform::parse(&text, "f").unwrap_err().to_string();
        assert!(error.contains("numbers grow downwards"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_damage_to_a_file_makes_the_reader_panic(
        cuts in prop::collection::vec((0usize..4000, 0usize..40, "[ -~\n]{0,12}"), 1..4),
    ) {
        let mut text = EVERY_KEY.to_string();
        for (at, len, with) in cuts {
            let at = at.min(text.len());
            let end = (at + len).min(text.len());
            text.replace_range(at..end, &with);
        }
        if let Err(error) = Platform::parse(&text, "damaged") {
            prop_assert!(error.line() >= 1 && error.line() <= text.lines().count().max(1));
        }
    }

    #[test]
    fn no_number_anywhere_makes_the_reader_panic(
        which in 0usize..64,
        number in prop_oneof![any::<i64>().prop_map(|n| n.to_string()), any::<u64>().prop_map(|n| n.to_string()),
            (0u32..64).prop_map(|bit| (1u64 << bit).to_string())],
    ) {
        let starts: Vec<usize> = EVERY_KEY
            .match_indices(" = ")
            .map(|(at, _)| at + 3)
            .filter(|&at| EVERY_KEY[at..].starts_with(|c: char| c.is_ascii_digit()))
            .collect();
        let start = starts[which % starts.len()];
        let len = EVERY_KEY[start..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap();
        let text = format!("{}{number}{}", &EVERY_KEY[..start], &EVERY_KEY[start + len..]);
        if let Ok(platform) = Platform::parse(&text, "f") {
            platform.topology();
        }
    }
}
