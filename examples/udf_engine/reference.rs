//! The same functions in plain Rust, written from their definitions and without a look at the
//! guests: what the guests' answers are compared with.

use sha2::{Digest, Sha256};

/// Mean radius of the Earth in kilometres (IUGG).
pub const EARTH_RADIUS: f64 = 6371.0088;

/// Kilometres between two points in degrees, through the angle between their vectors: not the
/// formula that the guest uses.
pub fn great_circle(from: (f64, f64), to: (f64, f64)) -> f64 {
    let vector = |(latitude, longitude): (f64, f64)| {
        let (phi, lambda) = (latitude.to_radians(), longitude.to_radians());
        [
            phi.cos() * lambda.cos(),
            phi.cos() * lambda.sin(),
            phi.sin(),
        ]
    };
    let (a, b) = (vector(from), vector(to));
    let cross = [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ];
    let sine = cross.iter().map(|x| x * x).sum::<f64>().sqrt();
    let cosine: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    EARTH_RADIUS * sine.atan2(cosine)
}

/// Characters to insert, delete or replace: the whole table, as in the textbook.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut cost = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            cost[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let replaced = cost[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    replaced.min(cost[i - 1][j] + 1).min(cost[i][j - 1] + 1)
                }
            };
        }
    }
    cost[a.len()][b.len()]
}

/// American Soundex: equal codes in a row count once, also across H and W, but not across vowels.
pub fn soundex(name: &str) -> String {
    let letters: String = name
        .chars()
        .filter(char::is_ascii_alphabetic)
        .map(|c| c.to_ascii_uppercase())
        .filter({
            let mut first = true;
            move |c| std::mem::take(&mut first) || !matches!(c, 'H' | 'W')
        })
        .collect();
    let Some(first) = letters.chars().next() else {
        return String::new();
    };
    let digits: Vec<char> = letters.chars().map(digit).collect();
    let code: String = digits
        .windows(2)
        .filter(|pair| pair[1] != '0' && pair[0] != pair[1])
        .map(|pair| pair[1])
        .chain("000".chars())
        .take(3)
        .collect();
    format!("{first}{code}")
}

fn digit(letter: char) -> char {
    match letter {
        'B' | 'F' | 'P' | 'V' => '1',
        'C' | 'G' | 'J' | 'K' | 'Q' | 'S' | 'X' | 'Z' => '2',
        'D' | 'T' => '3',
        'L' => '4',
        'M' | 'N' => '5',
        'R' => '6',
        _ => '0',
    }
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether one of the words stands in the text as a word of its own, in any case.
pub fn has_word(text: &str, words: &[&str]) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|found| words.iter().any(|word| found.eq_ignore_ascii_case(word)))
}

/// Text as Markdown that stands for exactly this text.
pub fn markdown_escape(text: &str) -> String {
    let escape = |c: char| c.is_ascii_punctuation().then_some('\\');
    text.chars()
        .flat_map(|c| escape(c).into_iter().chain([c]))
        .collect()
}

/// Text as HTML.
pub fn html_escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Text as a JSON string, with its quotes.
pub fn json_string(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
