//! What limit is needed for what is going to be pinned.

use super::*;
use crate::pin::{Backend, Counter, Plan, PlanError, ProcessId, required_memlock};

const VMM: ProcessId = ProcessId::new(0);
const TARGET: ProcessId = ProcessId::new(1);

fn plan(pins: &[(ProcessId, Via, u64)]) -> Plan {
    let mut plan = Plan::new(Granule::PAGE_4K);
    for (process, via, len) in pins {
        plan.pin(*process, Request::new(*via, bytes(0, *len)));
    }
    plan
}

#[test]
fn counters_that_share_a_limit_are_added_and_others_are_not() {
    let (type1, file) = (Via::Type1 { container: scope(0) }, Via::Iommufd { file: scope(0) });
    let need =
        required_memlock(&plan(&[(VMM, Via::Mlock, 3 * MIB), (VMM, type1, 4 * MIB), (VMM, file, 5 * MIB)])).unwrap();
    assert_eq!(need.limit, Bytes::new(7 * MIB));
    let backends = [(Backend::Mlock, 3), (Backend::Type1, 4), (Backend::Iommufd, 5)];
    assert_eq!(need.backends, backends.map(|(backend, mib)| (backend, Bytes::new(mib * MIB))));
    let pinned = need.counters.iter().find(|it| it.counter == Counter::MmPinned).unwrap();
    assert!(!pinned.limited && pinned.need == Bytes::new(5 * MIB), "nothing here holds it against the limit");
}

#[test]
fn processes_of_a_user_share_one_counter_and_have_their_own_of_the_others() {
    let file = Via::Iommufd { file: scope(0) };
    let both = |via| required_memlock(&plan(&[(VMM, via, MIB), (TARGET, via, MIB)])).unwrap().limit;
    assert_eq!(both(file), Bytes::new(2 * MIB));
    assert_eq!(both(Via::Rdma), Bytes::new(MIB));
    assert_eq!(both(Via::Mlock), Bytes::new(MIB));
}

#[test]
fn rings_are_added_once_each_also_those_that_nobody_planned() {
    let on = |number| Via::IoUring { ring: RingHandle::planned(number) };
    let mut plan = plan(&[(VMM, on(0), PAGE), (VMM, on(0), PAGE), (VMM, on(1), PAGE)]);
    assert_eq!(required_memlock(&plan).unwrap().limit, Bytes::new((3 + 2 + 2) * PAGE));
    plan.ring(VMM, RingHandle::planned(1), RingShape::new(4096));
    assert_eq!(required_memlock(&plan).unwrap().limit, Bytes::new((3 + 2 + 101) * PAGE));
    plan.ring(TARGET, RingHandle::planned(0), RingShape::new(70_000));
    let refused = required_memlock(&plan).unwrap_err().to_string();
    assert!(refused.contains("process 1") && refused.contains("70000"), "{refused}");
}

#[test]
fn rdma_needs_room_for_what_others_add_to_its_counter() {
    let need =
        required_memlock(&plan(&[(VMM, Via::Rdma, MIB), (VMM, Via::Iommufd { file: scope(0) }, 4 * MIB)])).unwrap();
    assert_eq!(need.limit, Bytes::new(5 * MIB));
}

#[test]
fn a_counter_that_is_only_raised_needs_no_limit() {
    let (user, process) = (Via::Iommufd { file: scope(0) }, Via::IommufdProcess { file: scope(1) });
    let need = required_memlock(&plan(&[(VMM, user, 5 * MIB), (VMM, process, 4 * MIB)])).unwrap();
    let pinned = need.counters.iter().find(|it| it.counter == Counter::MmPinned).unwrap();
    assert_eq!((pinned.need, pinned.limited), (Bytes::new(9 * MIB), false));
    assert_eq!(need.limit, Bytes::new(5 * MIB));
}

#[test]
fn a_plan_of_nothing_needs_nothing_and_one_past_64_bits_says_where() {
    assert_eq!(required_memlock(&plan(&[])).unwrap().limit, Bytes::ZERO);
    assert_eq!(required_memlock(&plan(&[(VMM, Via::DmaHeap, MIB)])).unwrap().limit, Bytes::ZERO);
    let half = (VMM, Via::Rdma, 1 << 63);
    assert_eq!(required_memlock(&plan(&[half, half])), Err(PlanError::Overflow { index: 1 }));
    let (one, other) = (Via::Iommufd { file: scope(0) }, (TARGET, Via::Iommufd { file: scope(0) }, 1 << 63));
    assert!(matches!(required_memlock(&plan(&[(VMM, one, 1 << 63), other])), Err(PlanError::Overflow { .. })));
}
