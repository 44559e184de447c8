//! How deep queues are, and how patient a connection is.

/// How much work a queue pair holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Depths {
    /// Writes, reads and sends that are posted and not complete.
    pub sends: u32,
    /// Places for messages.
    pub receives: u32,
}

impl Default for Depths {
    /// 64 of each.
    fn default() -> Self {
        Self { sends: 64, receives: 64 }
    }
}

/// How a connection deals with what goes wrong on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How long to wait for an acknowledgement: 4.096 µs times two to this power, 0 for ever. `1..=31`.
    pub timeout: u8,
    /// How often to send again what nobody acknowledged; 7 at most.
    pub retries: u8,
    /// How often to send again what the peer had no place for; 7 is for ever.
    pub not_ready_retries: u8,
    /// RDMA reads under way in each direction at most.
    pub reads: u8,
    /// Routers on the way at most.
    pub hops: u8,
}

impl Default for Options {
    /// 67 ms, seven times; one read; 64 routers.
    fn default() -> Self {
        Self { timeout: 14, retries: 7, not_ready_retries: 7, reads: 1, hops: 64 }
    }
}
