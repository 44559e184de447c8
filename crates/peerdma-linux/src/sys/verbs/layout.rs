//! The structures of `infiniband/verbs.h`, as far as they are used.
//!
//! Sizes and offsets computed by compiling the header of rdma-core 44 on x86-64; they are part of the library's binary
//! interface of version `IBVERBS_1.1` on, so that no later release changes them.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

/// `ibv_device`: what the library made of a folder in sysfs. Texts end at their first zero, or nowhere.
#[repr(C)]
pub(crate) struct Device {
    operations: [usize; 2],
    pub(crate) node_type: c_int,
    pub(crate) transport: c_int,
    pub(crate) name: [u8; 64],
    pub(crate) uverbs_name: [u8; 64],
    uverbs_path: [u8; 256],
    pub(crate) sysfs_path: [u8; 256],
}

/// `ibv_poll_cq`.
pub(crate) type PollCq = unsafe extern "C" fn(*mut CompletionQueue, c_int, *mut WorkCompletion) -> c_int;
/// `ibv_req_notify_cq`.
pub(crate) type RequestNotify = unsafe extern "C" fn(*mut CompletionQueue, c_int) -> c_int;
/// `ibv_post_send`.
pub(crate) type PostSend = unsafe extern "C" fn(*mut QueuePair, *mut SendWork, *mut *mut SendWork) -> c_int;
/// `ibv_post_recv`.
pub(crate) type PostReceive = unsafe extern "C" fn(*mut QueuePair, *mut ReceiveWork, *mut *mut ReceiveWork) -> c_int;
/// `ibv_query_device_ex` behind its inline function.
pub(crate) type QueryDeviceExtended =
    unsafe extern "C" fn(*mut Context, *const c_void, *mut DeviceAttributesExtended, usize) -> c_int;

/// `ibv_context` with its table of operations, whose first and last entries are not ours to call.
#[repr(C)]
pub(crate) struct Context {
    pub(crate) device: *mut Device,
    before: [usize; 11],
    pub(crate) poll_cq: Option<PollCq>,
    pub(crate) request_notify: Option<RequestNotify>,
    between: [usize; 12],
    pub(crate) post_send: Option<PostSend>,
    pub(crate) post_receive: Option<PostReceive>,
    after: [usize; 5],
    command_fd: c_int,
    event_fd: c_int,
    pub(crate) vectors: c_int,
    mutex: libc::pthread_mutex_t,
    /// All ones where the context is the end of an [`ExtendedContext`].
    pub(crate) abi_compat: usize,
}

/// `verbs_context`: what newer contexts lie at the end of.
#[repr(C)]
pub(crate) struct ExtendedContext {
    before: [usize; 27],
    pub(crate) query_device: Option<QueryDeviceExtended>,
    between: [usize; 11],
    /// How much of this structure the provider knows, counted from its end.
    pub(crate) size: usize,
    pub(crate) context: Context,
}

/// `ibv_gid`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default)]
pub(crate) struct Gid(pub(crate) [u8; 16]);

/// `ibv_gid_entry`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct GidEntry {
    pub(crate) gid: Gid,
    pub(crate) index: u32,
    pub(crate) port: u32,
    pub(crate) kind: u32,
    pub(crate) interface: u32,
}

/// `ibv_port_attr`; the library's function of version 1.1 writes what is before `capabilities2`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct PortAttributes {
    pub(crate) state: u32,
    pub(crate) largest_mtu: u32,
    pub(crate) active_mtu: u32,
    pub(crate) gid_count: c_int,
    capabilities: u32,
    pub(crate) largest_message: u32,
    violations: [u32; 2],
    pkey_count: u16,
    pub(crate) lid: u16,
    subnet_lid: u16,
    bytes: [u8; 8],
    pub(crate) link_layer: u8,
    flags: u8,
    capabilities2: u16,
    speed: u16,
}

/// `ibv_device_attr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceAttributes {
    firmware: [u8; 64],
    guids: [u64; 2],
    pub(crate) largest_region: u64,
    page_sizes: u64,
    vendor: [u32; 3],
    pub(crate) most_queues: c_int,
    pub(crate) most_work: c_int,
    flags: u32,
    pub(crate) most_segments: c_int,
    rest: [u32; 2],
    pub(crate) most_completions: c_int,
    pub(crate) most_regions: c_int,
    domains: c_int,
    /// Reads that a queue pair answers at once.
    pub(crate) reads_answered: c_int,
    more: [u32; 2],
    /// Reads that a queue pair asks at once.
    pub(crate) reads_asked: c_int,
    tail: [u32; 16],
    pkeys: u16,
    delay: u8,
    pub(crate) ports: u8,
    end: u32,
}

