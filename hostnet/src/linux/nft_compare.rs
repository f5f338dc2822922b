//! nft tables compared with what they must be while the kernel lists them, without making facts of them.

use netlink_packet_core::NLM_F_DUMP;

use super::Linux;
use super::nft_dump::{Listed, read_chain};
use super::steps::Steps;
use crate::attributes::{attribute, text};
use crate::facts::Facts;
use crate::kernel::KernelError;
use crate::nft::canon::joined;
use crate::nft::check::{Expected, expected_sets};
use crate::nft::uapi::{chain, rule};
use crate::nft::{ChainFacts, SetFacts, Table};

impl<S: Steps> Linux<S> {
    /// Whether a table is as it must be. What cannot be expressed is not there either.
    pub(super) fn holds_table(&mut self, table: &Table, facts: &Facts) -> Result<bool, KernelError> {
        match self.compare_table(table, facts) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            compared => compared,
        }
    }

    fn compare_table(&mut self, table: &Table, facts: &Facts) -> Result<bool, KernelError> {
        let id = &table.id;
        let Ok(wanted) = expected_sets(table) else { return Ok(false) };
        let sets = self.read_sets(id)?;
        if !wanted.iter().all(|set| sets.iter().any(|found| same_set(set, found))) {
            return Ok(false);
        }
        let chains = self.list(id, libc::NFT_MSG_GETCHAIN, NLM_F_DUMP, &[(chain::TABLE, &id.name)], |bytes| {
            // The kernel lists the chains of all tables of the family.
            (attribute(bytes, chain::TABLE).map(text)? == id.name).then(|| read_chain(bytes, id.family))
        })?;
        let same_chain =
            |found: &ChainFacts| table.chains.iter().any(|chain| chain.name == found.name && chain.base == found.base);
        if chains.len() != table.chains.len() || !chains.iter().all(same_chain) {
            return Ok(false);
        }
        let mut expected = Expected::of(table, facts);
        let mut same = true;
        let contents = |name: &str, _| {
            let unnamed = sets.iter().find(|set| set.unnamed && set.facts.name == name);
            unnamed.map(|set| joined(&set.facts.elements))
        };
        self.list(id, libc::NFT_MSG_GETRULE, NLM_F_DUMP, &[(rule::TABLE, &id.name)], |bytes| {
            let chain = attribute(bytes, rule::CHAIN).unwrap_or_default();
            let body = attribute(bytes, rule::EXPRESSIONS).unwrap_or_default();
            same = same && expected.next_is(chain, body, &contents);
            None::<()>
        })?;
        Ok(same && expected.is_complete())
    }
}

fn same_set(wanted: &SetFacts, found: &Listed) -> bool {
    let facts = &found.facts;
    facts.name == wanted.name && (wanted.dynamic || facts.elements == wanted.elements)
}
