//! Looks up a value in a JSON document.

use serde_json::Value;

/// `extract(json_ptr: i32, json_len: i32, pointer_ptr: i32, pointer_len: i32) -> i64`: the value
/// at an RFC 6901 pointer. A string is returned as it is, any other value as JSON text; NULL when
/// there is no such value, or the document is not JSON.
///
/// # Safety
///
/// Each pair must be a written buffer from `alloc`, which this call frees.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extract(
    json_ptr: *mut u8,
    json_len: usize,
    pointer_ptr: *mut u8,
    pointer_len: usize,
) -> i64 {
    let json = unsafe { abi::take(json_ptr, json_len) };
    let pointer = unsafe { abi::take_text(pointer_ptr, pointer_len) };
    match pointer.and_then(|pointer| lookup(&json, &pointer)) {
        Some(text) => abi::give(text),
        None => abi::NULL,
    }
}

fn lookup(json: &[u8], pointer: &str) -> Option<String> {
    let mut document: Value = serde_json::from_slice(json).ok()?;
    match document.pointer_mut(pointer)?.take() {
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::lookup;

    fn check(json: &str, pointer: &str, expected: Option<&str>) {
        assert_eq!(
            lookup(json.as_bytes(), pointer).as_deref(),
            expected,
            "{json} at {pointer:?}"
        );
    }

    #[test]
    fn values() {
        let json = r#"{"b": {"list": [1, "two", null]}, "a/b": true, "m~n": 8, "": "empty"}"#;
        check(json, "/b/list/0", Some("1"));
        check(json, "/b/list/1", Some("two"));
        check(json, "/b/list/2", Some("null"));
        check(json, "/b", Some(r#"{"list":[1,"two",null]}"#));
        check(json, "/a~1b", Some("true"));
        check(json, "/m~0n", Some("8"));
        check(json, "/", Some("empty"));
        check("[1]", "", Some("[1]"));
    }

    #[test]
    fn absent() {
        check("[1]", "/1", None);
        check("[1]", "/-", None);
        check("[1]", "/00", None);
        check("[1]", "0", None);
        check("{\"a\": 1}", "/b", None);
        check("{", "", None);
        check("", "", None);
    }

    #[test]
    fn keeps_order_and_digits() {
        check(
            r#"{"z": 12345678901234567890123, "a": 0.10}"#,
            "",
            Some(r#"{"z":12345678901234567890123,"a":0.10}"#),
        );
    }
}