/// `ibv_device_attr_ex`, of which on-demand paging is of use.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceAttributesExtended {
    plain: DeviceAttributes,
    mask: [u32; 2],
    /// Bit 0: supported at all; bit 1: for the whole address space.
    pub(crate) paging: u64,
    /// For reliable connections: send, receive, write, read, atomic.
    pub(crate) paging_reliable: u32,
    rest: [u32; 37],
}

/// `ibv_pd`.
#[repr(C)]
pub(crate) struct Domain {
    context: *mut Context,
    handle: u32,
}

/// `ibv_mr`.
#[repr(C)]
pub(crate) struct Region {
    context: *mut Context,
    domain: *mut Domain,
    address: *mut c_void,
    length: usize,
    handle: u32,
    pub(crate) local_key: u32,
    pub(crate) remote_key: u32,
}

/// `ibv_comp_channel`.
#[repr(C)]
pub(crate) struct Channel {
    context: *mut Context,
    pub(crate) fd: c_int,
    references: c_int,
}

/// `ibv_cq`, of which only the start is looked at.
#[repr(C)]
pub(crate) struct CompletionQueue {
    context: *mut Context,
    channel: *mut Channel,
    owner: *mut c_void,
    handle: u32,
    pub(crate) entries: c_int,
}

/// `ibv_qp`, of which only the start is looked at.
#[repr(C)]
pub(crate) struct QueuePair {
    context: *mut Context,
    owner: *mut c_void,
    domain: *mut Domain,
    queues: [usize; 3],
    handle: u32,
    pub(crate) number: u32,
}

/// `ibv_qp_cap`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct QueueDepths {
    pub(crate) sends: u32,
    pub(crate) receives: u32,
    pub(crate) send_segments: u32,
    pub(crate) receive_segments: u32,
    pub(crate) inline: u32,
}

/// `ibv_qp_init_attr`.
#[repr(C)]
pub(crate) struct QueueInit {
    pub(crate) owner: *mut c_void,
    pub(crate) send_queue: *mut CompletionQueue,
    pub(crate) receive_queue: *mut CompletionQueue,
    pub(crate) shared_receives: *mut c_void,
    pub(crate) depths: QueueDepths,
    pub(crate) kind: u32,
    pub(crate) signal_all: c_int,
}

/// `ibv_ah_attr`, its `ibv_global_route` first.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Path {
    pub(crate) destination: Gid,
    pub(crate) flow: u32,
    pub(crate) source_index: u8,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    pub(crate) padding: u8,
    pub(crate) lid: u16,
    pub(crate) service_level: u8,
    pub(crate) source_bits: u8,
    pub(crate) rate: u8,
    pub(crate) is_global: u8,
    pub(crate) port: u8,
}

/// `ibv_qp_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct QueueAttributes {
    pub(crate) state: u32,
    pub(crate) current: u32,
    pub(crate) mtu: u32,
    pub(crate) migration: u32,
    pub(crate) qkey: u32,
    pub(crate) receive_psn: u32,
    pub(crate) send_psn: u32,
    pub(crate) peer: u32,
    pub(crate) access: u32,
    pub(crate) depths: QueueDepths,
    pub(crate) path: Path,
    pub(crate) other_path: Path,
    pub(crate) pkey_index: u16,
    pub(crate) other_pkey_index: u16,
    pub(crate) draining: [u8; 2],
    pub(crate) reads_asked: u8,
    pub(crate) reads_answered: u8,
    pub(crate) not_ready_timer: u8,
    pub(crate) port: u8,
    pub(crate) timeout: u8,
    pub(crate) retries: u8,
    pub(crate) not_ready_retries: u8,
    pub(crate) other: [u8; 2],
    pub(crate) rate: u32,
}

/// `ibv_sge`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) key: u32,
}

/// `ibv_send_wr`, for RDMA and for sends.
#[repr(C)]
pub(crate) struct SendWork {
    pub(crate) id: u64,
    pub(crate) next: *mut SendWork,
    pub(crate) segments: *mut Segment,
    pub(crate) segment_count: c_int,
    pub(crate) opcode: u32,
    pub(crate) flags: u32,
    pub(crate) immediate: u32,
    pub(crate) remote_address: u64,
    pub(crate) remote_key: u32,
    pub(crate) rest: [u64; 9],
}

/// `ibv_recv_wr`.
#[repr(C)]
pub(crate) struct ReceiveWork {
    pub(crate) id: u64,
    pub(crate) next: *mut ReceiveWork,
    pub(crate) segments: *mut Segment,
    pub(crate) segment_count: c_int,
}

