//! That guests do what `vm run` says of them: jobs, users, files, and ends that are no ends.

use super::setup::{Laboratory, SHORT, Setup, Which, expect_exit, expect_words};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::{GuestFile, Job, User};
use std::time::Duration;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new("boots", "output, files and exit code come back, from both kernels", both_kernels),
        Test::new("boots", "a user sees 64 bytes of config space and may not read the log", as_a_user),
        Test::new("boots", "a job that hangs is given up and what it waits for is shown", hangs),
        Test::new("boots", "a guest that hangs as a whole is tried three times", hangs_as_a_whole),
        Test::new("boots", "a job that hangs where the kernel misses interrupts is tried three times", hangs_unwell),
        Test::new("boots", "a job in a guest whose processor has no timer any more is tried three times", timerless),
        Test::new("boots", "a guest that tells of a timer and of nothing more is not waited for", speechless),
        Test::new("boots", "a guest whose first process never begins is tried three times", never_begins),
        Test::new("boots", "a guest that crashes is an error with its console", crashes),
        Test::new("boots", "a device that QEMU refuses is an error with QEMU's words", refused),
    ]
}

fn both_kernels(laboratory: &Laboratory) -> Result<Done, Failure> {
    let script = "id -u; uname -r; echo problem >&2; mkdir /out/sub; printf abc > /out/sub/file; exit 7";
    for which in [Which::Stock, Which::Small] {
        let outcome = laboratory.boot(&Setup::named(which, "default"), &["sh", "-c", script])?;
        expect_exit(&outcome, 7, "the script")?;
        let release = laboratory.kernel(which).release.clone();
        expect_words(&outcome, &["0\n", &release, "problem\n"], "the script")?;
        if outcome.files.get("sub/file").map(Vec::as_slice) != Some(b"abc") {
            return Err(Failure::Found(format!("the file did not come back; these did: {:?}", outcome.files.keys())));
        }
        if outcome.kernel_log.is_empty() {
            return Err(Failure::Found("the kernel log did not come back".into()));
        }
    }
    Ok(Done { claims: 8, pairs: 0 })
}

fn as_a_user(laboratory: &Laboratory) -> Result<Done, Failure> {
    let script = "id -u; wc -c < /sys/bus/pci/devices/0000:00:04.0/config; dmesg > /dev/null 2>&1; echo log $?; \
                  grep -m1 -c '^ *0\\+-0\\+ : ' /proc/iomem";
    let outcome = laboratory.boot(&Setup::named(Which::Stock, "default").user(User::Nobody), &["sh", "-c", script])?;
    // `wc` reads to the end, and the end is where a user's reading stops; addresses of iomem are zeros.
    expect_words(&outcome, &["65534\n64\nlog 1\n1\n"], "the user's script")?;
    Ok(Done { claims: 4, pairs: 0 })
}

/// The error that a boot must end with, which says all of these words.
fn error_of(laboratory: &Laboratory, setup: &Setup, job: &mut Job, words: &[&str]) -> Result<String, Failure> {
    let Err(failure) = laboratory.boot_job(setup, job) else {
        return Err(Failure::Found("the guest ended well and should not have".into()));
    };
    let said = failure.to_string();
    match words.iter().find(|words| !said.contains(**words)) {
        None => Ok(said),
        Some(missing) => Err(Failure::Found(format!("the error does not say `{missing}`: {said}"))),
    }
}

fn hangs(laboratory: &Laboratory) -> Result<Done, Failure> {
    let script = "echo on its way > /out/far; echo waiting > /dev/console; sleep 1000";
    let mut job = Job::new(["sh", "-c", script].map(Into::into).into());
    job.limit = Duration::from_secs(10);
    let words = ["did not end within 10 s", "waiting", ": sleep 1000", "(sleeping)", "on its way"];
    error_of(laboratory, &Setup::named(Which::Stock, "default"), &mut job, &words)?;
    Ok(Done { claims: words.len(), pairs: 0 })
}

