//! Old checkpoints that the store did not delete at once.

use super::world::{Life, World, entry, partition};
use crate::lane::LaneConfig;
use crate::object::{ListedObject, MatchOutcome, Object, ObjectStore, Version};
use crate::recovery::Stores;
use crate::store_error::{FailureKind, StoreError};
use crate::wal::{PutOutcome, StoreFuture, Suffix};
use bytes::Bytes;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Plain objects of which none can be deleted while `refuses`.
struct Refusing {
    inner: Rc<dyn ObjectStore>,
    refuses: Rc<Cell<bool>>,
}

impl ObjectStore for Refusing {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.inner.put_if_absent(key, slices)
    }
    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        self.inner.put_if_match(key, bytes, version)
    }
    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        self.inner.get(key)
    }
    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.inner.get_range(key, range)
    }
    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        self.inner.get_suffix(key, length)
    }
    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        self.inner.list(prefix)
    }
    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        self.inner.list_directories(prefix)
    }
    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        if self.refuses.get() {
            return Box::pin(async { Err(StoreError::not_done(FailureKind::Other, "not now")) });
        }
        self.inner.delete(keys)
    }
}

/// Checkpoints that are stored, without their chunks of references.
fn checkpoints(life: &mut Life) -> usize {
    let objects = life.stores.objects.clone();
    let listed = life.run(async move { objects.list("ckpt/").await }).expect("memory");
    listed.iter().filter(|object| !object.key.ends_with(".refs")).count()
}

#[test]
fn an_old_checkpoint_that_could_not_be_deleted_goes_with_the_next() {
    let refuses = Rc::new(Cell::new(false));
    let switch = refuses.clone();
    let world = World::new();
    let config = LaneConfig::default();
    let mut life = world.start_with(&config, &[&[0]], |_, _, stores| {
        let inner = stores.objects.clone();
        Stores { objects: Rc::new(Refusing { inner, refuses: switch }), ..stores }
    });
    life.lead(partition(0), 0);
    let mut written = 0;
    let mut checkpointed = |life: &mut Life| {
        life.seal(0, entry(partition(0), 1, written, 3, "abc"));
        written += 3;
        life.pass(config.checkpoint_every + Duration::from_secs(1));
        checkpoints(life)
    };
    assert_eq!(checkpointed(&mut life), 1);
    refuses.set(true);
    assert_eq!(checkpointed(&mut life), 2);
    assert_eq!(checkpointed(&mut life), 3);
    refuses.set(false);
    assert_eq!(checkpointed(&mut life), 1);
}
