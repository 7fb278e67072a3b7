//! `nowbridge explain`: prints the explanation of an error.

use anyhow::{Result, bail};

use crate::error_catalog::{self, ErrorPage};

/// Prints the explanation of an error number or code, a list of those that contain a search term, or a list of all.
///
/// # Errors
/// No error matches.
pub fn explain(name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        for page in error_catalog::pages() {
            println!("{}", line(page));
        }
        println!("\nRun `nowbridge explain SN-006`, or with any of the codes, to print the explanation.");
        return Ok(());
    };
    if let Some(page) = error_catalog::find(name) {
        print!("{page}");
        return Ok(());
    }
    let matches = error_catalog::search(name);
    if name.trim().chars().count() < 3 || matches.is_empty() {
        bail!("unknown error {name:?}; `nowbridge explain` lists all errors");
    }
    println!("There is no error {name:?}. These explanations contain the term:\n");
    for page in matches {
        println!("{}", line(page));
    }
    Ok(())
}

fn line(page: &ErrorPage) -> String {
    format!("{}  {:<62} {}", page.error_number(), page.title, page.codes.join(", "))
}
