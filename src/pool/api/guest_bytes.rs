//! Strings and bytes, to a guest and back. Every pointer and length that a guest gives is checked.

use crate::pool::api::async_reason::AsyncReason;
use crate::pool::api::error::CallError;
use crate::pool::api::lease::Lease;
use crate::pool::api::memory_error::MemoryError;
use crate::pool::hot::meter::Meter;
use crate::runtime::Allocator;

/// Bytes in a guest's memory: what a guest function takes as two `i32` parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GuestBytes {
    /// Offset into the memory.
    pub pointer: u32,
    /// Bytes.
    pub length: u32,
}

impl GuestBytes {
    /// The pair as wasm parameters: pointers and lengths are unsigned, `i32` is not.
    pub fn params(self) -> (i32, i32) {
        (self.pointer.cast_signed(), self.length.cast_signed())
    }

    /// From one `i64` result: pointer in the upper half, length in the lower. `None` for −1, which
    /// stands for "no value".
    pub fn from_packed(packed: i64) -> Option<Self> {
        if packed == -1 {
            return None;
        }
        let packed = packed.cast_unsigned();
        Some(Self {
            pointer: (packed >> 32) as u32,
            length: packed as u32,
        })
    }
}

impl<P, R, T: Send + 'static> Lease<'_, P, R, T> {
    /// Copies bytes into the guest, into a buffer from its exported `alloc(i32) -> i32`. Who frees
    /// it, the host or the guest, is between the two. For the lease of a task:
    /// [`Self::pass_bytes_async`].
    ///
    /// # Errors
    /// [`CallError::Memory`] if the guest has no room, or its allocator returns what is not its
    /// own; [`CallError::Export`] without an allocator; as [`Lease::call`] if the allocator traps;
    /// [`CallError::AsyncRequired`] in a lease that was acquired by a task, or called as one.
    pub fn pass_bytes(&mut self, bytes: &[u8]) -> Result<GuestBytes, CallError> {
        const INSTEAD: &str = "pass_bytes_async";
        self.refuse_to_tasks(INSTEAD)?;
        let (alloc, length) = (self.allocator()?.alloc, self.length(bytes)?);
        let wanted = length.cast_signed();
        let called = self.run_guest(|pooled| alloc.call(&mut pooled.instance.store, wanted));
        let pointer = called.map_err(|error| error.with_instead(INSTEAD))?;
        self.fill(pointer, length, bytes)
    }

    /// As [`Self::pass_bytes`], with the guest's `alloc` called as a task.
    ///
    /// # Errors
    /// As [`Self::pass_bytes`] and [`Lease::call_async`].
    pub async fn pass_bytes_async(&mut self, bytes: &[u8]) -> Result<GuestBytes, CallError> {
        let (alloc, length) = (self.allocator()?.alloc, self.length(bytes)?);
        let wanted = length.cast_signed();
        let called = self.run_guest_async(move |pooled| {
            let store = &mut pooled.instance.store;
            Box::pin(async move { alloc.call_async(store, wanted).await })
        });
        let pointer = called.await?;
        self.fill(pointer, length, bytes)
    }

    fn length(&self, bytes: &[u8]) -> Result<u32, CallError> {
        u32::try_from(bytes.len()).map_err(|_| {
            let length = bytes.len() as u64;
            self.memory_error(MemoryError::TooLong { length })
        })
    }

    /// Copies bytes to where the guest's allocator has said.
    fn fill(&mut self, pointer: i32, length: u32, bytes: &[u8]) -> Result<GuestBytes, CallError> {
        let pointer = pointer.cast_unsigned();
        if pointer == 0 && length > 0 {
            return Err(self.memory_error(MemoryError::GuestOutOfMemory { length }));
        }
        if length > 0 {
            self.write_bytes(pointer, bytes)?;
        }
        Ok(GuestBytes { pointer, length })
    }

