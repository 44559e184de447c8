//! Which ends of a boot say nothing about its job, so that it is tried anew.
//!
//! QEMU 10.0 aborts, or dies of a signal of its own, now and then in its emulation of translated memory (`iotlb_to_section`), and one
//! guest in some hundreds hangs in it: a kernel on the way to its first process, a driver that is asked to let
//! go of a function, or all of the guest beside its job. Under load it loses interrupts, which the guest's kernel says
//! while its job waits for what they would have told. It also leaves the interrupt of a processor's timer in service for good (seen in
//! its local APIC: ISR and IRR hold that vector, the processor is halted and lets interrupts in), once in some fifty boots that do much to
//! BARs: `vm/init` counts ticks and gives the job up. A job that hangs in a guest that is well is an error at once.

use super::folder::RunFolder;
use super::outcome::GIVEN_UP;
use super::{BEGUN, End};
use crate::vm::process::{tail, tail_of, text_of};

/// What kernels log of an interrupt that did not come (`nvme_timeout`, `rcu_check_gp_kthread_expired_fqs_timer`) and of
/// a processor that did not go on (`print_other_cpu_stall`, `print_cpu_stall`, `synchronize_rcu_expedited_stall`,
/// `watchdog_timer_fn`), and what `vm/init` logs of a guest that got no time and of a processor without a timer.
const UNWELL: [&str; 8] = [
    NO_TIMER,
    "init: the guest stood still for",
    "detected expedited stalls on",
    "completion polled",
    "timer wakeup didn't happen",
    "detected stalls on",
    "self-detected stall on",
    "watchdog: BUG: soft lockup",
];

/// What `vm/init` logs before it gives a job up whose processors do not all have a timer any more.
pub(super) const NO_TIMER: &str = "init: no interrupt of its timer";

/// How much is told of a job that hangs and is tried anew.
const EVIDENCE: usize = 40;

/// What `vm/init` says on the console before it asks why a job hangs.
pub(super) const GIVING_UP: &str = "init: the job is given up";

/// Why a boot that ended so is to be tried anew; none where its end says something.
pub(super) fn reason(end: &End, folder: &RunFolder) -> Option<String> {
    let read = |name: &str| text_of(&folder.path(name));
    match end {
        End::Aborted => Some(format!("QEMU aborted: {}", tail_of(&folder.path("qemu"), 2))),
        End::NeverBegan => Some("the guest did not come to its job".into()),
        End::Silent => {
            let console = read("console");
            // A guest that could still say so, and not why, has a job that hangs.
            let well = console.contains(GIVING_UP) && unwell(&console).is_none();
            (!well).then(|| format!("all of the guest hangs: {}", tail(&console, 2)))
        }
        End::Exited => {
            let (status, console, log) = (read("status"), read("console"), read("log"));
            if status.is_empty() && !console.is_empty() && !console.contains(BEGUN) {
                return Some(format!("the guest ended on the way to its job: {}", tail(&console, 2)));
            }
            if status.trim() != GIVEN_UP {
                return None;
            }
            let why = unwell(&log)?;
            Some(format!("its job hangs in a guest that is not well: {why}\n{}", tail(&log, EVIDENCE)))
        }
        End::Killed(_) => None,
    }
}

/// The first line of a kernel's log that says that the machine under it does not do its part.
pub(in crate::vm) fn unwell(log: &str) -> Option<&str> {
    log.lines().find(|line| UNWELL.iter().any(|words| line.contains(words)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_boot_is_tried_anew_where_its_end_says_nothing_of_the_job_and_nowhere_else() {
        let top = std::env::temp_dir().join(format!("peerdma-vm-again-{}", std::process::id()));
        let folder = RunFolder::create(&top).unwrap();
        let anew = |end: End, status: &str, console: &str, log: &str| {
            for (name, text) in [("status", status), ("console", console), ("log", log), ("qemu", "")] {
                fs::write(folder.path(name), text).unwrap();
            }
            reason(&end, &folder).is_some()
        };
        let unwell = "[    9.9] init: the guest stood still for 5 s\n";
        let gave_up = &format!("{BEGUN}\n{GIVING_UP}\n");
        assert!(anew(End::Aborted, "", "", ""));
        assert!(anew(End::NeverBegan, "", "", ""));
        // Somebody else ended it, and may do so again.
        assert!(!anew(End::Killed(9), "", BEGUN, unwell));
        assert!(anew(End::Silent, "", BEGUN, ""));
        assert!(!anew(End::Silent, "", gave_up, ""), "a job that nobody can ask hangs by itself");
        assert!(anew(End::Silent, "", &format!("{gave_up}{unwell}"), ""));
        assert!(anew(End::Silent, "", &format!("{gave_up}[ 17.2] {NO_TIMER} for seven seconds: CPU1 4711\n"), ""));
        assert!(!anew(End::Exited, "hung\n", gave_up, "[    1.0] all is well\n"));
        assert!(anew(End::Exited, "hung\n", gave_up, unwell));
        assert!(anew(End::Exited, "", "Kernel panic", ""));
        assert!(!anew(End::Exited, "", &format!("{BEGUN}\nKernel panic"), ""), "it may have been the job");
        assert!(!anew(End::Exited, "", "", ""), "a machine that QEMU refuses is refused again");
        for status in ["0\n", "1\n"] {
            assert!(!anew(End::Exited, status, BEGUN, unwell), "a job that ended is for the suite to judge");
        }
        drop(folder);
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn a_kernel_that_misses_interrupts_or_processors_is_not_well_and_one_whose_process_fails_is() {
        for line in [
            "[    9.9] init: the guest stood still for 5 s",
            "[   17.2] init: no interrupt of its timer for seven seconds: CPU1 4711",
            "[   31.0] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-.... } 6002 jiffies",
            "[   61.5] nvme nvme0: I/O tag 12 (700c) QID 1 timeout, completion polled",
            "[   31.0] rcu: rcu_sched kthread timer wakeup didn't happen for 7800 jiffies! g-1151 f0x0",
            "[   90.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[   90.1] rcu: INFO: rcu_preempt self-detected stall on CPU",
            "[   44.0] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [kworker/1:1:43]",
        ] {
            assert_eq!(unwell(&format!("[    0.1] Linux\n{line}\n[   99.0] more")), Some(line));
        }
        for line in [
            "[   12.0] nvme nvme0: I/O tag 12 QID 1 timeout, aborting",
            "[   12.0] peerdma[81]: segfault at 0 ip 0000 sp 0000 error 4",
            "[   12.0] INFO: task peerdma:81 blocked for more than 120 seconds.",
        ] {
            assert_eq!(unwell(line), None, "{line}");
        }
    }
}
