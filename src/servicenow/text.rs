//! Helpers for text: encoding of values in URLs, and shortening of the instance's messages for display.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Encodes everything but RFC 3986's unreserved characters: strict HTTP stacks reject a bare caret, and a plus would be
/// decoded as a space.
const ENCODE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Maximum characters of an external message that are shown.
pub const SHOWN: usize = 300;

/// Appends `value` to a URL, percent-encoded.
pub fn push_encoded(url: &mut String, value: &str) {
    url.extend(utf8_percent_encode(value, ENCODE));
}

/// The length of `value` in bytes after percent-encoding.
pub fn encoded_len(value: &str) -> usize {
    utf8_percent_encode(value, ENCODE).map(str::len).sum()
}

/// Whether `name` is a valid table name.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 80 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether `name` is a valid column name, possibly dot-walked.
pub fn is_column(name: &str) -> bool {
    name.split('.').all(is_name)
}

/// Whether `id` is a sys_id: 32 lower-case hex digits.
pub fn is_sys_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Shortens `text` to one line of at most `limit` characters: whitespace and control characters are collapsed, the rest
/// is cut with an ellipsis.
pub fn bounded(text: &str, limit: usize) -> String {
    let mut out = String::new();
    let mut left = limit;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = !out.is_empty();
            continue;
        }
        if left <= 1 + usize::from(gap) {
            out.push('…');
            break;
        }
        if std::mem::take(&mut gap) {
            out.push(' ');
            left -= 1;
        }
        out.push(c);
        left -= 1;
    }
    out
}
