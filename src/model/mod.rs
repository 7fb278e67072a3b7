//! Plain data that all modules share: records, alert events, intents, rows, answers, changes, and the records of the
//! ledger. Nothing here does I/O, reads a clock or depends on another module, so the engine can be tested with
//! hand-written values.

pub mod alert;
pub mod answer;
pub mod change;
pub mod entry;
pub mod event_order;
pub mod intent;
pub mod lifecycle;
pub mod method;
pub mod position;
pub mod quota;
pub mod record;
pub mod record_origin;
pub mod severity;
pub mod time;

/// A hash map for look-ups on every event: fast, and randomly seeded like the standard one.
pub type FastMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

pub use alert::AlertEvent;
pub use answer::{Answer, Failure, FailureClass, Row, RowVersion};
pub use change::Change;
pub use entry::{AttemptId, Claim, Entry, FieldHash, LastSeen, Mark, Park, PartialNote, PreviousOwner};
pub use event_order::{EventOrder, EventOrdering};
pub use intent::{Column, Intent, Key};
pub use lifecycle::{Action, Phase, StateModel};
pub use method::{HttpMethod, HttpMethodSet};
pub use position::{Epoch, Position, Token};
pub use quota::{DrainEstimate, QuotaStatus, RequestCounts};
pub use record::Record;
pub use record_origin::{RecordOrigin, RedriveId};
pub use time::Now;
