//! Counts of what the histories contained. A run without violations means little unless these counts are high.

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts over all histories of a run.
        #[derive(Debug, Clone, Default)]
        pub(super) struct Coverage { $($(#[$doc])* pub(super) $name: u64),* }

        impl Coverage {
            pub(super) fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }
        }

        impl std::fmt::Display for Coverage {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let rows: &[(&str, u64)] = &[$((stringify!($name), self.$name)),*];
                for line in rows.chunks(6) {
                    for (name, value) in line {
                        write!(f, "{name:>18} {value:<10}")?;
                    }
                    writeln!(f)?;
                }
                Ok(())
            }
        }
    };
}

coverage! {
    histories, records, events, applies, requests, writes, creates, updates, notes, reads,
    /// Writes that became ambiguous, and the results of their verification.
    ambiguous_writes, found, not_found,
    /// Writes that the instance committed after the sender had stopped waiting for them.
    ghosts,
    /// Ghost writes after another member had taken over.
    ghosts_after_handover,
    refolds, unchanged, skipped, expired, parked, unparked, redrives, redriven, still_parked, resyncs, resyncs_skipped, user_edits_preserved, reopened, second_tickets,
    crashes, freezes, frozen_between_check_and_send, late_sends, beyond_documented_limit, stalls, disconnects,
    assigned, revoked, lost, two_owners, stray_commits, offset_went_back, commits_rejected, generation_rejected,
    late_produces, unknown_produces, unwritten_produces, late_owner_records, tokens_renewed, compactions,
    claims_loaded, stale_loaded,
    throttled, unauthorized, outages, rejected, missing_tickets, not_sent, applied_errors, not_applied_errors, dead_letters,
    shared_looks, opened_after_user, kept_after_user, user_changes, outdated, reopened_by_users, user_state_changes, user_races, deleted_rows, rule_changes, too_many_alternatives,
}
