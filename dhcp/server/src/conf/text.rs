//! Text to values, and errors to one line with the path.

use serde_json::Value;

/// The one document of the text.
pub(super) fn value(text: &str) -> Result<Value, String> {
    let budget = serde_saphyr::budget! { max_depth: 32, max_nodes: 200_000, max_anchors: 1_000 };
    let options = serde_saphyr::options! {
        budget: budget,
        leading_zero_numbers_as_strings: true,
        reject_unsupported_tags: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        // The place, without the excerpt of the text.
        let told = error.without_snippet().to_string();
        told.lines().next().unwrap_or_default().to_owned()
    })
}

/// The path and what is wrong there.
pub(super) fn at(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    match error.path().to_string().as_str() {
        "." => error.inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    }
}
