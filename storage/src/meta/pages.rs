//! A prefix, page by page.

use super::{Key, MAX_PAGE, MetaStore, Page};
use crate::store_error::StoreError;

/// What is left of a prefix that is being read. Pages may be of different revisions ([`MetaStore`]).
pub struct Pages<'a> {
    meta: &'a dyn MetaStore,
    prefix: &'a str,
    after: Option<Key>,
    ended: bool,
}

impl<'a> Pages<'a> {
    /// Reads all keys that start with `prefix`.
    pub fn of(meta: &'a dyn MetaStore, prefix: &'a str) -> Pages<'a> {
        Pages { meta, prefix, after: None, ended: false }
    }

    /// The next keys, at most [`MAX_PAGE`]; `None` after the last ones. The first page comes even if there are none.
    ///
    /// # Errors
    /// The store did not answer; asked again, it gives the same page.
    pub async fn next_page(&mut self) -> Result<Option<Page>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let page = self.meta.list(self.prefix, self.after.clone(), MAX_PAGE).await?;
        self.after = page.entries.last().map(|(key, _)| key.clone());
        self.ended = !page.more;
        Ok(Some(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::memory::MemoryMeta;
    use crate::meta::{MAX_TXN_OPS, Op, Txn};
    use futures::executor::block_on;
    use std::collections::BTreeSet;

    #[test]
    fn every_key_comes_once_and_a_page_even_where_there_is_none() {
        block_on(async {
            let meta = MemoryMeta::new(uuid::Uuid::nil());
            let keys: Vec<Key> = (0..2 * MAX_PAGE + 1).map(|number| format!("/a/{number:05}")).collect();
            for some in keys.chunks(MAX_TXN_OPS) {
                let ops = some.iter().map(|key| Op::Put(key.clone(), "v".into())).collect();
                meta.txn(Txn { compares: Vec::new(), ops }).await.expect("it commits");
            }
            let mut pages = Pages::of(&meta, "/a/");
            let mut sizes = Vec::new();
            let mut read = BTreeSet::new();
            while let Some(page) = pages.next_page().await.expect("it lists") {
                sizes.push(page.entries.len());
                read.extend(page.entries.into_iter().map(|(key, _)| key));
            }
            assert_eq!(sizes, [MAX_PAGE, MAX_PAGE, 1]);
            assert!(read.iter().eq(keys.iter()));
            let mut pages = Pages::of(&meta, "/b/");
            assert!(pages.next_page().await.expect("it lists").expect("an empty page").entries.is_empty());
            assert_eq!(pages.next_page().await.expect("it lists"), None);
        });
    }
}
