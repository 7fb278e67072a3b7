//! Formats an error with its causes. The `Display` of the bridge's errors describes only their own layer, so the code
//! that finally logs or prints an error uses [`chain`].

use std::error::Error;

/// Returns the error and its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the ledger can't be read")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn every_layer_occurs_once() {
        let cause = "x".parse::<i32>().expect_err("not a number");
        let expected = format!("the ledger can't be read: {cause}");
        assert_eq!(chain(&Outer(cause)), expected);
    }
}
