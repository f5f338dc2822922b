//! nft tables compared with what they must be while the kernel lists them, without making facts of them.

use netlink_packet_core::NLM_F_DUMP;

use super::Linux;
use super::nft_dump::{Listed, read_chain};
use crate::attributes::{attribute, is_text};
use crate::facts::Facts;
use crate::kernel::KernelError;
use crate::nft::check::{Expected, encoded_elements};
use crate::nft::uapi::{chain, rule};
use crate::nft::{ChainFacts, Set, Table};

impl Linux<'_> {
    /// Whether a table is as it must be. What cannot be expressed is not there either.
    pub(super) fn holds_table(&mut self, table: &Table, facts: &Facts) -> Result<bool, KernelError> {
        match self.compare_table(table, facts) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            compared => compared,
        }
    }

    fn compare_table(&mut self, table: &Table, facts: &Facts) -> Result<bool, KernelError> {
        let id = &table.id;
        let sets = self.read_sets(id)?;
        if !table.sets.iter().all(|set| sets.iter().any(|found| same_set(set, found))) {
            return Ok(false);
        }
        let chains = self.list(id, libc::NFT_MSG_GETCHAIN, NLM_F_DUMP, &[(chain::TABLE, &id.name)], |bytes| {
            // The kernel lists the chains of all tables of the family.
            is_text(bytes, chain::TABLE, &id.name).then(|| read_chain(bytes, id.family))
        })?;
        let same_chain =
            |found: &ChainFacts| table.chains.iter().any(|chain| chain.name == found.name && chain.base == found.base);
        if chains.len() != table.chains.len() || !chains.iter().all(same_chain) {
            return Ok(false);
        }
        let mut expected = Expected::of(table, facts);
        let mut same = true;
        let unnamed = |name: &str, _| {
            let unnamed = sets.iter().find(|set| set.unnamed && set.name == name);
            unnamed.map(|set| set.elements.as_slice())
        };
        self.list(id, libc::NFT_MSG_GETRULE, NLM_F_DUMP, &[(rule::TABLE, &id.name)], |bytes| {
            let chain = attribute(bytes, rule::CHAIN).unwrap_or_default();
            let expressions = attribute(bytes, rule::EXPRESSIONS).unwrap_or_default();
            same = same && expected.next_is(chain, expressions, &unnamed);
            None::<()>
        })?;
        Ok(same && expected.is_complete())
    }
}

fn same_set(wanted: &Set, found: &Listed) -> bool {
    found.name == wanted.name
        && (wanted.flags.dynamic || encoded_elements(wanted).is_ok_and(|elements| elements == found.elements))
}
