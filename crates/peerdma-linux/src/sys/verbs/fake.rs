//! A library that answers what a test wants, however odd.
//!
//! Knobs are of each thread, so that tests do not meet. What it hands out is leaked: a test ends soon.

#![expect(unsafe_code)]

use super::layout::{
    Channel, CompletionQueue, Context, Device, DeviceAttributes, Domain, Gid, GidEntry, PortAttributes,
    QueueAttributes, QueueInit, QueuePair, Region, WorkCompletion,
};
use super::library::Library;
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::IntoRawFd;

/// What the library of this thread answers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Knobs {
    /// Devices that it says it has; it has one.
    pub(crate) says_devices: c_int,
    /// Every byte of names is a letter, without an end.
    pub(crate) endless_names: bool,
    /// Errno of opening.
    pub(crate) open: c_int,
    /// Errno of registering memory, and of a dma-buf.
    pub(crate) register: c_int,
    pub(crate) dmabuf: c_int,
    /// What deregistering returns.
    pub(crate) deregister: c_int,
    /// What polling returns, beside completions of this status.
    pub(crate) polled: c_int,
    pub(crate) status: u32,
    /// What posting returns.
    pub(crate) post: c_int,
    /// Places that a port says it has for GIDs.
    pub(crate) gids: c_int,
    /// The context has no operations.
    pub(crate) bare: bool,
}

thread_local! {
    static KNOBS: Cell<Knobs> = const { Cell::new(Knobs {
        says_devices: 1, endless_names: false, open: 0, register: 0, dmabuf: 0, deregister: 0, polled: 0, status: 0, post: 0,
        gids: 1, bare: false,
    }) };
    static DONE: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Turns knobs of this thread's library.
pub(crate) fn turn(change: impl FnOnce(&mut Knobs)) {
    let mut knobs = KNOBS.get();
    change(&mut knobs);
    KNOBS.set(knobs);
}

/// What was called since the last time, of what is worth noting.
pub(crate) fn done() -> Vec<&'static str> {
    DONE.with(|done| done.take())
}

fn note(what: &'static str) {
    DONE.with(|done| done.borrow_mut().push(what));
}

fn set_errno(errno: c_int) {
    // SAFETY: glibc's place for the errno of this thread.
    unsafe { *libc::__errno_location() = errno };
}

/// A structure of zeros, for good.
fn zeroed<T>() -> *mut T {
    // SAFETY: every structure of the layout is numbers, pointers and options of functions, for which zeros are valid.
    Box::into_raw(Box::new(unsafe { std::mem::zeroed::<T>() }))
}

fn or_null<T>(errno: c_int) -> *mut T {
    if errno == 0 {
        return zeroed();
    }
    set_errno(errno);
    std::ptr::null_mut()
}

extern "C" fn list(count: *mut c_int) -> *mut *mut Device {
    let device = zeroed::<Device>();
    // SAFETY: the device was just made, and the caller's pointer is good for one number.
    unsafe {
        (&raw mut (*device).name).write([b'x'; 64]);
        (&raw mut (*device).sysfs_path).write([b'y'; 256]);
        if !KNOBS.get().endless_names {
            (&raw mut (*device).name).cast::<u8>().add(5).write(0);
        }
        count.write(KNOBS.get().says_devices);
    }
    Box::leak(Box::new([device, std::ptr::null_mut()])).as_mut_ptr()
}

extern "C" fn free_list(_: *mut *mut Device) {
    note("free list");
}

extern "C" fn open(device: *mut Device) -> *mut Context {
    let context = or_null::<Context>(KNOBS.get().open);
    if !context.is_null() && !KNOBS.get().bare {
        // SAFETY: the context was just made.
        unsafe {
            (*context).device = device;
            (*context).poll_cq = Some(poll);
            (*context).request_notify = Some(arm);
            (*context).post_send = Some(post);
            (*context).post_receive = Some(post_receive);
        }
    }
    context
}

extern "C" fn close(_: *mut Context) -> c_int {
    note("close");
    0
}

extern "C" fn query_device(_: *mut Context, _: *mut DeviceAttributes) -> c_int {
    0
}

extern "C" fn query_port(_: *mut Context, port: u8, into: *mut PortAttributes) -> c_int {
    if port != 1 {
        return libc::EINVAL;
    }
    // SAFETY: the caller's pointer is good for the structure.
    unsafe {
        (*into).state = 77;
        (*into).active_mtu = 77;
        (*into).gid_count = KNOBS.get().gids;
    }
    0
}

