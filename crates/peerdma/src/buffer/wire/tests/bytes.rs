//! Every message as bytes, made from the table and not by the writer.

use super::super::codes::Listed;
use super::*;
use crate::buffer::life::Disturbance;
use proptest::prelude::*;

/// A field's bytes, by its row alone.
fn field_bytes(shape: Shape) -> BoxedStrategy<Vec<u8>> {
    if shape.name == "text" {
        let max = shape.longest - shape.shortest;
        return proptest::collection::vec(proptest::char::range(' ', '~'), 0..=max)
            .prop_map(|text| {
                let mut out = (text.len() as u16).to_le_bytes().to_vec();
                out.extend(text.iter().map(|c| *c as u8));
                out
            })
            .boxed();
    }
    let Some(coded) = CODES.iter().find(|coded| coded.name == shape.name) else {
        return proptest::collection::vec(any::<u8>(), shape.longest).boxed();
    };
    let numbers: Vec<u8> = coded.codes.iter().map(|code| code.number as u8).collect();
    let flags = coded.name == "methods";
    // Only of a device do bytes follow.
    let tail = vec![0; shape.longest - 1];
    (proptest::sample::subsequence(numbers.clone(), 0..=numbers.len()), proptest::sample::select(numbers))
        .prop_map(move |(set, one)| {
            [&[if flags { set.iter().fold(0, |set, bit| set | bit) } else { one }], &tail[..]].concat()
        })
        .boxed()
}

/// A whole message of any kind, by the table alone.
fn message_bytes() -> impl Strategy<Value = (usize, Vec<Vec<u8>>)> {
    (0..KINDS.len()).prop_flat_map(|kind| {
        let fields: Vec<_> = KINDS[kind].fields.iter().map(|field| field_bytes(field.shape)).collect();
        (Just(kind), fields)
    })
}

fn with_header(kind: u16, fields: &[Vec<u8>]) -> Vec<u8> {
    let body: Vec<u8> = fields.concat();
    let mut out = kind.to_le_bytes().to_vec();
    out.extend([0, 0]);
    out.extend(((HEADER_LEN + body.len()) as u32).to_le_bytes());
    out.extend(body);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_the_table_describes_is_read_and_written_back_byte_for_byte((kind, fields) in message_bytes()) {
        let bytes = with_header(KINDS[kind].number, &fields);
        let message = Message::decode(&bytes).unwrap();
        prop_assert_eq!(message.word(), KINDS[kind].word);
        prop_assert_eq!(message.encode(), bytes.clone());
        for cut in 0..bytes.len() {
            prop_assert!(Message::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn bytes_have_one_meaning_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0_u16..30) {
        let mut bytes = bytes;
        let len = bytes.len() as u32;
        // Otherwise nearly everything ends at the header.
        if bytes.len() >= HEADER_LEN {
            bytes[..2].copy_from_slice(&kind.to_le_bytes());
            bytes[2..4].fill(0);
            bytes[4..8].copy_from_slice(&len.to_le_bytes());
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }
}

#[test]
fn no_message_can_be_longer_than_the_bound() {
    for kind in KINDS {
        let longest: usize = HEADER_LEN + kind.fields.iter().map(|field| field.shape.longest).sum::<usize>();
        assert!(longest <= MAX_LEN, "{}", kind.word);
    }
}

#[test]
fn kinds_have_numbers_and_words_of_their_own() {
    for (index, kind) in KINDS.iter().enumerate() {
        assert!(KINDS[..index].iter().all(|other| other.number < kind.number && other.word != kind.word));
    }
}

#[test]
fn a_kind_of_a_newer_version_is_refused_by_its_number() {
    let refused = Message::decode(&with_header(0x42, &[])).unwrap_err();
    assert_eq!(refused, Malformed::UnknownKind { kind: 0x42 });
    assert!(refused.to_string().starts_with("kind 0x0042 is no message of versions 1 to 1"), "{refused}");
}

#[test]
fn a_value_without_meaning_is_refused_with_its_field() {
    let bytes = with_header(20, &[vec![0; 8], vec![11], vec![0; 4]]);
    assert_eq!(
        Message::decode(&bytes).unwrap_err(),
        Malformed::Meaningless { kind: "let-go", field: "cause", found: 11 }
    );
    let bytes = with_header(23, &[vec![0, 1, 0, 0, 0], vec![0]]);
    assert_eq!(
        Message::decode(&bytes).unwrap_err(),
        Malformed::Meaningless { kind: "moved", field: "place", found: 1 },
        "ram has no regions"
    );
}

#[test]
fn text_that_could_command_a_terminal_is_refused_and_never_sent() {
    let escape = b"\x1b[2J".to_vec();
    let bytes = with_header(6, &[[4, 0].iter().copied().chain(escape).collect(), vec![0, 0]]);
    assert_eq!(Message::decode(&bytes).unwrap_err(), Malformed::Unprintable { kind: "refusal", field: "rule" });
    assert_eq!(Text::<16>::new("\u{1b}[2J").as_str(), "\u{fffd}[2J");
}

#[test]
fn every_value_has_the_word_that_the_rest_of_the_library_uses() {
    fn check<T: Listed + std::fmt::Display>(all: usize) {
        let listed = T::listed();
        assert_eq!(listed.len(), all);
        for (value, word) in listed {
            assert_eq!(value.to_string(), word);
        }
    }
    check::<Enforcement>(Enforcement::ALL.len());
    check::<Lifetime>(Lifetime::ALL.len());
    check::<Control>(Control::ALL.len());
    check::<Phase>(Phase::ALL.len());
    check::<Disturbance>(crate::buffer::life::DISTURBANCES.len());
    check::<Prot>(3);
    check::<Stays>(Stays::ALL.len());
    check::<Descriptors>(3);
    check::<Ending>(7);
}
