//! Rules of the protocol that the simulation can disable, one at a time, to show that each is needed. In a normal build
//! nothing can be disabled: [`Rules::is_disabled`] is always `false`.

/// A rule that a test can disable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// Requests are sent without a claim.
    NoClaim,
    /// Claims, entries and requests do not need a lease.
    NoLease,
    /// The lease ignores the poll interval.
    NoPollBound,
    /// A commit of an older epoch grants a lease.
    NoEpochCheck,
    /// The first verification is conclusive.
    NoSpanWait,
    /// A lane continues while an attempt of it is ambiguous.
    NoWaitWhileAmbiguous,
    /// No marks are written.
    NoMark,
    /// Records at or below the entry's position are applied again.
    NoPositionCheck,
    /// The verification of a create adopts any ticket of the key.
    NoKnownSysIds,
    /// A note is recognized by the row's values alone.
    NoNoteMarkers,
    /// A verification at the end of the span is conclusive, not only one after it.
    VerifyAtSpanEnd,
    /// A write is decided on a row of any age.
    NoRowAgeLimit,
    /// That nothing has to be done for an opening event is decided without a look.
    NoLookBeforeNothing,
    /// A resolved ticket is forgotten without a look, although a user may have opened it again.
    NoLookBeforeExpiry,
    /// A repeat of a firing opens a ticket that a user ended.
    NoFirings,
    /// A value of a user is known only as long as the row is.
    NoKeptValues,
    /// A resync is applied even if newer events of the key have arrived.
    NoResyncCheck,
}

/// The rules in force.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    #[cfg(test)]
    without: Option<Mutation>,
}

impl Rules {
    /// All rules except one.
    #[cfg(test)]
    pub fn without(mutation: Mutation) -> Self {
        Self { without: Some(mutation) }
    }

    /// True if this rule is disabled.
    #[inline]
    pub fn is_disabled(self, mutation: Mutation) -> bool {
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