fn hangs_as_a_whole(laboratory: &Laboratory) -> Result<Done, Failure> {
    // Who would give the job up is stopped too.
    let script = "while :; do for it in $(pidof sleep); do \
                  [ \"$(tr '\\0' ' ' < /proc/$it/cmdline)\" = 'sleep 10 ' ] && kill -STOP $it && break 2; \
                  done; done; echo stopped > /dev/console; sleep 1000";
    let mut job = Job::new(["sh", "-c", script].map(Into::into).into());
    job.limit = Duration::from_secs(10);
    job.grace = Duration::from_secs(5);
    let words = ["all of the guest hangs (attempt 3)", "stopped"];
    error_of(laboratory, &Setup::named(Which::Stock, "default"), &mut job, &words)?;
    Ok(Done { claims: words.len(), pairs: 0 })
}

fn hangs_unwell(laboratory: &Laboratory) -> Result<Done, Failure> {
    let script = "echo nvme nvme0: I/O tag 5 QID 1 timeout, completion polled > /dev/kmsg; sleep 1000";
    let mut job = Job::new(["sh", "-c", script].map(Into::into).into());
    job.limit = Duration::from_secs(10);
    let words = ["did not end within 10 s (attempt 3)", "completion polled"];
    error_of(laboratory, &Setup::named(Which::Stock, "default"), &mut job, &words)?;
    Ok(Done { claims: words.len(), pairs: 0 })
}

/// The initial count of a processor's own timer, of which 0 stops it (Intel SDM volume 3, 12.5.4), where QEMU has it.
const INITIAL_COUNT: &str = "0xfee00380";

fn timerless(laboratory: &Laboratory) -> Result<Done, Failure> {
    let script = format!("taskset -c 1 devmem {INITIAL_COUNT} 32 0; sleep 2000");
    let mut job = Job::new(["sh", "-c", &script].map(Into::into).into());
    // It is not waited for.
    job.limit = Duration::from_secs(1000);
    let words =
        ["the job was given up (attempt 3)", "no interrupt of its timer for seven seconds: CPU1", ": sleep 2000"];
    error_of(laboratory, &Setup::named(Which::Small, "default"), &mut job, &words)?;
    Ok(Done { claims: words.len(), pairs: 0 })
}

fn speechless(laboratory: &Laboratory) -> Result<Done, Failure> {
    let script = "echo '<3>init: no interrupt of its timer for seven seconds: CPU1 4711' > /dev/kmsg; sleep 1000";
    let mut job = Job::new(["sh", "-c", script].map(Into::into).into());
    job.limit = Duration::from_secs(30);
    job.grace = Duration::from_secs(3);
    let words = ["the job was given up (attempt 3)", "CPU1 4711", "and the guest could not say why"];
    let said = error_of(laboratory, &Setup::named(Which::Stock, "default"), &mut job, &words)?;
    if said.contains("the job is given up") {
        return Err(Failure::Found(format!("it was waited for until its limit: {said}")));
    }
    Ok(Done { claims: words.len() + 1, pairs: 0 })
}

fn never_begins(laboratory: &Laboratory) -> Result<Done, Failure> {
    let mut job = Job::new(vec!["true".into()]);
    job.boot_limit = Duration::from_secs(5);
    // Takes the place of init, and says nothing of itself.
    let bytes = b"#!/bin/busybox sh\nexec /bin/busybox sleep 1000\n".to_vec();
    job.files.push(GuestFile { path: "init".into(), mode: 0o755, bytes });
    error_of(laboratory, &Setup::named(Which::Stock, "default"), &mut job, &["did not come to its job (attempt 3)"])?;
    Ok(Done { claims: 1, pairs: 0 })
}

fn crashes(laboratory: &Laboratory) -> Result<Done, Failure> {
    let mut job = Job::new(["sh", "-c", "echo c > /proc/sysrq-trigger"].map(Into::into).into());
    job.limit = SHORT;
    let words = ["ended before its job", "Kernel panic"];
    error_of(laboratory, &Setup::named(Which::Stock, "default"), &mut job, &words)?;
    Ok(Done { claims: 1, pairs: 0 })
}

fn refused(laboratory: &Laboratory) -> Result<Done, Failure> {
    let mut setup = Setup::named(Which::Stock, "default");
    // No such processor: what QEMU says of a machine that it cannot be.
    setup.cpu = "pentium-pro-max".into();
    let mut job = Job::new(vec!["true".into()]);
    job.limit = SHORT;
    error_of(laboratory, &setup, &mut job, &["QEMU refused the machine", "pentium-pro-max"])?;
    Ok(Done { claims: 1, pairs: 0 })
}
