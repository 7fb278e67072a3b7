//! Small rules about text: what may go into a URL, and what of the instance's words is shown to people.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but RFC 3986's unreserved characters: strict HTTP stacks refuse a bare caret, and a plus would be read
/// as a blank.
const ENCODE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Most characters of a foreign text that are shown.
pub const SHOWN: usize = 300;

/// Appends `value` to a URL, percent-encoded.
pub fn push_encoded(url: &mut String, value: &str) {
    url.extend(utf8_percent_encode(value, ENCODE));
}

/// Bytes that `value` takes percent-encoded.
pub fn encoded_len(value: &str) -> usize {
    utf8_percent_encode(value, ENCODE).map(str::len).sum()
}

/// True for names that a table can have.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 80 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// True for names that a column can have, dot-walked ones included.
pub fn is_column(name: &str) -> bool {
    name.split('.').all(is_name)
}

/// True for what ServiceNow uses as a row's id in paths.
pub fn is_sys_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// One line of at most `limit` characters: blanks and control characters folded, the rest cut with an ellipsis.
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
