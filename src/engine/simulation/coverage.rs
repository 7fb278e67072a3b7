//! What the histories really went through. A simulation that found nothing wrong says little unless these are high.

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
    histories, records, events, applies, requests, writes, creates, updates, notes, looks,
    /// Doubts that the engine opened, and how they were settled.
    doubts, found, not_found,
    /// Writes that the instance committed after the sender had given up on them.
    ghosts,
    /// Ghosts that struck after another member had taken over.
    ghosts_after_handover,
    refolds, unchanged, skipped, expired, parked, unparked, redrives, redriven, still_parked, resyncs, resyncs_left_out, person_kept, reopened, second_tickets,
    crashes, freezes, frozen_between_check_and_send, late_sends, beyond_honest_limit, stalls, cuts,
    assigned, revoked, lost, two_owners, stray_commits, offset_went_back, commits_refused, generation_refused,
    late_produces, unknown_produces, refused_produces, late_owner_records, tokens_renewed, compactions,
    claims_loaded, stale_loaded,
    throttled, unauthorised, outages, rejected, gone, not_sent, ended_applied, ended_not, dead_letters,
    person_edits, person_closes, person_races, deleted_rows, rule_changes, too_many_ways,
}
