//! The page at `/`: the incidents, with buttons to edit them as a user. It uses only the control endpoints.

use super::reply::Reply;

const PAGE: &str = include_str!("page.html");

/// Returns the page. Its policy allows no foreign resources and no scripts but its own.
pub(super) fn page() -> Reply {
    Reply::html(200, PAGE).with("cache-control", "no-store").with(
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
    )
}
