//! Edit distance between two texts.

/// `levenshtein(a_ptr: i32, a_len: i32, b_ptr: i32, b_len: i32) -> i32`: how many characters
/// (Unicode scalar values) to insert, delete or replace to turn `a` into `b`; -1 when either is
/// not UTF-8.
///
/// # Safety
///
/// Each pair must be a written buffer from `alloc`, which this call frees.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn levenshtein(
    a_ptr: *mut u8,
    a_len: usize,
    b_ptr: *mut u8,
    b_len: usize,
) -> i32 {
    let a = unsafe { abi::take_text(a_ptr, a_len) };
    let b = unsafe { abi::take_text(b_ptr, b_len) };
    match (a, b) {
        (Some(a), Some(b)) => distance(&a, &b) as i32,
        _ => -1,
    }
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // row[j] is the distance between the part of `a` seen so far and b[..j].
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a_char) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b_char) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a_char != b_char);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn known_distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("flaw", "lawn"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn counts_characters_not_bytes() {
        assert_eq!(distance("naïve", "naive"), 1);
        assert_eq!(distance("日本", "日本語"), 1);
    }
}
