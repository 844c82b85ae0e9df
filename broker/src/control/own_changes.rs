//! What this process changed itself in the metadata store, until the view of it, which may lag, has come as far: what the
//! view says of a key before is older than what is known.

use millrace_storage::meta::Revision;
use std::collections::BTreeMap;

/// When keys were last changed here. Empty again once the view has shown all of it.
#[derive(Default)]
pub(super) struct OwnChanges(BTreeMap<String, Revision>);

impl OwnChanges {
    /// A change of one's own was committed.
    pub(super) fn made(&mut self, key: &str, at: Revision) {
        self.0.insert(key.to_owned(), at);
    }

    /// Whether a view that has come to `through` shows one's own change of a key, or there was none.
    pub(super) fn are_shown(&mut self, key: &str, through: Revision) -> bool {
        let shown = self.0.get(key).is_none_or(|at| through >= *at);
        if shown {
            self.0.remove(key);
        }
        shown
    }

    /// What the view says of a key counts from now on.
    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_counts_once_it_has_come_to_the_last_change_of_ones_own() {
        let mut own = OwnChanges::default();
        assert!(own.are_shown("a", Revision(1)), "nothing was changed here");
        own.made("a", Revision(5));
        own.made("a", Revision(7));
        assert!(!own.are_shown("a", Revision(6)));
        assert!(own.are_shown("b", Revision(6)));
        assert!(own.are_shown("a", Revision(7)));
        assert!(own.are_shown("a", Revision(6)), "it was shown before");
    }
}
