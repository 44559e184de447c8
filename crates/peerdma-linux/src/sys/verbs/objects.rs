//! Devices, contexts and protection domains.

#![expect(unsafe_code)]

use super::answer::{of_pointer, of_status, of_thread};
use super::layout;
use super::library::Library;
use rustix::io::Errno;
use std::ffi::c_int;
use std::fmt;
use std::mem::{MaybeUninit, offset_of};
use std::ptr::NonNull;
use std::sync::Arc;

/// No machine has more; a library that says so is not believed.
const MOST_DEVICES: usize = 1024;

/// A list of devices, handed back when the last device of it is dropped.
struct List {
    library: &'static Library,
    raw: NonNull<*mut layout::Device>,
}

// SAFETY: the list is read only after it was made, and the library's functions may be called by any thread.
unsafe impl Send for List {}
// SAFETY: as for `Send`.
unsafe impl Sync for List {}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: 1. The list is the library's and was not freed. 2. Every `Device` of it holds this value.
        unsafe { (self.library.free_list)(self.raw.as_ptr()) }
    }
}

/// One device of a list.
#[derive(Clone)]
pub(crate) struct Device {
    list: Arc<List>,
    raw: NonNull<layout::Device>,
}

// SAFETY: as for `List`, of which it is a part.
unsafe impl Send for Device {}
// SAFETY: as for `List`.
unsafe impl Sync for Device {}

impl Device {
    /// All that the library finds.
    pub(crate) fn all(library: &'static Library) -> Result<Vec<Self>, Errno> {
        let mut count: c_int = 0;
        // SAFETY: the pointer is good for one number during the call.
        let raw = of_pointer(unsafe { (library.list)(&raw mut count) })?;
        let list = Arc::new(List { library, raw });
        let count = usize::try_from(count).unwrap_or(0).min(MOST_DEVICES);
        let entry = |index| {
            // SAFETY: 1. The list has `count` entries and a null after them; no entry after the first null is looked at.
            // 2. It lives as long as `list`.
            NonNull::new(unsafe { *raw.as_ptr().add(index) })
        };
        Ok((0..count).map_while(entry).map(|raw| Self { list: Arc::clone(&list), raw }).collect())
    }

    fn layout(&self) -> &layout::Device {
        // SAFETY: 1. The library made it and keeps it while the list lives, which this value holds. 2. Nobody changes
        // the fields that are read here after that.
        unsafe { self.raw.as_ref() }
    }

    pub(crate) fn name(&self) -> String {
        text(&self.layout().name)
    }

    /// The name of its file below `/dev/infiniband`.
    pub(crate) fn uverbs_name(&self) -> String {
        text(&self.layout().uverbs_name)
    }

    pub(crate) fn sysfs_path(&self) -> String {
        text(&self.layout().sysfs_path)
    }

    pub(crate) fn node_type(&self) -> i32 {
        self.layout().node_type
    }

    pub(crate) fn transport(&self) -> i32 {
        self.layout().transport
    }

    pub(crate) fn open(&self) -> Result<Context, Errno> {
        let library = self.list.library;
        // SAFETY: the device lives as long as the list.
        let raw = of_pointer(unsafe { (library.open)(self.raw.as_ptr()) })?;
        Ok(Context(Arc::new(Open { library, raw })))
    }
}

/// A text that ends at its first zero, or with its field.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

/// A device's context; copies are the same.
#[derive(Clone)]
pub(crate) struct Context(Arc<Open>);

struct Open {
    library: &'static Library,
    raw: NonNull<layout::Context>,
}

// SAFETY: the verbs may be called by any number of threads at once (rdma-core's `ibv_*` manual pages).
unsafe impl Send for Open {}
// SAFETY: as for `Send`.
unsafe impl Sync for Open {}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: 1. The context was opened once and is closed once. 2. Whatever was made of it holds it.
        // An error leaves it to the end of the process; there is nobody to tell.
        let _ = unsafe { (self.library.close)(self.raw.as_ptr()) };
    }
}

