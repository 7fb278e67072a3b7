//! `nowbridge explain`: the page of a failure.

use anyhow::{Result, bail};

use crate::error_catalog::{self, ErrorPage};

/// Prints the page of a number or code, the pages that speak of a word, or the list of all.
///
/// # Errors
/// There is no such page.
pub fn explain(name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        for page in error_catalog::pages() {
            println!("{}", line(page));
        }
        println!("\n`nowbridge explain SN-006`, or any of the codes, shows the page.");
        return Ok(());
    };
    if let Some(page) = error_catalog::find(name) {
        print!("{page}");
        return Ok(());
    }
    let near = error_catalog::search(name);
    if name.trim().chars().count() < 3 || near.is_empty() {
        bail!("there is no page {name:?}; `nowbridge explain` lists all");
    }
    println!("No page is called {name:?}; these speak of it:\n");
    for page in near {
        println!("{}", line(page));
    }
    Ok(())
}

fn line(page: &ErrorPage) -> String {
    format!("{}  {:<62} {}", page.name(), page.title, page.codes.join(", "))
}
