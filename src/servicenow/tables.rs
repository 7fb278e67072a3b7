//! Plain reads of any table, for the source and for `check`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::Failure;

use super::Client;
use super::classify::{self, Kind};
use super::client::RequestError;

/// One page of a list, or one row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowPage {
    /// The rows as answered.
    pub rows: Vec<Map<String, Value>>,
    /// `X-Total-Count`: rows that match, before ACLs hid some; absent where `sysparm_no_count` was asked for.
    pub total: Option<u64>,
    /// The instance's clock (`Date`), Unix seconds.
    pub date: Option<i64>,
}

/// A list, or a single row.
#[derive(Deserialize)]
#[serde(untagged)]
enum Rows {
    Many(Vec<Map<String, Value>>),
    One(Map<String, Value>),
}

impl Client {
    /// GETs `path` (from the instance's root, such as `/api/now/table/incident`) with these parameters, encoded here.
    /// Nothing is added: ask for `sysparm_fields` and `sysparm_exclude_reference_link` yourself.
    ///
    /// # Errors
    /// Every answer that is not a complete, well-formed `result` is a failure, an error spliced into a page of rows
    /// (a quota that ran out while the instance was streaming) included. 404 for a list is `Rejected`.
    pub async fn get(&self, slot: usize, path: &str, query: &[(&str, String)]) -> Result<RowPage, Failure> {
        self.page(slot, self.urls().path(path, query)).await.map_err(|failure| self.scrubbed(failure))
    }

    /// GETs one page from a URL made here.
    pub(super) async fn page(&self, slot: usize, url: String) -> Result<RowPage, Failure> {
        let heard = match self.read(slot, Kind::List, url, &mut || Ok(())).await {
            Ok(heard) => heard,
            Err(RequestError::Failed(failure, _)) => return Err(failure),
            Err(RequestError::NotSent(reason)) => {
                return Err(classify::failure(crate::model::Class::Transient, "not_sent", &reason));
            }
        };
        let rows = match classify::result::<Rows>(Kind::List, &heard.head, &heard.body)? {
            Rows::Many(rows) => rows,
            Rows::One(row) => vec![row],
        };
        Ok(RowPage { rows, total: heard.head.total, date: heard.head.date })
    }
}
