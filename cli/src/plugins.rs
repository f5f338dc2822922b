//! Where CNI plugins are looked for.

use runner::launcher::own_folder;
use runner::network::PluginFolders;
use runner::store::Store;

/// Where plugins are, by this command's environment.
pub(crate) fn plugin_folders(store: &Store) -> PluginFolders {
    let cni_path = std::env::var("CNI_PATH").ok();
    PluginFolders::new(&store.layout().plugin_links(), &own_folder(), cni_path.as_deref())
}
