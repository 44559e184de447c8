//! The file `libibverbs.so.1`, and its functions by name and version.

#![expect(unsafe_code)]

use super::layout::{
    Channel, CompletionQueue, Context, Device, DeviceAttributes, Domain, Gid, GidEntry, PortAttributes,
    QueueAttributes, QueueInit, QueuePair, Region,
};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;

/// What the dynamic linker is asked for.
pub(crate) const FILE: &CStr = c"libibverbs.so.1";

/// Why the library cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotLoaded {
    /// This program has no dynamic linker.
    Static,
    /// The linker does not load the file; what it said.
    Absent(String),
    /// A function that is needed is not in it, in the version that is known.
    Symbol { name: &'static str, version: &'static str },
}

/// The functions, each of the version that stands beside its name below.
#[derive(Clone, Copy)]
pub(crate) struct Library {
    pub(super) list: unsafe extern "C" fn(*mut c_int) -> *mut *mut Device,
    pub(super) free_list: unsafe extern "C" fn(*mut *mut Device),
    pub(super) open: unsafe extern "C" fn(*mut Device) -> *mut Context,
    pub(super) close: unsafe extern "C" fn(*mut Context) -> c_int,
    pub(super) query_device: unsafe extern "C" fn(*mut Context, *mut DeviceAttributes) -> c_int,
    pub(super) query_port: unsafe extern "C" fn(*mut Context, u8, *mut PortAttributes) -> c_int,
    pub(super) query_gid: unsafe extern "C" fn(*mut Context, u8, c_int, *mut Gid) -> c_int,
    pub(super) query_gids: Option<unsafe extern "C" fn(*mut Context, *mut GidEntry, usize, u32, usize) -> isize>,
    pub(super) alloc_domain: unsafe extern "C" fn(*mut Context) -> *mut Domain,
    pub(super) free_domain: unsafe extern "C" fn(*mut Domain) -> c_int,
    pub(super) register: unsafe extern "C" fn(*mut Domain, *mut c_void, usize, c_int) -> *mut Region,
    pub(super) register_dmabuf: Option<unsafe extern "C" fn(*mut Domain, u64, usize, u64, c_int, c_int) -> *mut Region>,
    pub(super) deregister: unsafe extern "C" fn(*mut Region) -> c_int,
    pub(super) create_channel: unsafe extern "C" fn(*mut Context) -> *mut Channel,
    pub(super) destroy_channel: unsafe extern "C" fn(*mut Channel) -> c_int,
    pub(super) create_completions:
        unsafe extern "C" fn(*mut Context, c_int, *mut c_void, *mut Channel, c_int) -> *mut CompletionQueue,
    pub(super) destroy_completions: unsafe extern "C" fn(*mut CompletionQueue) -> c_int,
    pub(super) event: unsafe extern "C" fn(*mut Channel, *mut *mut CompletionQueue, *mut *mut c_void) -> c_int,
    pub(super) acknowledge: unsafe extern "C" fn(*mut CompletionQueue, c_uint),
    pub(super) create_queue: unsafe extern "C" fn(*mut Domain, *mut QueueInit) -> *mut QueuePair,
    pub(super) modify_queue: unsafe extern "C" fn(*mut QueuePair, *mut QueueAttributes, c_int) -> c_int,
    pub(super) destroy_queue: unsafe extern "C" fn(*mut QueuePair) -> c_int,
}

/// Looks up a function that must be there, or one that newer libraries have.
macro_rules! function {
    ($file:expr, $name:literal, $version:literal) => {{
        let Some(found) = $file.find($name, $version) else {
            return Err(NotLoaded::Symbol { name: text($name), version: text($version) });
        };
        // SAFETY: 1. Under this name and version the library has a function of the signature that the field has
        // (`infiniband/verbs.h`), and versions of symbols are never given to others. 2. It stays loaded for good (`File`).
        unsafe { function(found) }
    }};
    ($file:expr, $name:literal, $version:literal, optional) => {
        // SAFETY: as above.
        $file.find($name, $version).map(|found| unsafe { function(found) })
    };
}

/// Takes an address for a function.
///
/// # Safety
/// There is a function of type `F` at it, for as long as the process lives.
unsafe fn function<F: Copy>(found: NonNull<c_void>) -> F {
    const { assert!(size_of::<F>() == size_of::<NonNull<c_void>>(), "a pointer to a function is as wide as any other") };
    // SAFETY: 1. Both have the same size, as just asserted. 2. The caller vouches for the rest.
    unsafe { std::mem::transmute_copy::<NonNull<c_void>, F>(&found) }
}

