//! American Soundex.

/// `soundex(ptr: i32, len: i32) -> i64`: the four-character code of a name, the empty text when
/// it has no ASCII letter; NULL when it is not UTF-8. Other characters are skipped.
///
/// # Safety
///
/// The pair must be a written buffer from `alloc`, which this call frees.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn soundex(ptr: *mut u8, len: usize) -> i64 {
    match unsafe { abi::take_text(ptr, len) } {
        Some(name) => abi::give(code(&name)),
        None => abi::NULL,
    }
}

fn code(name: &str) -> String {
    let mut letters = name
        .chars()
        .filter(char::is_ascii_alphabetic)
        .map(|c| c.to_ascii_uppercase());
    let Some(first) = letters.next() else {
        return String::new();
    };
    let mut code = String::from(first);
    let mut last = digit(first);
    for letter in letters {
        // H and W do not separate letters of one digit, vowels do.
        if matches!(letter, 'H' | 'W') {
            continue;
        }
        let digit = digit(letter);
        if digit != last {
            code.extend(digit);
        }
        last = digit;
    }
    code.truncate(4);
    format!("{code:0<4}")
}

fn digit(letter: char) -> Option<char> {
    match letter {
        'B' | 'F' | 'P' | 'V' => Some('1'),
        'C' | 'G' | 'J' | 'K' | 'Q' | 'S' | 'X' | 'Z' => Some('2'),
        'D' | 'T' => Some('3'),
        'L' => Some('4'),
        'M' | 'N' => Some('5'),
        'R' => Some('6'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn known_codes() {
        for (name, expected) in [
            ("Robert", "R163"),
            ("Rupert", "R163"),
            ("Rubin", "R150"),
            ("Ashcraft", "A261"),
            ("Ashcroft", "A261"),
            ("Tymczak", "T522"),
            ("Pfister", "P236"),
            ("Honeyman", "H555"),
            ("Gutierrez", "G362"),
            ("Jackson", "J250"),
            ("VanDeusen", "V532"),
            ("Lee", "L000"),
            ("o'hara", "O600"),
            ("  ", ""),
        ] {
            assert_eq!(code(name), expected, "{name}");
        }
    }
}
