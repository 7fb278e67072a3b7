//! The page at `/`: the incidents, and buttons for a person to work on them. It uses the control endpoints only.

use super::reply::Reply;

const PAGE: &str = include_str!("page.html");

/// The page. It loads nothing from elsewhere and runs no script but its own.
pub(super) fn answer() -> Reply {
    Reply::html(200, PAGE).with("cache-control", "no-store").with(
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
    )
}