/// `ibv_wc`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct WorkCompletion {
    pub(crate) id: u64,
    pub(crate) status: u32,
    pub(crate) opcode: u32,
    pub(crate) vendor: u32,
    pub(crate) length: u32,
    immediate: u32,
    pub(crate) queue: u32,
    source: u32,
    flags: u32,
    pkey: u16,
    lid: u16,
    bytes: [u8; 2],
}

// Structures with pointers are as wide as those are, and the context holds a mutex of the C library's.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
const _: () = {
    assert!(size_of::<Device>() == 664);
    assert!(offset_of!(Device, name) == 24 && offset_of!(Device, sysfs_path) == 408);
    assert!(size_of::<Context>() == 328);
    assert!(offset_of!(Context, poll_cq) == 8 + 88 && offset_of!(Context, request_notify) == 8 + 96);
    assert!(offset_of!(Context, post_send) == 8 + 200 && offset_of!(Context, post_receive) == 8 + 208);
    assert!(offset_of!(Context, command_fd) == 264 && offset_of!(Context, vectors) == 272);
    assert!(offset_of!(Context, mutex) == 280 && offset_of!(Context, abi_compat) == 320);
    assert!(size_of::<ExtendedContext>() == 648 && offset_of!(ExtendedContext, query_device) == 216);
    assert!(offset_of!(ExtendedContext, size) == 312 && offset_of!(ExtendedContext, context) == 320);
    assert!(size_of::<Gid>() == 16 && size_of::<GidEntry>() == 32);
    assert!(size_of::<PortAttributes>() == 52 && offset_of!(PortAttributes, lid) == 34);
    assert!(offset_of!(PortAttributes, link_layer) == 46);
    assert!(size_of::<DeviceAttributes>() == 232 && offset_of!(DeviceAttributes, ports) == 227);
    assert!(offset_of!(DeviceAttributes, most_queues) == 108 && offset_of!(DeviceAttributes, most_work) == 112);
    assert!(offset_of!(DeviceAttributes, most_segments) == 120);
    assert!(offset_of!(DeviceAttributes, most_completions) == 132);
    assert!(offset_of!(DeviceAttributes, largest_region) == 80);
    assert!(offset_of!(DeviceAttributes, reads_answered) == 144);
    assert!(offset_of!(DeviceAttributes, reads_asked) == 156);
    assert!(size_of::<DeviceAttributesExtended>() == 400);
    assert!(offset_of!(DeviceAttributesExtended, paging) == 240);
    assert!(size_of::<Domain>() == 16 && size_of::<Region>() == 48);
    assert!(offset_of!(Region, local_key) == 36 && offset_of!(Region, remote_key) == 40);
    assert!(size_of::<Channel>() == 16 && offset_of!(Channel, fd) == 8);
    assert!(offset_of!(CompletionQueue, entries) == 28 && size_of::<CompletionQueue>() <= 128);
    assert!(offset_of!(QueuePair, number) == 52 && size_of::<QueuePair>() <= 160);
    assert!(size_of::<QueueDepths>() == 20 && size_of::<QueueInit>() == 64);
    assert!(offset_of!(QueueInit, depths) == 32 && offset_of!(QueueInit, kind) == 52);
    assert!(size_of::<Path>() == 32 && offset_of!(Path, source_index) == 20);
    assert!(offset_of!(Path, lid) == 24 && offset_of!(Path, is_global) == 29 && offset_of!(Path, port) == 30);
    assert!(size_of::<QueueAttributes>() == 144 && offset_of!(QueueAttributes, mtu) == 8);
    assert!(offset_of!(QueueAttributes, receive_psn) == 20 && offset_of!(QueueAttributes, peer) == 28);
    assert!(offset_of!(QueueAttributes, access) == 32 && offset_of!(QueueAttributes, path) == 56);
    assert!(offset_of!(QueueAttributes, pkey_index) == 120 && offset_of!(QueueAttributes, reads_asked) == 126);
    assert!(offset_of!(QueueAttributes, not_ready_timer) == 128 && offset_of!(QueueAttributes, port) == 129);
    assert!(offset_of!(QueueAttributes, not_ready_retries) == 132);
    assert!(size_of::<Segment>() == 16 && size_of::<SendWork>() == 128 && size_of::<ReceiveWork>() == 32);
    assert!(offset_of!(SendWork, opcode) == 28 && offset_of!(SendWork, remote_address) == 40);
    assert!(offset_of!(SendWork, remote_key) == 48);
    assert!(size_of::<WorkCompletion>() == 48 && offset_of!(WorkCompletion, queue) == 28);
};
