//! A mirror beside a value for each page.
//!
//! Each page of the process has contents with a number of their own, which changes whenever they become others. A device
//! that is let in must find the contents that the process has, and those alone.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SPACE: u64 = 16;

#[derive(Clone, Debug)]
enum Step {
    Register {
        first: u64,
        count: u64,
        pinned: bool,
        prot: Prot,
    },
    Unregister(usize),
    Fault {
        page: u64,
        write: bool,
    },
    /// Finishes one of the tickets.
    Finish(usize, Has),
    Begin(What, u64, u64, u64),
    End(usize),
}

#[derive(Clone, Copy, Debug)]
enum Has {
    What,
    Nothing,
    Broken,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Discard,
    Unmap,
    Remap,
    Protect(Option<Prot>),
    Fork,
}

fn prot() -> impl Strategy<Value = Prot> {
    prop::sample::select(vec![Prot::Read, Prot::Write, Prot::ReadWrite, Prot::ReadWrite])
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        Just(What::Discard),
        Just(What::Unmap),
        Just(What::Remap),
        prop::option::of(prot()).prop_map(What::Protect),
        Just(What::Fork),
    ];
    let has = prop_oneof![8 => Just(Has::What), 1 => Just(Has::Nothing), 1 => Just(Has::Broken)];
    prop_oneof![
        3 => (0..SPACE, 1..6_u64, any::<bool>(), prot())
            .prop_map(|(first, count, pinned, prot)| Step::Register { first, count, pinned, prot }),
        1 => (0..4_usize).prop_map(Step::Unregister),
        6 => (0..SPACE, any::<bool>()).prop_map(|(page, write)| Step::Fault { page, write }),
        6 => (0..8_usize, has).prop_map(|(nth, has)| Step::Finish(nth, has)),
        4 => (what, 0..SPACE, 1..5_u64, 0..SPACE).prop_map(|(what, first, count, to)| Step::Begin(what, first, count, to)),
        4 => (0..4_usize).prop_map(Step::End),
    ]
}

/// What is true of one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Page {
    id: RangeId,
    prot: Option<Prot>,
    pinned: bool,
}

/// The slow way: every page for itself.
#[derive(Default)]
struct Oracle {
    pages: BTreeMap<u64, Page>,
    /// What the process has there.
    contents: BTreeMap<u64, u64>,
    next: u64,
    /// What the device's table leads to, and what it permits.
    table: BTreeMap<u64, (u64, Prot)>,
    /// Pages in the hands of invalidations, by the number of the invalidation.
    busy: Vec<(u64, Vec<u64>)>,
}

impl Oracle {
    fn renew(&mut self, page: u64) {
        self.next += 1;
        self.contents.insert(page, self.next);
    }

    fn is_busy(&self, page: u64) -> bool {
        self.busy.iter().any(|(_, pages)| pages.contains(&page))
    }

    fn content(&self, page: u64) -> u64 {
        self.contents.get(&page).copied().unwrap_or(0)
    }