impl Context {
    pub(crate) fn library(&self) -> &'static Library {
        self.0.library
    }

    pub(super) fn raw(&self) -> *mut layout::Context {
        self.0.raw.as_ptr()
    }

    pub(super) fn operations(&self) -> &layout::Context {
        // SAFETY: 1. It lives as long as this value. 2. Providers fill the table before the context is handed out.
        unsafe { self.0.raw.as_ref() }
    }

    pub(crate) fn attributes(&self) -> Result<layout::DeviceAttributes, Errno> {
        let mut attributes = MaybeUninit::zeroed();
        // SAFETY: the pointer is good for the structure that the function fills.
        of_status(unsafe { (self.0.library.query_device)(self.raw(), attributes.as_mut_ptr()) })?;
        // SAFETY: any bits are valid numbers, and all were zeroed before.
        Ok(unsafe { attributes.assume_init() })
    }

    /// The words about on-demand paging; `None` where the provider has no function for it.
    pub(crate) fn paging(&self) -> Result<Option<(u64, u32)>, Errno> {
        let Some(query) = self.extended_query() else { return Ok(None) };
        let mut attributes = MaybeUninit::<layout::DeviceAttributesExtended>::zeroed();
        let size = size_of::<layout::DeviceAttributesExtended>();
        // SAFETY: 1. The pointer is good for `size` bytes, and the function is told so. 2. No input is what it takes a
        // null pointer for.
        of_status(unsafe { query(self.raw(), std::ptr::null(), attributes.as_mut_ptr(), size) })?;
        // SAFETY: as for `attributes`.
        let attributes = unsafe { attributes.assume_init() };
        Ok(Some((attributes.paging, attributes.paging_reliable)))
    }

    fn extended_query(&self) -> Option<layout::QueryDeviceExtended> {
        if self.operations().abi_compat != usize::MAX {
            return None;
        }
        let at = offset_of!(layout::ExtendedContext, context);
        // SAFETY: 1. A context marked so lies at the end of a `verbs_context` (`verbs_get_ctx` in the header). 2. The size
        // stands right before it in every one of them.
        let size = unsafe {
            let end = self.raw().cast::<u8>();
            *end.sub(at - offset_of!(layout::ExtendedContext, size)).cast::<usize>()
        };
        let field = offset_of!(layout::ExtendedContext, query_device);
        if size < size_of::<layout::ExtendedContext>() - field {
            return None;
        }
        // SAFETY: the structure reaches this field, by its size, which counts from its end.
        unsafe { *self.raw().cast::<u8>().sub(at - field).cast::<Option<layout::QueryDeviceExtended>>() }
    }

    pub(crate) fn port(&self, port: u8) -> Result<layout::PortAttributes, Errno> {
        let mut attributes = layout::PortAttributes::default();
        // SAFETY: the function of version 1.1 fills at most this structure.
        of_status(unsafe { (self.0.library.query_port)(self.raw(), port, &raw mut attributes) })?;
        Ok(attributes)
    }

    /// The entry at an index, without its kind.
    pub(crate) fn gid(&self, port: u8, index: u8) -> Result<[u8; 16], Errno> {
        let mut gid = layout::Gid::default();
        // SAFETY: the pointer is good for one GID during the call.
        of_status(unsafe { (self.0.library.query_gid)(self.raw(), port, c_int::from(index), &raw mut gid) })?;
        Ok(gid.0)
    }

    /// All valid entries of all ports, `most` at most; `None` where the library is older than that call.
    pub(crate) fn gids(&self, most: usize) -> Result<Option<Vec<layout::GidEntry>>, Errno> {
        let Some(query) = self.0.library.query_gids else { return Ok(None) };
        let mut entries = vec![layout::GidEntry::default(); most];
        // SAFETY: the pointer is good for `most` entries of the size that is given.
        let found = unsafe { query(self.raw(), entries.as_mut_ptr(), most, 0, size_of::<layout::GidEntry>()) };
        match usize::try_from(found) {
            Ok(found) => {
                entries.truncate(found);
                Ok(Some(entries))
            }
            // A negative errno, or -1 with the thread's.
            Err(_) if found == -1 => Err(of_thread()),
            Err(_) => {
                Err(of_status(c_int::try_from(found.saturating_neg()).unwrap_or(c_int::MAX)).err().unwrap_or(Errno::IO))
            }
        }
    }

    pub(crate) fn domain(&self) -> Result<Domain, Errno> {
        // SAFETY: the context is open.
        let raw = of_pointer(unsafe { (self.0.library.alloc_domain)(self.raw()) })?;
        Ok(Domain(Arc::new(Allocated { context: self.clone(), raw })))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Context")
    }
}

/// A protection domain; copies are the same.
#[derive(Clone)]
pub(crate) struct Domain(Arc<Allocated>);

struct Allocated {
    context: Context,
    raw: NonNull<layout::Domain>,
}

// SAFETY: as for `Open`.
unsafe impl Send for Allocated {}
// SAFETY: as for `Open`.
unsafe impl Sync for Allocated {}

impl Drop for Allocated {
    fn drop(&mut self) {
        // SAFETY: 1. It was allocated once and is freed once. 2. Regions and queues of it hold it.
        let _ = unsafe { (self.context.library().free_domain)(self.raw.as_ptr()) };
    }
}

impl Domain {
    pub(crate) fn context(&self) -> &Context {
        &self.0.context
    }

    pub(super) fn raw(&self) -> *mut layout::Domain {
        self.0.raw.as_ptr()
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Domain")
    }
}
