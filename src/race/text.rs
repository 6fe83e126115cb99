//! Short text held in place, cut to fit.

use heapless::String;

/// `text` as far as it fits into `N` bytes, whole characters only.
pub(super) fn cut<const N: usize>(text: &str) -> String<N> {
    let mut out = String::new();
    for c in text.trim().chars() {
        if out.push(c).is_err() {
            break;
        }
    }
    out
}

/// Replaces `field` where the feed says something.
pub(super) fn set<const N: usize>(field: &mut String<N>, text: Option<&str>) {
    if let Some(text) = text.map(str::trim).filter(|t| !t.is_empty()) {
        *field = cut(text);
    }
}
