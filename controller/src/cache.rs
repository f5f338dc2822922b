//! Whether a cache of watched objects is filled, for any number of passes that wait for it at once.

use std::fmt::Debug;
use std::hash::Hash;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use kube::runtime::reflector::{Lookup, Store};

/// Resolves to true once a cache holds every object, to false when nothing fills it any more.
pub(crate) type Filled = Shared<BoxFuture<'static, bool>>;

/// Waits for a cache. Of several tasks that wait in kube-runtime 5.0.0's own `Store::wait_until_ready`, only the last is woken.
pub(crate) fn filled<K>(cache: &Store<K>) -> Filled
where
    K: Lookup + Clone + Send + Sync + 'static,
    K::DynamicType: Debug + Eq + Hash + Clone + Send + Sync,
{
    let cache = cache.clone();
    async move { cache.wait_until_ready().await.is_ok() }.boxed().shared()
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use futures_util::stream::FuturesUnordered;
    use k8s_openapi::api::core::v1::Pod;
    use kube::runtime::{reflector, watcher};

    use super::*;

    // spec: CTRL-17
    #[tokio::test]
    async fn every_pass_that_waits_for_a_cache_goes_on_once_it_is_filled() {
        let (store, mut writer) = reflector::store::<Pod>();
        let filled = filled(&store);
        let mut passes: FuturesUnordered<_> = (0..3).map(|_| filled.clone()).collect();
        assert!(passes.next().now_or_never().is_none());
        writer.apply_watcher_event(&watcher::Event::Init);
        writer.apply_watcher_event(&watcher::Event::InitDone);
        let woken: Vec<_> = std::iter::from_fn(|| passes.next().now_or_never().flatten()).collect();
        assert_eq!(woken, [true, true, true]);
    }

    #[tokio::test]
    async fn a_cache_that_nothing_fills_is_reported() {
        let (store, writer) = reflector::store::<Pod>();
        let filled = filled(&store);
        drop(writer);
        assert!(!filled.await);
    }
}
