//! The nowbridge command.

fn main() {}