impl Library {
    /// Loads the library that the dynamic linker finds, once for the process: it is never unloaded.
    pub(crate) fn load(file: &CStr) -> Result<Self, NotLoaded> {
        // Providers are linked for a C library of their own, of which such a program has another inside.
        if cfg!(target_feature = "crt-static") {
            return Err(NotLoaded::Static);
        }
        let file = File::load(file)?;
        Ok(Self {
            list: function!(file, c"ibv_get_device_list", c"IBVERBS_1.1"),
            free_list: function!(file, c"ibv_free_device_list", c"IBVERBS_1.1"),
            open: function!(file, c"ibv_open_device", c"IBVERBS_1.1"),
            close: function!(file, c"ibv_close_device", c"IBVERBS_1.1"),
            query_device: function!(file, c"ibv_query_device", c"IBVERBS_1.1"),
            query_port: function!(file, c"ibv_query_port", c"IBVERBS_1.1"),
            query_gid: function!(file, c"ibv_query_gid", c"IBVERBS_1.1"),
            query_gids: function!(file, c"_ibv_query_gid_table", c"IBVERBS_1.11", optional),
            alloc_domain: function!(file, c"ibv_alloc_pd", c"IBVERBS_1.1"),
            free_domain: function!(file, c"ibv_dealloc_pd", c"IBVERBS_1.1"),
            register: function!(file, c"ibv_reg_mr", c"IBVERBS_1.1"),
            register_dmabuf: function!(file, c"ibv_reg_dmabuf_mr", c"IBVERBS_1.12", optional),
            deregister: function!(file, c"ibv_dereg_mr", c"IBVERBS_1.1"),
            create_channel: function!(file, c"ibv_create_comp_channel", c"IBVERBS_1.0"),
            destroy_channel: function!(file, c"ibv_destroy_comp_channel", c"IBVERBS_1.0"),
            create_completions: function!(file, c"ibv_create_cq", c"IBVERBS_1.1"),
            destroy_completions: function!(file, c"ibv_destroy_cq", c"IBVERBS_1.1"),
            event: function!(file, c"ibv_get_cq_event", c"IBVERBS_1.1"),
            acknowledge: function!(file, c"ibv_ack_cq_events", c"IBVERBS_1.1"),
            create_queue: function!(file, c"ibv_create_qp", c"IBVERBS_1.1"),
            modify_queue: function!(file, c"ibv_modify_qp", c"IBVERBS_1.1"),
            destroy_queue: function!(file, c"ibv_destroy_qp", c"IBVERBS_1.1"),
        })
    }

    /// Whether it has a function that registers dma-bufs.
    pub(crate) fn registers_dmabufs(&self) -> bool {
        self.register_dmabuf.is_some()
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("libibverbs")
    }
}

fn text(name: &'static CStr) -> &'static str {
    name.to_str().unwrap_or_default()
}

/// A loaded file, which is never unloaded: providers leave threads and exit handlers behind.
struct File(NonNull<c_void>);

impl File {
    fn load(name: &CStr) -> Result<Self, NotLoaded> {
        // SAFETY: 1. The name ends with a zero and outlives the call. 2. Loading runs the file's constructors: it is
        // the system's library of that name, as trusted as the C library beside it.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        NonNull::new(handle).map(Self).ok_or_else(|| NotLoaded::Absent(said()))
    }

    fn find(&self, name: &CStr, version: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: 1. The handle is of `dlopen` and was not closed. 2. Both texts end with a zero and outlive the call.
        #[cfg(target_env = "gnu")]
        let found = unsafe { libc::dlvsym(self.0.as_ptr(), name.as_ptr(), version.as_ptr()) };
        // Other C libraries know no versions, and find the newest.
        #[cfg(not(target_env = "gnu"))]
        let found = {
            let _ = version;
            // SAFETY: as above.
            unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) }
        };
        NonNull::new(found)
    }
}

/// What the dynamic linker said last, on this thread.
fn said() -> String {
    // SAFETY: no arguments; glibc keeps the text for each thread.
    let text: *mut c_char = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the dynamic linker gave no reason".into();
    }
    // SAFETY: 1. It is not null, so it is a text that ends with a zero. 2. It stays until the thread's next call of the linker.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_another_names_the_first_function_that_it_lacks() {
        let error = Library::load(c"libc.so.6").unwrap_err();
        assert_eq!(error, NotLoaded::Symbol { name: "ibv_get_device_list", version: "IBVERBS_1.1" });
    }

    #[test]
    fn a_file_that_is_not_there_is_named_by_the_linker() {
        let error = Library::load(c"libibverbs-of-nobody.so.1").unwrap_err();
        assert!(matches!(&error, NotLoaded::Absent(said) if said.contains("libibverbs-of-nobody")), "{error:?}");
    }
}
