//! Regular expressions with full Unicode support.

use std::cell::RefCell;

use regex::Regex;

thread_local! {
    static LAST: RefCell<Option<Regex>> = const { RefCell::new(None) };
}

/// `regex_match(pattern_ptr: i32, pattern_len: i32, text_ptr: i32, text_len: i32) -> i32`: 1 when
/// the pattern matches somewhere in the text, else 0; -1 for a bad pattern or text that is not
/// UTF-8. The last compiled pattern is kept.
///
/// # Safety
///
/// Each pair must be a written buffer from `alloc`, which this call frees.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regex_match(
    pattern_ptr: *mut u8,
    pattern_len: usize,
    text_ptr: *mut u8,
    text_len: usize,
) -> i32 {
    let pattern = unsafe { abi::take_text(pattern_ptr, pattern_len) };
    let text = unsafe { abi::take_text(text_ptr, text_len) };
    match (pattern, text) {
        (Some(pattern), Some(text)) => is_match(&pattern, &text).map_or(-1, i32::from),
        _ => -1,
    }
}

fn is_match(pattern: &str, text: &str) -> Option<bool> {
    LAST.with_borrow_mut(|last| {
        let regex = match last.take() {
            Some(regex) if regex.as_str() == pattern => regex,
            _ => Regex::new(pattern).ok()?,
        };
        Some(last.insert(regex).is_match(text))
    })
}

#[cfg(test)]
mod tests {
    use super::is_match;

    #[test]
    fn matches() {
        assert_eq!(is_match(r"^\d{4}-\d{2}$", "2024-05"), Some(true));
        assert_eq!(is_match(r"^\d{4}-\d{2}$", "2024-5"), Some(false));
        assert_eq!(is_match("", ""), Some(true));
    }

    #[test]
    fn unicode() {
        assert_eq!(is_match(r"^\p{Greek}+$", "αβγ"), Some(true));
        assert_eq!(is_match(r"(?i)^straße$", "STRAẞE"), Some(true));
        assert_eq!(is_match(r"^\w+$", "naïve"), Some(true));
    }

    #[test]
    fn bad_pattern_between_good_ones() {
        assert_eq!(is_match("a", "a"), Some(true));
        assert_eq!(is_match("(", "a"), None);
        assert_eq!(is_match("a", "b"), Some(false));
    }
}
