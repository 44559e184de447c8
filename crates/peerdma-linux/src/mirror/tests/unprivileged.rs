//! Without privilege: one is not told of forks, and children are kept out.

use super::*;
use crate::uffd::OpenError;
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

/// Runs in a thread that has given up its user, and with it every capability; the process keeps its own.
fn as_nobody<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                if rustix::process::geteuid().is_root() {
                    // A number that nobody has.
                    let nobody = Uid::from_raw(0x7fff_fff0);
                    set_thread_res_uid(nobody, nobody, nobody).unwrap();
                }
                let capabilities = rustix::thread::capabilities(None).unwrap();
                assert!(capabilities.effective.is_empty(), "the test would pass empty");
                body()
            })
            .join()
            .unwrap()
    })
}

#[test]
fn without_privilege_everything_but_forks_is_told() {
    let mirror = as_nobody(|| {
        let error = Uffd::open(Forks::Told).unwrap_err();
        let OpenError::Kernel { source, .. } = error else { unreachable!("{error}") };
        assert_eq!(source.raw_os_error(), Some(libc::EPERM));
        assert_eq!(Uffd::open(Forks::NotTold).unwrap().forks(), Forks::NotTold);
        Mirror::new(()).unwrap()
    });
    let mut context = mirror.context("engine").unwrap();
    let region = Region::map(None, pages(2)).unwrap();
    let at = region.at();
    mirror.watch(at, Prot::ReadWrite).unwrap();
    let ((), served) = served(&mirror, || {
        context.write(at.start(), &[1; 8], soon()).unwrap();
        region.discard(page(at, 0)).unwrap();
        context.write(at.start(), &[2; 8], soon()).unwrap();
        fork_once();
        drop(region);
    });
    assert_eq!(served.heard.len(), 2, "a discard and an unmapping: {:?}", served.heard);
}
