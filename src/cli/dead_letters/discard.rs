//! `nowbridge dead-letters discard`: marks dead letters as discarded, and releases their keys.

use anyhow::Result;

use super::super::route_change::{RouteChange, Target};
use super::print_selection;
use crate::bridge::stores;
use crate::dead_letters::{Filter, Selection, select};

/// The arguments.
pub(super) struct Discard {
    pub filter: Filter,
}

impl RouteChange for Discard {
    type Preview = Selection;

    async fn preview(&self, target: &Target) -> Result<Option<Selection>> {
        let store = stores::dead_letters(&target.config, target.sink()?);
        let selection = select(&store.open_letters().await?, &self.filter, u32::MAX);
        if selection.is_empty() {
            println!("no open dead letter matches");
            return Ok(None);
        }
        print_selection(&selection);
        Ok(Some(selection))
    }

    async fn apply(&self, target: &Target, selection: Selection) -> Result<()> {
        let store = stores::dead_letters(&target.config, target.sink()?);
        stores::create_redrives_topic(&target.config, &store).await?;
        let discarded = store.discard(&selection, &mut |_| {}).await?;
        println!("discarded {discarded} letters; released {} keys", selection.keys().count());
        Ok(())
    }
}
