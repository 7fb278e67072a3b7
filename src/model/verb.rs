//! How a request is made, as far as an instance's rate-limit rules tell requests apart: by method.

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// GET: looks and reads.
    Get,
    /// POST: makes a ticket.
    Post,
    /// PATCH: changes one.
    Patch,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 3] = [Verb::Get, Verb::Post, Verb::Patch];

    /// As it stands in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Patch => "PATCH",
        }
    }
}

/// A set of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verbs(u8);

impl Verbs {
    /// None.
    pub const NONE: Verbs = Verbs(0);

    /// These and `verb`.
    pub fn with(self, verb: Verb) -> Self {
        Self(self.0 | 1 << verb as u8)
    }

    /// True where `verb` is among them.
    pub fn contains(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = Verbs::NONE.with(Verb::Post).with(Verb::Get);
        assert_eq!(Verb::ALL.map(|verb| set.contains(verb)), [true, true, false]);
    }
}