    /// What becomes of the pages; whose tables have to be left meanwhile.
    fn happen(&mut self, event: &Event) -> Vec<u64> {
        let numbers = |at: AddrRange<ProcVa>| at.start().as_u64() / PAGE..=at.last().as_u64() / PAGE;
        let mut busy = Vec::new();
        match *event {
            Event::Discard(at) => {
                for page in numbers(at) {
                    self.renew(page);
                    if let Some(found) = self.pages.get(&page).copied() {
                        busy.push(page);
                        if found.pinned {
                            self.pages.remove(&page);
                        }
                    }
                }
            }
            Event::Unmap(at) => {
                for page in numbers(at) {
                    self.renew(page);
                    busy.extend(self.pages.remove(&page).map(|_| page));
                }
            }
            Event::Remap { from, to, len } => {
                let count = from.len().as_u64() / PAGE;
                let (from, to, len) = (from.start().as_u64() / PAGE, to.as_u64() / PAGE, len.as_u64() / PAGE);
                let taken: Vec<_> = (from..from + count).map(|page| (page, self.pages.remove(&page))).collect();
                busy.extend(taken.iter().filter(|(_, page)| page.is_some()).map(|(number, _)| *number));
                for page in (from..from + count).chain(to..to + len) {
                    self.renew(page);
                }
                busy.extend((to..to + len).filter(|page| self.pages.remove(page).is_some()));
                if taken.iter().any(|(_, page)| page.is_some()) {
                    busy.extend(to..to + len);
                }
                for (number, page) in &taken {
                    let Some(page) = page.filter(|page| !page.pinned) else { continue };
                    let last = *number == from + count - 1;
                    let end = if last { len.max(count) } else { number - from + 1 };
                    for offset in (number - from..end).filter(|offset| *offset < len) {
                        self.pages.insert(to + offset, page);
                    }
                }
            }
            Event::Protect { at, prot } => {
                for page in numbers(at) {
                    if let Some(found) = self.pages.get_mut(&page) {
                        found.prot = prot;
                        busy.push(page);
                    }
                }
            }
            Event::Fork => {
                let writable = |page: &u64| self.table.get(page).is_some_and(|(_, prot)| prot.writes());
                busy.extend(self.pages.iter().filter(|(_, page)| !page.pinned).map(|(page, _)| *page).filter(writable));
            }
        }
        busy
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// The table never leads to contents that the process does not have, everybody who asks is answered, and what the
    /// mirror refuses is what the slow way refuses.
    #[test]
    fn the_table_leads_to_what_the_process_has(steps in prop::collection::vec(step(), 1..70)) {
        let (mut mirror, mut oracle) = (mirror(), Oracle::default());
        // Tickets with the contents that were touched; invalidations; ranges; requests that wait.
        let (mut tickets, mut invalidations, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
        let (mut parked, mut token, mut began) = (BTreeMap::new(), 0, 0);
        for step in steps {
            match step {
                Step::Register { first, count, pinned, prot } => {
                    let keeping = if pinned { Keeping::Pinned } else { Keeping::Faulting };
                    let numbers = first..first + count;
                    let free = numbers.clone().all(|page| !oracle.pages.contains_key(&page) && !oracle.is_busy(page));
                    let registered = mirror.register(pages(first, count), prot, keeping);
                    prop_assert_eq!(registered.is_ok(), free);
                    let Ok(registered) = registered else { continue };
                    ranges.push(registered.id);
                    for page in numbers {
                        oracle.pages.insert(page, Page { id: registered.id, prot: Some(prot), pinned });
                        if pinned {
                            oracle.table.insert(page, (oracle.content(page), prot));
                        }
                    }
                }
                Step::Unregister(nth) if nth < ranges.len() => {
                    let id = ranges.swap_remove(nth);
                    let own: Vec<u64> = oracle.pages.iter().filter(|(_, page)| page.id == id).map(|(page, _)| *page).collect();
                    let Ok(begun) = mirror.unregister(id) else {
                        prop_assert!(own.is_empty());
                        continue;
                    };
                    oracle.pages.retain(|_, page| page.id != id);
                    check_taken(&mut oracle, &begun, &own)?;
                    oracle.busy.push((began, own));
                    invalidations.push((began, begun));
                    began += 1;
                }
                Step::Fault { page, write } => {
                    token += 1;
                    let access = if write { Access::Write } else { Access::Read };
                    fault(&mut mirror, &oracle, (page, access), Token(token), &mut tickets, &mut parked)?;
                }
                Step::Finish(nth, has) if nth < tickets.len() => {
                    let (ticket, touched): (Ticket, u64) = tickets.swap_remove(nth);
                    let page = ticket.page().start().as_u64() / PAGE;
                    let access = ticket.access();
                    // A page has what the process may do with it, which is more than a device may mostly.
                    let brought = match has {
                        Has::What => Brought::Page(Prot::ReadWrite),
                        Has::Nothing => Brought::Denied,
                        Has::Broken => Brought::Failed,
                    };
                    match mirror.finish(ticket, brought) {
                        Finished::Map { page: range, prot } => {
                            prop_assert_eq!(range, pages(page, 1));
                            prop_assert_eq!(touched, oracle.content(page), "installed what is not there any more");
                            prop_assert!(!oracle.is_busy(page) && access.is_permitted_by(prot));
                            prop_assert_eq!(oracle.pages[&page].prot, Some(prot));
                            oracle.table.insert(page, (touched, prot));
                        }
                        Finished::Again(wanted) => {
                            token += 1;
                            fault(&mut mirror, &oracle, (page, wanted.access), Token(token), &mut tickets, &mut parked)?;
                        }
                        Finished::Answer(Answer::Success) => {
                            prop_assert!(oracle.table.get(&page).is_some_and(|(_, prot)| access.is_permitted_by(*prot)));
                        }
                        Finished::Answer(_) => prop_assert!(!matches!(has, Has::What)),
                    }
                }
                Step::Begin(what, first, count, to) => {
                    let at = pages(first, count);
                    let event = match what {
                        What::Discard => Event::Discard(at),
                        What::Unmap => Event::Unmap(at),
                        // The kernel moves nothing onto itself.
                        What::Remap if to + 5 <= first || first + count <= to => {
                            Event::Remap { from: at, to: ProcVa::new(to * PAGE), len: Bytes::new((count + to % 2) * PAGE) }
                        }
                        What::Remap => continue,
                        What::Protect(prot) => Event::Protect { at, prot },
                        What::Fork => Event::Fork,
                    };
                    let begun = mirror.begin(&event);
                    let busy = oracle.happen(&event);
                    check_taken(&mut oracle, &begun, &busy)?;
                    oracle.busy.push((began, busy));
                    invalidations.push((began, begun));
                    began += 1;
                }
                Step::End(nth) if nth < invalidations.len() => {
                    let (number, begun) = invalidations.swap_remove(nth);
                    end(&mut mirror, &mut oracle, (number, begun), &mut parked)?;
                }
                _ => {}
            }
            check(&mirror, &oracle)?;
        }
        for invalidation in invalidations {
            end(&mut mirror, &mut oracle, invalidation, &mut parked)?;
        }
        prop_assert!(parked.is_empty(), "{parked:?} wait for good");
        check(&mirror, &oracle)?;
    }
}

type Outcome = Result<(), TestCaseError>;

fn fault(
    mirror: &mut MirrorState,
    oracle: &Oracle,
    (page, access): (u64, Access),
    token: Token,
    tickets: &mut Vec<(Ticket, u64)>,
    parked: &mut BTreeMap<Token, u64>,
) -> Outcome {
    let permitted = oracle.pages.get(&page).and_then(|page| page.prot).is_some_and(|prot| access.is_permitted_by(prot));
    let there = oracle.table.get(&page).is_some_and(|(_, prot)| access.is_permitted_by(*prot));
    match mirror.fault(wanted(page, access), token) {
        Fault::Parked => {
            prop_assert!(oracle.is_busy(page));
            parked.insert(token, page);
        }
        Fault::Bring(ticket) => {
            prop_assert!(permitted && !there && !oracle.is_busy(page));
            tickets.push((ticket, oracle.content(page)));
        }
        Fault::Answer(Answer::Success) => prop_assert!(there && permitted),
        Fault::Answer(_) => prop_assert!(!permitted && !oracle.is_busy(page)),
    }
    Ok(())
}

/// Takes from the oracle's table what the mirror says, which is to be all of what must go.
fn check_taken(oracle: &mut Oracle, begun: &Invalidation, busy: &[u64]) -> Outcome {
    for at in &begun.taken {
        for page in at.start().as_u64() / PAGE..=at.last().as_u64() / PAGE {
            prop_assert!(busy.contains(&page), "page {page} was taken for nothing");
            prop_assert!(oracle.table.remove(&page).is_some(), "page {page} was not there");
        }
    }
    for page in busy {
        prop_assert!(!oracle.table.contains_key(page), "page {page} is still there");
    }
    Ok(())
}

fn end(
    mirror: &mut MirrorState,
    oracle: &mut Oracle,
    (number, begun): (u64, Invalidation),
    parked: &mut BTreeMap<Token, u64>,
) -> Outcome {
    oracle.busy.retain(|(other, _)| *other != number);
    let ended = mirror.end(begun);
    for (at, prot) in ended.map {
        for page in at.start().as_u64() / PAGE..=at.last().as_u64() / PAGE {
            prop_assert!(oracle.pages[&page].pinned && oracle.pages[&page].prot == Some(prot));
            oracle.table.insert(page, (oracle.content(page), prot));
        }
    }
    for given in ended.parked {
        let page = parked.remove(&given.token);
        prop_assert!(page.is_some_and(|page| !oracle.is_busy(page)), "{given:?} was given back twice, or too early");
    }
    Ok(())
}

fn check(mirror: &MirrorState, oracle: &Oracle) -> Outcome {
    let mut present = BTreeMap::new();
    for (at, prot) in mirror.present() {
        for page in at.start().as_u64() / PAGE..=at.last().as_u64() / PAGE {
            present.insert(page, prot);
        }
    }
    let table: BTreeMap<u64, Prot> = oracle.table.iter().map(|(page, (_, prot))| (*page, *prot)).collect();
    prop_assert_eq!(present, table);
    for (page, (content, _)) in &oracle.table {
        prop_assert_eq!(*content, oracle.content(*page), "page {} leads to what was there before", page);
        prop_assert!(!oracle.is_busy(*page));
    }
    Ok(())
}
