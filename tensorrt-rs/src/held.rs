//! How an object holds its parent.

use std::ops::Deref;
use std::sync::Arc;

/// A parent that is borrowed, or shared. Made by `into()` from either.
///
/// Borrowing (`&logger`) lets the compiler check that the parent outlives the child. Sharing (`Arc`) keeps the
/// parent alive instead, for children that are stored beside it or moved about: everything made from shared
/// parents is `'static`.
#[derive(Debug)]
pub enum Held<'a, T> {
    /// Outlives this, says the compiler.
    Borrowed(&'a T),
    /// Kept alive by this.
    Shared(Arc<T>),
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(held) => held,
            Self::Shared(held) => held,
        }
    }
}

impl<T> Clone for Held<'_, T> {
    fn clone(&self) -> Self {
        match self {
            Self::Borrowed(held) => Self::Borrowed(held),
            Self::Shared(held) => Self::Shared(Arc::clone(held)),
        }
    }
}

impl<'a, T> From<&'a T> for Held<'a, T> {
    fn from(held: &'a T) -> Self {
        Self::Borrowed(held)
    }
}

impl<T> From<Arc<T>> for Held<'_, T> {
    fn from(held: Arc<T>) -> Self {
        Self::Shared(held)
    }
}
