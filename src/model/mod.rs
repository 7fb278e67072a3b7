//! Plain data that every part of the bridge speaks: records, alert events, intents, rows, outcomes, changes and
//! what the ledger remembers. Nothing here does I/O, reads a clock or depends on another module; the types are
//! deliberately dumb so that the engine can be tested with values made by hand.

pub mod alert;
pub mod answer;
pub mod change;
pub mod entry;
pub mod intent;
pub mod lifecycle;
pub mod method;
pub mod position;
pub mod quota;
pub mod record;
pub mod redrive;
pub mod severity;
pub mod time;

/// A hash map for what is looked up with every event: quick, and seeded at random as the standard one is.
pub type FastMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

pub use alert::AlertEvent;
pub use answer::{Answer, Class, Failure, Row};
pub use change::Change;
pub use entry::{AttemptId, Claim, Entry, FieldDigest, Mark, Park, PreviousOwner, Seen};
pub use intent::{Column, Intent, Key};
pub use lifecycle::{Action, Phase, StateModel};
pub use method::{HttpMethod, HttpMethods};
pub use position::{Epoch, Position, Token};
pub use quota::{DrainEstimate, QuotaStatus};
pub use record::Record;
pub use redrive::{RecordOrigin, RedriveId};
pub use time::Now;
