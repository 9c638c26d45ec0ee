//! The report for browsers: one file that needs no other.

use super::Report;

const PAGE: &str = include_str!("page.html");

/// Where the page expects the facts.
const MARK: &str = "/*REPORT*/null/*REPORT*/";

impl Report {
    /// The whole report as an HTML page.
    pub fn html(&self) -> String {
        // Inside a script, `</script>` would end it, whatever string it stands in.
        PAGE.replacen(MARK, &self.json().replace('<', "\\u003c"), 1)
    }
}