extern "C" fn query_gid(_: *mut Context, _: u8, index: c_int, into: *mut Gid) -> c_int {
    // SAFETY: the caller's pointer is good for one.
    unsafe { into.write(Gid([u8::try_from(index + 1).unwrap_or(255); 16])) };
    0
}

extern "C" fn query_gids(_: *mut Context, _: *mut GidEntry, _: usize, _: u32, _: usize) -> isize {
    -(libc::EOPNOTSUPP as isize)
}

extern "C" fn alloc_domain(_: *mut Context) -> *mut Domain {
    zeroed()
}

extern "C" fn free_domain(_: *mut Domain) -> c_int {
    note("free domain");
    0
}

extern "C" fn register(_: *mut Domain, _: *mut c_void, _: usize, _: c_int) -> *mut Region {
    or_null(KNOBS.get().register)
}

extern "C" fn register_dmabuf(_: *mut Domain, _: u64, _: usize, _: u64, _: c_int, _: c_int) -> *mut Region {
    or_null(KNOBS.get().dmabuf)
}

extern "C" fn deregister(_: *mut Region) -> c_int {
    note("deregister");
    KNOBS.get().deregister
}

extern "C" fn create_channel(_: *mut Context) -> *mut Channel {
    let channel = zeroed::<Channel>();
    if let Ok(file) = std::fs::File::open("/dev/null") {
        // SAFETY: the channel was just made.
        unsafe { (*channel).fd = file.into_raw_fd() };
    }
    channel
}

extern "C" fn destroy_channel(_: *mut Channel) -> c_int {
    note("destroy channel");
    0
}

extern "C" fn create_completions(
    _: *mut Context,
    _: c_int,
    _: *mut c_void,
    _: *mut Channel,
    _: c_int,
) -> *mut CompletionQueue {
    zeroed()
}

extern "C" fn destroy_completions(_: *mut CompletionQueue) -> c_int {
    note("destroy completions");
    0
}

/// An event of a queue that is nobody's.
extern "C" fn event(_: *mut Channel, queue: *mut *mut CompletionQueue, _: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's pointer is good for one.
    unsafe { queue.write(zeroed()) };
    0
}

extern "C" fn acknowledge(_: *mut CompletionQueue, _: c_uint) {
    note("acknowledge");
}

extern "C" fn create_queue(_: *mut Domain, _: *mut QueueInit) -> *mut QueuePair {
    zeroed()
}

extern "C" fn modify_queue(_: *mut QueuePair, _: *mut QueueAttributes, _: c_int) -> c_int {
    0
}

extern "C" fn destroy_queue(_: *mut QueuePair) -> c_int {
    note("destroy queue");
    0
}

extern "C" fn poll(_: *mut CompletionQueue, most: c_int, into: *mut WorkCompletion) -> c_int {
    let polled = KNOBS.get().polled;
    for index in 0..polled.clamp(0, most) {
        let status = KNOBS.get().status;
        let mut completion = WorkCompletion::default();
        (completion.status, completion.opcode) = (status, 99);
        // SAFETY: the caller's pointer is good for `most`.
        unsafe { into.add(usize::try_from(index).unwrap_or(0)).write(completion) };
    }
    polled
}

extern "C" fn arm(_: *mut CompletionQueue, _: c_int) -> c_int {
    0
}

extern "C" fn post(_: *mut QueuePair, _: *mut super::layout::SendWork, _: *mut *mut super::layout::SendWork) -> c_int {
    KNOBS.get().post
}

extern "C" fn post_receive(
    _: *mut QueuePair,
    _: *mut super::layout::ReceiveWork,
    _: *mut *mut super::layout::ReceiveWork,
) -> c_int {
    KNOBS.get().post
}

/// The library, with all functions, or of the time before dma-bufs.
pub(crate) static LIBRARY: Library = library(true);
pub(crate) static OLD_LIBRARY: Library = library(false);

const fn library(new: bool) -> Library {
    Library {
        list,
        free_list,
        open,
        close,
        query_device,
        query_port,
        query_gid,
        query_gids: if new { Some(query_gids) } else { None },
        alloc_domain,
        free_domain,
        register,
        register_dmabuf: if new { Some(register_dmabuf) } else { None },
        deregister,
        create_channel,
        destroy_channel,
        create_completions,
        destroy_completions,
        event,
        acknowledge,
        create_queue,
        modify_queue,
        destroy_queue,
    }
}
