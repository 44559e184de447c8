//! One lifetime for everything that was made of a mapping.

use super::{Exported, PAGE, Told, arena, depot, domain, nic};
use peerdma::access::{Access, Prot};
use peerdma::addr::{Bytes, Iova};
use peerdma::buffer::life::{Disturbance, Phase};
use peerdma::buffer::shared::Part;
use peerdma::dma::spaces::{InitiatorId, Tlb};
use peerdma::dma::{Context, DeviceAddress};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Looks at the buffer when it is taken down.
struct Entry<'a> {
    exported: &'a Exported,
    seen: Rc<RefCell<Vec<Phase>>>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.seen.borrow_mut().push(self.exported.buffer.phase());
    }
}

#[test]
fn a_buffer_is_quiet_after_all_that_was_made_of_a_mapping_is_gone() {
    let (exported, arena) = (Exported::new(), arena());
    let domain = domain(&arena);
    let depot = depot(&domain);
    let context = Context::new(nic(), domain.attach(), &exported.owners, &exported.peers, &depot).unwrap();
    let seat = exported.attach(Prot::ReadWrite, Arc::new(Told));
    let mapped = seat.map().unwrap();
    let mapping = mapped.by_dma(&context, Part::new(Bytes::ZERO, Bytes::new(PAGE))).unwrap();
    let DeviceAddress::Iova(at) = mapping.spans().next().unwrap().address else { panic!("it is translated") };
    let seen = Rc::new(RefCell::new(Vec::new()));
    let in_use = mapped.with(mapping).and(Entry { exported: &exported, seen: seen.clone() });

    let disturbing = exported.buffer.begin(Disturbance::Reset).unwrap();
    let translates = |at: Iova| domain.translate(&mut Tlb::new(InitiatorId::new(1)), at, Access::Write).is_ok();
    assert!(translates(at) && !disturbing.is_quiet());
    drop(in_use);
    assert!(!translates(at) && disturbing.is_quiet());
    assert_eq!(*seen.borrow(), [Phase::Draining], "gone before the buffer was quiet");
}
