//! A procfs that the test wrote.

use super::Proc;
use crate::held::observe::observe_as;
use crate::held::{Held, MemLimit};
use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use peerdma::pin::{Ledger, OwnerId, OwnerLimits, Request, ScopeId, Via};

const KIB: u64 = 1 << 10;

#[test]
fn a_process_is_what_its_status_limits_and_rings_say() {
    let proc = Proc::new("one");
    proc.process(41, 1000, (12, 2060), "8388608");
    proc.ring(41, &["0x7ff166489000/12288", "<none>", "0x7ff166589000/5000"]);
    proc.process(42, 0, (0, 0), "unlimited");
    let held = Held::read(proc.path()).unwrap();
    let [first, second] = held.processes.as_slice() else { panic!("{held:?}") };
    assert_eq!((first.pid, first.uid, first.command.as_str()), (41, 1000, "worker 41"));
    assert_eq!((first.locked, first.pinned), (Bytes::new(12 * KIB), Bytes::new(2060 * KIB)));
    assert_eq!(first.limit, Some(MemLimit { soft: Some(Bytes::new(8 << 20)), hard: None }));
    assert_eq!(first.bypass, Some(false));
    let registered = first.registered.unwrap();
    assert_eq!((registered.rings, registered.buffers, registered.bytes), (1, 2, Bytes::new(17_288)));
    assert_eq!(second.limit.unwrap().to_string(), "unlimited");
    assert!(held.is_complete());
}

#[test]
fn the_capability_counts_in_the_initial_namespace_only() {
    let proc = Proc::new("caps");
    for pid in [1, 2, 3] {
        proc.process(pid, 0, (0, 4), "0");
        let status = format!("Name:\ta\nUid:\t0 0 0 0\nVmLck:\t0 kB\nVmPin:\t4 kB\nCapEff:\t{:016x}\n", 1 << 14);
        proc.file(&format!("{pid}/status"), &status);
    }
    proc.file("1/uid_map", "         0          0 4294967295\n");
    proc.file("2/uid_map", "         0       1000          1\n");
    let held = Held::read(proc.path()).unwrap();
    let bypass: Vec<_> = held.processes.iter().map(|process| process.bypass).collect();
    assert_eq!(bypass, [Some(true), Some(false), Some(true)]);
    // Only who is held to a limit counts against it.
    assert_eq!(held.user(0).charged, Bytes::new(4 * KIB));
    assert_eq!(held.user(0).pinned, Bytes::new(12 * KIB));
}

#[test]
fn what_has_no_memory_is_left_out_and_what_is_damaged_is_counted_as_unread() {
    let proc = Proc::new("damaged");
    proc.process(1, 0, (0, 0), "0");
    proc.file("2/status", "Name:\tkthreadd\nUid:\t0\t0\t0\t0\nState:\tS\n");
    proc.file("3/status", "");
    proc.file("4/status", "Name:\tcut\nUid:\t0\t0\t0\t0\nVmLck:\t");
    proc.file("5/status", "Name:\twide\nUid:\t0\t0\t0\t0\nVmLck:\t99999999999999999999 kB\nVmPin:\t0 kB\n");
    proc.file(
        "6/status",
        "Name:\tmost\nUid:\t0\t0\t0\t0\nVmLck:\t18014398509481983 kB\nVmPin:\t18014398509481983 kB\n",
    );
    proc.file("7/comm", "no status: it ended while it was read");
    proc.file("sys/kernel", "no process");
    std::fs::create_dir_all(proc.path().join("8/status")).unwrap();
    let held = Held::read(proc.path()).unwrap();
    assert_eq!(held.processes.iter().map(|process| process.pid).collect::<Vec<_>>(), [1, 6]);
    assert_eq!(held.unread, [3, 4, 5, 8]);
    assert!(!held.is_complete());
    assert_eq!(held.users().len(), 1);
    assert_eq!(held.user(0).processes, 2);
    let unknown = held.processes.iter().find(|process| process.pid == 6).unwrap();
    assert_eq!((unknown.limit, unknown.bypass, unknown.registered), (None, None, None));
}

#[test]
fn hidden_processes_are_said_to_be() {
    let proc = Proc::new("hidden");
    for (options, hidden) in [
        ("rw,nosuid", false),
        ("rw,hidepid=invisible", true),
        ("rw,hidepid=2", true),
        ("rw,hidepid=0", false),
        ("rw,hidepid=noaccess", false),
        ("rw,hidepid=ptraceable", true),
    ] {
        let mounts =
            format!("sysfs /sys sysfs rw 0 0\nproc /proc proc {options} 0 0\nproc /jail/proc proc hidepid=2 0 0\n");
        proc.file("self/mounts", &mounts);
        assert_eq!(Held::read(proc.path()).unwrap().hidden, hidden, "{options}");
    }
}

/// In a container the same user's processes outside count against his limit, and nobody sees them.
#[test]
fn processes_outside_of_a_namespace_are_hidden() {
    let proc = Proc::new("namespace");
    proc.process(1, 0, (0, 0), "0");
    std::fs::create_dir_all(proc.path().join("self/ns")).unwrap();
    for (namespace, hidden) in [("pid:[4026531836]", false), ("pid:[4026532456]", true)] {
        let link = proc.path().join("self/ns/pid");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(namespace, &link).unwrap();
        assert_eq!(Held::read(proc.path()).unwrap().is_complete(), !hidden, "{namespace}");
    }
}

