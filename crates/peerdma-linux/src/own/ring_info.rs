//! Registered buffers of a ring, from its `fdinfo`.

use std::io;
use std::time::Duration;

/// A slot that is filled, as it was registered: not in whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Filled {
    /// Address in the process that registered it.
    pub(crate) start: u64,
    /// Length in bytes.
    pub(crate) len: u64,
}

/// How often it is read before it is called busy.
const TRIES: u32 = 200;

/// The filled slots, by what `read` says.
///
/// The kernel lists no slot while somebody has the ring's lock, as while a slot is filled (Linux 6.18
/// `io_uring_show_fdinfo`); then it is read again, for a fifth of a second at most.
///
/// # Errors
/// Those of `read`, and [`io::ErrorKind::WouldBlock`].
pub(crate) fn buffers(mut read: impl FnMut() -> io::Result<String>) -> io::Result<Vec<Filled>> {
    for attempt in 0..TRIES {
        if let Some(found) = parse(&read()?) {
            return Ok(found);
        }
        match attempt {
            0..10 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "the ring is busy, and its slots are not shown meanwhile; try again"))
}

/// The lines `index: 0xaddress/length` below `UserBufs: n`; `None` where there is no such heading.
fn parse(info: &str) -> Option<Vec<Filled>> {
    let mut lines = info.lines().skip_while(|line| !line.starts_with("UserBufs:"));
    lines.next()?;
    // The next heading ends the list; an empty slot is a line without an address.
    let slots = lines
        .map_while(|line| line.split_once(':'))
        .map_while(|(number, slot)| number.trim().parse::<u32>().is_ok().then_some(slot.trim()));
    let filled = slots.filter_map(|slot| {
        let (start, len) = slot.split_once('/')?;
        let start = u64::from_str_radix(start.strip_prefix("0x")?, 16).ok()?;
        Some(Filled { start, len: len.parse().ok()? })
    });
    Some(filled.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "pos:\t0\nUserFiles:\t0\nUserBufs:\t3\n    0: 0x7f0000001000/4096\n    1: <none>\n    2: 0x7f0000005001/17\nPollList:\n  op=6, task_works=0\n";

    #[test]
    fn slots_are_read_and_empty_ones_passed_over() {
        let found = buffers(|| Ok(LISTED.to_string())).unwrap();
        let expected = [Filled { start: 0x7f00_0000_1000, len: 4096 }, Filled { start: 0x7f00_0000_5001, len: 17 }];
        assert_eq!(found, expected);
    }

    /// It looked like a ring in which nothing is registered.
    #[test]
    fn a_ring_whose_lock_is_taken_is_read_again_and_is_busy_in_the_end() {
        let mut times = 0;
        let found = buffers(|| {
            times += 1;
            Ok(if times < 3 { "SqMask:\t0\n".to_string() } else { LISTED.to_string() })
        });
        assert_eq!((found.unwrap().len(), times), (2, 3));
        let busy = buffers(|| Ok("SqMask:\t0\n".to_string())).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::WouldBlock);
        assert!(busy.to_string().contains("try again"));
    }
}
