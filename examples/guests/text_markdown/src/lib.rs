//! Markdown to HTML.

use pulldown_cmark::{Options, Parser, html};

/// `markdown(ptr: i32, len: i32) -> i64`: CommonMark with tables, footnotes, strikethrough and
/// task lists, rendered as HTML; NULL when it is not UTF-8. HTML in the source passes through.
///
/// # Safety
///
/// The pair must be a written buffer from `alloc`, which this call frees.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn markdown(ptr: *mut u8, len: usize) -> i64 {
    match unsafe { abi::take_text(ptr, len) } {
        Some(source) => abi::give(render(&source)),
        None => abi::NULL,
    }
}

fn render(source: &str) -> String {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS;
    let mut out = String::with_capacity(source.len() * 3 / 2);
    html::push_html(&mut out, Parser::new_ext(source, options));
    out
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn commonmark() {
        assert_eq!(render("# A *b*"), "<h1>A <em>b</em></h1>\n");
        assert_eq!(render(""), "");
    }

    #[test]
    fn extensions() {
        assert!(render("|a|b|\n|-|-|\n|1|2|\n").contains("<td>1</td>"));
        assert!(render("~~gone~~").contains("<del>gone</del>"));
        assert!(render("- [x] done").contains("checkbox"));
        assert!(render("a[^1]\n\n[^1]: note").contains("footnote"));
    }
}
