//! Plain reads of any table, for sources and for `nowbridge check`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::Failure;

use super::Client;
use super::classify::{self, RequestKind};
use super::client::RequestError;

/// One page of a list, or a single row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowPage {
    /// The rows as returned by the instance.
    pub rows: Vec<Map<String, Value>>,
    /// `X-Total-Count`: matching rows before ACLs hide some; `None` with `sysparm_no_count`.
    pub total: Option<u64>,
    /// The instance's clock (`Date`), Unix seconds.
    pub date: Option<i64>,
}

/// A list or a single row.
#[derive(Deserialize)]
#[serde(untagged)]
enum Rows {
    Many(Vec<Map<String, Value>>),
    One(Map<String, Value>),
}

impl Client {
    /// GETs `path` (from the instance's root, such as `/api/now/table/incident`) with these parameters, which are
    /// percent-encoded here. No parameter is added: the caller passes `sysparm_fields` and
    /// `sysparm_exclude_reference_link`.
    ///
    /// # Errors
    /// Every response that is not a complete, well-formed `result` is a failure. That includes an error spliced into a
    /// page of rows (a transaction quota ran out while the instance was streaming). 404 for a list is `Rejected`.
    pub async fn get(&self, slot: usize, path: &str, query: &[(&str, String)]) -> Result<RowPage, Failure> {
        self.page(slot, self.urls().path_url(path, query)).await.map_err(|failure| self.redacted(failure))
    }

    /// GETs one page from a URL built by `Urls`.
    pub(super) async fn page(&self, slot: usize, url: String) -> Result<RowPage, Failure> {
        let response = match self.read(slot, RequestKind::List, url, &mut || Ok(())).await {
            Ok(response) => response,
            Err(RequestError::Failed(failure, _)) => return Err(failure),
            Err(RequestError::NotSent(reason)) => {
                return Err(classify::failure(crate::model::FailureClass::Transient, "not_sent", &reason));
            }
        };
        let rows = match classify::parse_result::<Rows>(RequestKind::List, &response.head, &response.body)? {
            Rows::Many(rows) => rows,
            Rows::One(row) => vec![row],
        };
        Ok(RowPage { rows, total: response.head.total, date: response.head.date })
    }
}