/// What stands behind a long list of groups was cut off, and the process passed for one without memory.
#[test]
fn a_process_in_thousands_of_groups_is_read_to_its_end_and_what_is_longer_is_damaged() {
    let proc = Proc::new("groups");
    proc.process(1, 1000, (4, 40), "65536");
    let status = std::fs::read_to_string(proc.path().join("1/status")).unwrap();
    let grouped =
        |count: usize| status.replacen("VmLck:", &format!("Groups:\t{}\nVmLck:", "4294967294 ".repeat(count)), 1);
    proc.file("1/status", &grouped(65536));
    let held = Held::read(proc.path()).unwrap();
    assert_eq!((held.processes[0].locked, held.processes[0].pinned), (Bytes::new(4 * KIB), Bytes::new(40 * KIB)));
    proc.file("1/status", &grouped(1 << 20));
    let held = Held::read(proc.path()).unwrap();
    assert_eq!((held.processes.len(), held.unread.as_slice()), (0, &[1][..]));
}

#[test]
fn users_are_summed_and_their_lowest_limit_is_found() {
    let proc = Proc::new("users");
    proc.process(1, 1000, (4, 40), "unlimited");
    proc.process(2, 1000, (8, 80), "65536");
    proc.process(3, 7, (0, 0), "0");
    let held = Held::read(proc.path()).unwrap();
    let [seven, thousand] = held.users()[..] else { panic!("{held:?}") };
    assert_eq!((seven.uid, seven.processes, seven.limit.unwrap().soft), (7, 1, Some(Bytes::ZERO)));
    assert_eq!((thousand.locked, thousand.pinned), (Bytes::new(12 * KIB), Bytes::new(120 * KIB)));
    assert_eq!(thousand.limit.unwrap().soft, Some(Bytes::new(65536)));
    assert_eq!(thousand.limit.unwrap().share(thousand.charged), Some(1.875));
    assert_eq!(seven.limit.unwrap().share(Bytes::new(1)), None);
}

#[test]
fn a_ledger_s_refusal_names_the_user_s_other_holders() {
    let proc = Proc::new("refusal");
    let mib = |n: u64| n * KIB;
    proc.process(10, 1000, (mib(1), mib(4)), "67108864");
    proc.process(11, 1000, (0, mib(40)), "67108864");
    proc.process(12, 1000, (0, mib(8)), "67108864");
    proc.process(13, 1001, (0, mib(64)), "67108864");
    let held = Held::read(proc.path()).unwrap();
    let (owner, via) = (OwnerId::new(0), Via::Iommufd { file: ScopeId::new(0) });
    let range = |len: u64| AddrRange::new(ProcVa::new(0), Bytes::new(len << 20)).unwrap();
    let mut ledger = Ledger::new(Granule::PAGE_4K);
    ledger.limit(Some(Bytes::new(64 << 20)));
    ledger.describe_owner(owner, "nic", OwnerLimits::NONE);
    // Of process 10's own 4 MiB the books have 1.
    let request = Request::new(via, range(1));
    ledger.charge(owner, request).unwrap();
    observe_as(&mut ledger, &held, 10, 1000);
    let refused = ledger.charge(owner, Request::new(via, range(16))).unwrap_err().to_string();
    assert!(
        refused.contains(
            "this user has about 52 MiB of RLIMIT_MEMLOCK 64 MiB in user->locked_vm, 1 MiB of it here and about 51 MiB \
             in other processes: 40 MiB by process 11 (worker 11), 8 MiB by process 12 (worker 12), 3 MiB by process 10"
        ),
        "{refused}"
    );
    // The process's own counters are the kernel's own numbers.
    let refused = ledger.charge(owner, Request::new(Via::Mlock, range(64))).unwrap_err().to_string();
    assert!(refused.contains("this process has 1 MiB of RLIMIT_MEMLOCK 64 MiB in mm->locked_vm"), "{refused}");
    // Somebody who may not be read may hold any amount.
    proc.file("14/status", "");
    observe_as(&mut ledger, &Held::read(proc.path()).unwrap(), 10, 1000);
    let refused = ledger.charge(owner, Request::new(via, range(16))).unwrap_err().to_string();
    assert!(refused.contains("this user has at least 52 MiB"), "{refused}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(status in "\\PC{0,200}", limits in "\\PC{0,200}", info in "\\PC{0,200}") {
        let _ = crate::held::status::Status::parse(&format!("Name:\ta\nUid:\t0\nVmLck:{status}\nVmPin:{status}"));
        let _ = crate::held::status::Status::parse(&status);
        let _ = MemLimit::parse(&format!("Max locked memory{limits}"));
        let proc = Proc::new("any");
        proc.process(9, 0, (0, 0), "0");
        proc.ring(9, &["0x0/18446744073709551615", "0x0/18446744073709551615", &info]);
        let held = Held::read(proc.path()).unwrap();
        proptest::prop_assert_eq!(held.processes.len(), 1);
    }
}
