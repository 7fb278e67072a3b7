//! An error with its causes, for the log and for people. Each `Display` of ours tells only its own layer; whoever shows
//! an error at the end of its way shows it by this, once.

use std::error::Error;

/// An error and its causes on one line.
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
    fn every_layer_is_told_once() {
        let cause = "x".parse::<i32>().expect_err("not a number");
        let told = format!("the ledger can't be read: {cause}");
        assert_eq!(chain(&Outer(cause)), told);
    }
}