    /// Copies bytes into the guest's memory at an offset.
    ///
    /// # Errors
    /// [`CallError::Memory`] if they do not all fit into the memory.
    pub fn write_bytes(&mut self, pointer: u32, bytes: &[u8]) -> Result<(), CallError> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let range = self.checked(GuestBytes { pointer, length })?;
        let Some(memory) = self.memory() else {
            return Err(self.memory_error(MemoryError::NoMemory));
        };
        memory.data_mut(self.store_mut())[range].copy_from_slice(bytes);
        if let Some(meter) = self.meter() {
            meter.add_bytes_in(bytes.len());
        }
        Ok(())
    }

    /// The bytes at a place that the guest names. No copy.
    ///
    /// # Errors
    /// [`CallError::Memory`] if they are not all within the memory.
    pub fn read_bytes(&mut self, at: GuestBytes) -> Result<&[u8], CallError> {
        let range = self.checked(at)?;
        let Some(memory) = self.memory() else {
            return Err(self.memory_error(MemoryError::NoMemory));
        };
        if let Some(meter) = self.meter() {
            meter.add_bytes_out(range.len());
        }
        Ok(&memory.data(self.store())[range])
    }

    fn meter(&self) -> Option<&Meter> {
        let seat = self.pooled().seat;
        self.home.entry().slot(seat).meter()
    }

    /// The text at a place that the guest names. No copy.
    ///
    /// # Errors
    /// As [`Self::read_bytes`], and if it is not UTF-8.
    pub fn read_str(&mut self, at: GuestBytes) -> Result<&str, CallError> {
        let target = self.target().clone();
        std::str::from_utf8(self.read_bytes(at)?).map_err(|error| CallError::Memory {
            target,
            source: MemoryError::NotUtf8 {
                valid_up_to: error.valid_up_to() as u64,
            },
        })
    }

    /// Copies out what a guest function returned as one `i64` (see [`GuestBytes::from_packed`]),
    /// and gives the buffer back through the guest's `dealloc(i32, i32)`. For the lease of a task:
    /// [`Self::take_bytes_async`].
    ///
    /// # Errors
    /// As [`Self::read_bytes`]; as [`Lease::call`] if `dealloc` traps; [`CallError::Export`]
    /// without it; [`CallError::AsyncRequired`] as [`Self::pass_bytes`], without anything having been
    /// given back.
    pub fn take_bytes(&mut self, packed: i64) -> Result<Option<Vec<u8>>, CallError> {
        self.take(packed, "take_bytes_async")
    }

    /// As [`Self::take_bytes`], with the guest's `dealloc` called as a task.
    ///
    /// # Errors
    /// As [`Self::take_bytes`] and [`Lease::call_async`].
    pub async fn take_bytes_async(&mut self, packed: i64) -> Result<Option<Vec<u8>>, CallError> {
        let Some(at) = GuestBytes::from_packed(packed) else {
            return Ok(None);
        };
        let bytes = self.read_bytes(at)?.to_vec();
        let dealloc = self.allocator()?.dealloc;
        let called = self.run_guest_async(move |pooled| {
            let store = &mut pooled.instance.store;
            Box::pin(async move { dealloc.call_async(store, at.params()).await })
        });
        called.await?;
        Ok(Some(bytes))
    }

    /// As [`Self::take_bytes`], for text.
    ///
    /// # Errors
    /// As [`Self::take_bytes`], and if it is not UTF-8.
    pub fn take_string(&mut self, packed: i64) -> Result<Option<String>, CallError> {
        let bytes = self.take(packed, "take_string_async")?;
        bytes.map(|bytes| self.text(bytes)).transpose()
    }

    /// As [`Self::take_bytes_async`], for text.
    ///
    /// # Errors
    /// As [`Self::take_bytes_async`], and if it is not UTF-8.
    pub async fn take_string_async(&mut self, packed: i64) -> Result<Option<String>, CallError> {
        let bytes = self.take_bytes_async(packed).await?;
        bytes.map(|bytes| self.text(bytes)).transpose()
    }

    fn take(&mut self, packed: i64, instead: &'static str) -> Result<Option<Vec<u8>>, CallError> {
        self.refuse_to_tasks(instead)?;
        let Some(at) = GuestBytes::from_packed(packed) else {
            return Ok(None);
        };
        let bytes = self.read_bytes(at)?.to_vec();
        let dealloc = self.allocator()?.dealloc;
        let called = self.run_guest(|pooled| dealloc.call(&mut pooled.instance.store, at.params()));
        called.map_err(|error| error.with_instead(instead))?;
        Ok(Some(bytes))
    }

    fn text(&self, bytes: Vec<u8>) -> Result<String, CallError> {
        String::from_utf8(bytes).map_err(|error| {
            let valid_up_to = error.utf8_error().valid_up_to() as u64;
            self.memory_error(MemoryError::NotUtf8 { valid_up_to })
        })
    }

    /// Passing bytes does not look like calling a guest, and does: in a task it would keep the executor's
    /// thread unnoticed.
    fn refuse_to_tasks(&self, instead: &'static str) -> Result<(), CallError> {
        if !self.is_of_a_task {
            return Ok(());
        }
        Err(CallError::AsyncRequired {
            target: self.target().clone(),
            reason: AsyncReason::LeaseOfATask,
            instead,
        })
    }

    fn allocator(&mut self) -> Result<Allocator, CallError> {
        let target = self.target().clone();
        let found = self.guest().allocator();
        found.map_err(|error| CallError::Export {
            target,
            export: "alloc, dealloc".into(),
            problem: error.to_string(),
        })
    }

    fn checked(&mut self, at: GuestBytes) -> Result<std::ops::Range<usize>, CallError> {
        let Some(memory) = self.memory() else {
            return Err(self.memory_error(MemoryError::NoMemory));
        };
        let size = memory.data_size(self.store());
        let GuestBytes { pointer, length } = at;
        let start = pointer as usize;
        match start.checked_add(length as usize) {
            Some(end) if end <= size => Ok(start..end),
            _ => Err(self.memory_error(MemoryError::OutOfBounds {
                pointer,
                length,
                size: size as u64,
            })),
        }
    }

    fn memory_error(&self, source: MemoryError) -> CallError {
        let target = self.target().clone();
        CallError::Memory { target, source }
    }
}
