//! How the guests take and return bytes; see the README for the host's side.
//!
//! On wasm32 both `usize` and pointers are an `i32` parameter or result.

/// The `i64` result that means NULL.
pub const NULL: i64 = -1;

/// `alloc(len: i32) -> i32`: a buffer of `len` bytes, or 0 when there is no memory for it.
#[unsafe(no_mangle)]
pub extern "C" fn alloc(len: usize) -> *mut u8 {
    let mut buffer = Vec::new();
    if buffer.try_reserve_exact(len).is_err() {
        return std::ptr::null_mut();
    }
    buffer.leak().as_mut_ptr()
}

/// `dealloc(ptr: i32, len: i32)`: frees a buffer from [`alloc`] or a guest's result.
///
/// # Safety
///
/// The buffer must not have been freed or passed to a guest's function, and `len` must be its
/// length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dealloc(ptr: *mut u8, len: usize) {
    drop(unsafe { take(ptr, len) });
}

/// Takes ownership of a bytes argument.
///
/// # Safety
///
/// As for [`dealloc`]; in addition the whole buffer must have been written.
pub unsafe fn take(ptr: *mut u8, len: usize) -> Vec<u8> {
    if len == 0 {
        return Vec::new();
    }
    unsafe { Vec::from_raw_parts(ptr, len, len) }
}

/// Takes ownership of a text argument; `None` when it is not UTF-8.
///
/// # Safety
///
/// As for [`take`].
pub unsafe fn take_text(ptr: *mut u8, len: usize) -> Option<String> {
    String::from_utf8(unsafe { take(ptr, len) }).ok()
}

/// Hands a result to the host, which frees it with [`dealloc`].
pub fn give(result: impl Into<Vec<u8>>) -> i64 {
    let result = Box::leak(result.into().into_boxed_slice());
    ((result.as_ptr().addr() as u64) << 32 | result.len() as u64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_change_hands() {
        let text = "guest";
        let ptr = alloc(text.len());
        unsafe {
            ptr.copy_from_nonoverlapping(text.as_ptr(), text.len());
            assert_eq!(take_text(ptr, text.len()).as_deref(), Some(text));
            dealloc(alloc(1000), 1000);
        }
    }

    #[test]
    fn empty_and_impossible_lengths() {
        assert!(!alloc(0).is_null());
        assert_eq!(unsafe { take(alloc(0), 0) }, b"");
        assert!(alloc(usize::MAX).is_null());
    }
}
