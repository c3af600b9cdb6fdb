//! What can be wrong with bytes that go to a guest or come from it.

/// Why bytes could not be passed to a guest or read from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The module exports no memory named `memory`, and none was made for it to import.
    #[error("the module exports no memory named \"memory\", and none was made for it to import")]
    NoMemory,
    /// A pointer and length that the guest gave, or was given, leave its memory.
    #[error(
        "bytes {pointer} to {pointer}+{length} are not all within the guest's memory of {size} bytes"
    )]
    OutOfBounds {
        /// Offset into the memory.
        pointer: u32,
        /// Bytes.
        length: u32,
        /// Bytes the memory has.
        size: u64,
    },
    /// The guest's allocator has no room.
    #[error("the guest could not allocate {length} bytes")]
    GuestOutOfMemory {
        /// Bytes asked for.
        length: u32,
    },
    /// More than a 32-bit guest can address.
    #[error("{length} bytes are more than a guest can address")]
    TooLong {
        /// Bytes.
        length: u64,
    },
    /// The guest's text is not UTF-8.
    #[error("the guest's text is not UTF-8 (valid up to byte {valid_up_to})")]
    NotUtf8 {
        /// Where it stops being UTF-8.
        valid_up_to: u64,
    },
}
