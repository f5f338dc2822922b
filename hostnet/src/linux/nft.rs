//! nft transactions sent to the kernel.

use crate::kernel::KernelError;
use crate::nft::Transaction;
use crate::nft::batch::{self, Written};
use crate::nft::encoding::NftError;

use super::Linux;
use super::steps::Bus;

impl Linux<'_> {
    /// Carries out a transaction: all of it or nothing.
    pub(super) fn commit(&mut self, transaction: &Transaction) -> Result<(), KernelError> {
        if transaction.commands.is_empty() {
            return Ok(());
        }
        let first = self.channel.next_sequence();
        let written = self.write(transaction, first, None)?;
        self.channel.skip_sequences(written.count);
        let refused = self.channel.request(Bus::Netfilter, &written.bytes, first, written.last)?;
        let Some(refused) = refused else { return Ok(()) };
        // Written again, now with the description of the message that was refused.
        let found = self.write(transaction, first, Some(refused.sequence))?.found;
        Err(explain(refused.error, found))
    }

    fn write(&mut self, transaction: &Transaction, first: u32, wanted: Option<u32>) -> Result<Written, KernelError> {
        let mut missing = None;
        let written = batch::write(transaction, first, wanted, &mut |link| {
            self.index(link).map_err(|error| {
                let text = NftError::Other(error.to_string());
                missing = Some(error);
                text
            })
        });
        written.map_err(|error| missing.take().unwrap_or_else(|| KernelError::Invalid(error.to_string())))
    }
}

/// Says which part of the transaction was refused, and what a kernel may lack.
fn explain(error: KernelError, place: Option<String>) -> KernelError {
    let KernelError::Refused { errno, meaning, said } = error else { return error };
    let place = place.unwrap_or_else(|| "the transaction as a whole".to_owned());
    let lacking = match errno {
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => {
            "; this kernel may lack nftables for that family or statement (CONFIG_NF_TABLES_INET, CONFIG_NF_TABLES_NETDEV)"
        }
        libc::ENOENT if place.starts_with("rule") => {
            "; it names what is not there, or this kernel lacks a statement of it (CONFIG_NFT_FWD_NETDEV for fwd, CONFIG_NFT_NAT for nat)"
        }
        _ => "",
    };
    KernelError::Refused { errno, meaning: format!("{place}: {meaning}{lacking}"), said }
}
