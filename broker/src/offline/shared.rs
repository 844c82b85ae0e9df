//! The metadata that many processes share, looked at and written to while they run. Nothing of it is kept open by a lock:
//! every write is a transaction like theirs.

use super::OfflineError;
use crate::control::cluster::view::{View, WATCHED};
use crate::process::open::open_etcd;
use crate::settings::Settings;
use millrace_storage::meta::MetaStore;
use millrace_storage::meta::etcd::{EtcdAddress, EtcdMeta, LeaseAge};
use millrace_storage::meta::pages::Pages;
use millrace_storage::object::OpenError;
use millrace_storage::side::SideRuntime;
use std::rc::Rc;

/// An etcd that was opened.
pub(super) struct Shared {
    meta: EtcdMeta,
    _side: SideRuntime,
}

impl Shared {
    /// Opens the etcd that the settings name.
    pub(super) fn open(settings: &Settings) -> Result<Shared, OfflineError> {
        let Some(text) = settings.metadata.as_deref().filter(|text| EtcdAddress::is_one(text)) else {
            return Err(OpenError::new(
                "the metadata of one process alone are no cluster",
                "name the etcd of the cluster with --metadata etcd://HOST:PORT/NAMESPACE",
            )
            .into());
        };
        let side = SideRuntime::start()?;
        let meta = open_etcd(&EtcdAddress::parse(text)?, settings, &side, None)?;
        Ok(Shared { meta, _side: side })
    }

    pub(super) fn meta(&self) -> Rc<dyn MetaStore> {
        Rc::new(self.meta.clone())
    }

    /// The lease that a key is under.
    pub(super) async fn lease_age(&self, key: &str) -> Result<Option<LeaseAge>, OfflineError> {
        Ok(self.meta.lease_age(key).await?)
    }

    /// What the brokers see, read once.
    pub(super) async fn view(&self) -> Result<View, OfflineError> {
        read(&*self.meta()).await
    }
}

/// Reads what a view shows.
pub(super) async fn read(meta: &dyn MetaStore) -> Result<View, OfflineError> {
    let mut view = View::default();
    for prefix in WATCHED {
        view.begin_listing(prefix);
        let mut pages = Pages::of(meta, prefix);
        while let Some(page) = pages.next_page().await? {
            view.on_page(prefix, page.revision, page.entries).map_err(OfflineError::Record)?;
        }
        view.end_listing(prefix);
    }
    Ok(view)
}
