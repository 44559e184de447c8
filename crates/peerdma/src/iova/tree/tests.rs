//! What a tree costs, and that it is a picture of its pages and of nothing that was before.

use super::{Is, LEAF_ORDER, State, Tree};

/// A space of 48 bits in pages, free but for the first.
fn wide() -> Tree {
    let mut tree = Tree::new((1 << 36) - 1);
    tree.put(1, (1 << 36) - 1, State::Free);
    tree
}

#[test]
fn a_fresh_space_of_48_bits_is_a_handful_of_nodes() {
    assert_eq!(wide().nodes(), (4, 1));
}

#[test]
fn a_gibibyte_in_pages_costs_64_leaves_and_in_one_range_none() {
    let mut tree = wide();
    for _ in 0..1 << 18 {
        tree.take(1, 0, u64::MAX).unwrap();
    }
    assert_eq!(tree.nodes(), (7, 65));
    let mut tree = wide();
    let first = tree.take(1 << 30, 30, u64::MAX).unwrap();
    assert_eq!(tree.nodes(), (4, 1));
    assert!(tree.release(first, first + (1 << 30) - 1));
}

#[test]
fn pages_that_come_and_go_all_over_the_space_leave_no_nodes_behind() {
    let mut tree = wide();
    for nth in 1..200 {
        let page = nth * 0x1234_5678 % (1 << 36);
        tree.put(page, page + 8, State::Head);
        assert!(tree.release(page, page + 8));
    }
    let (inners, leaves) = tree.nodes();
    assert!(inners <= 8 && leaves <= 2, "{inners} inner nodes and {leaves} leaves for nothing");
    assert_eq!(tree.next(1, Is::NotFree), None);
}

#[test]
fn a_node_that_is_used_again_remembers_nothing() {
    let mut tree = wide();
    let leaf = 5 << LEAF_ORDER;
    tree.put(leaf + 1, leaf + 70, State::Head);
    tree.put(leaf + 100, leaf + 100, State::Barred);
    tree.put(leaf, leaf + 4095, State::Free);
    tree.put(9 << LEAF_ORDER, 9 << LEAF_ORDER, State::Head);
    assert_eq!(tree.next(1, Is::NotFree), Some(9 << LEAF_ORDER));
    assert_eq!(tree.next((9 << LEAF_ORDER) + 1, Is::NotFree), None);
    assert_eq!(tree.previous((9 << LEAF_ORDER) - 1, Is::NotFree), Some(0));
}

#[test]
fn a_range_that_ends_with_its_leaf_is_told_from_one_that_goes_on() {
    let mut tree = wide();
    let first = (2 << LEAF_ORDER) - 4;
    tree.put(first, first + 3, State::Head);
    tree.put(first + 4, first + 4, State::Head);
    assert!(tree.release(first, first + 3));
    tree.put(first, first + 3, State::Head);
    assert!(tree.release(first + 4, first + 4));
    assert!(tree.release(first, first + 3));
    tree.put(first, first + 4, State::Head);
    assert!(!tree.release(first, first + 3));
    assert!(tree.release(first, first + 4));
}

#[test]
fn the_highest_block_up_to_each_page_is_found() {
    let mut tree = Tree::new((1 << 19) - 1);
    tree.put(0, (1 << 19) - 1, State::Free);
    // Holes of all sizes: pages in use at distances that grow.
    let mut page = 0;
    for step in 1..700 {
        tree.put(page, page, State::Head);
        page += step;
    }
    for order in 0..=12 {
        let size = 1 << order;
        for limit in (0..page + 9000).step_by(97) {
            let blocks = (0..=(limit + 1) / size).rev().map(|nth| nth * size);
            let expected = blocks
                .filter(|&first| first + size - 1 <= limit)
                .find(|&first| tree.next(first, Is::NotFree).is_none_or(|taken| taken >= first + size));
            let found = tree.clone().take(1, order, limit);
            assert_eq!(found, expected, "order {order} up to {limit}");
        }
    }
}

#[test]
fn a_range_is_not_freed_together_with_the_next_in_whichever_word_that_begins() {
    for (len, next) in [(100, 10), (100, 40), (128, 1), (70, 200), (60, 4), (10, 10), (64, 64)] {
        let mut tree = wide();
        let first = 3 << LEAF_ORDER;
        tree.put(first, first + len - 1, State::Head);
        tree.put(first + len, first + len + next - 1, State::Head);
        for last in [first + len - 2, first + len, first + len + next - 1] {
            assert!(!tree.release(first, last), "{len} pages and {next}: {last:#x}");
        }
        assert!(tree.release(first, first + len - 1));
        assert!(tree.release(first + len, first + len + next - 1));
    }
}

#[test]
fn pages_are_found_in_a_range_that_fills_a_leaf() {
    let mut tree = wide();
    let (first, last) = (3 << LEAF_ORDER, (4 << LEAF_ORDER) - 1);
    tree.put(first, last, State::Head);
    for (from, is, expected) in [
        (first + 1, Is::Taken, Some(first + 1)),
        (first - 1, Is::Taken, Some(first)),
        (first - 1, Is::Head, Some(first)),
        (first + 1, Is::Head, None),
        (first, Is::Free, Some(last + 1)),
    ] {
        assert_eq!(tree.next(from, is), expected, "{is:?} from {from:#x} up");
    }
    for (from, is, expected) in [
        (last, Is::Taken, Some(last)),
        (last + 1, Is::Taken, Some(last)),
        (last, Is::Head, Some(first)),
        (first - 1, Is::Head, None),
        (last, Is::Free, Some(first - 1)),
    ] {
        assert_eq!(tree.previous(from, is), expected, "{is:?} from {from:#x} down");
    }
}
