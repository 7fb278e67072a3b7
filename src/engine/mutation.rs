//! Rules of the protocol that the simulation can switch off, one at a time, to show that each is needed. In a normal
//! build there is nothing to switch: [`Rules::off`] is `false` by construction.

/// A rule that can be left out in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// Requests are sent without a claim.
    NoClaim,
    /// Claims, entries and requests do not need a lease.
    NoLease,
    /// The lease ignores the poll interval.
    NoPollBound,
    /// A commit of an older epoch gives a lease.
    NoEpochCheck,
    /// The first look is taken for conclusive.
    NoSettleTime,
    /// A lane goes on while an attempt of it is in doubt.
    NoWaitInDoubt,
    /// No marks are written.
    NoMark,
    /// Records at or below the entry's position are applied again.
    NoPositionCheck,
    /// A create's look adopts any ticket of the key.
    NoKnownSysIds,
    /// A note is recognised by the row's values alone.
    NoNoteMarkers,
    /// A look at the end of the span is conclusive, not only after it.
    LookAtSpanEnd,
    /// A resync counts whatever has come since.
    NoResyncCheck,
}

/// The rules in force.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    #[cfg(test)]
    without: Option<Mutation>,
}

impl Rules {
    /// All rules but one.
    #[cfg(test)]
    pub fn without(mutation: Mutation) -> Self {
        Self { without: Some(mutation) }
    }

    /// True where this rule is switched off.
    #[inline]
    pub fn off(self, mutation: Mutation) -> bool {
        #[cfg(test)]
        {
            self.without == Some(mutation)
        }
        #[cfg(not(test))]
        {
            let _ = mutation;
            false
        }
    }
}
