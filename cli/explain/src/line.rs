//! What the lines of an nft rule's body say, as [`RuleFacts`](hostnet::nft::RuleFacts) has them.

use std::net::IpAddr;

use terms::IfName;

/// Comparisons of a family or a protocol have no more.
const FEWEST_BYTES: usize = 1;

/// The bytes of `immediate`'s data: struct nft_data with NFTA_VERDICT_CODE, then NFTA_VERDICT_CHAIN.
fn verdict_bytes(line: &str, from: usize, to: usize) -> Option<Vec<u8>> {
    let hex = line.strip_prefix("immediate ")?.split(' ').find_map(|word| word.strip_prefix("2="))?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok();
    (from..to).map(byte).collect()
}

/// Where the chain's attribute stands in it.
const CHAIN_AT: usize = 12;

/// NF_* or NFT_* of an `immediate` into the verdict register.
pub(super) fn verdict_code(line: &str) -> Option<i32> {
    const CODE_AT: usize = 8;
    // NFTA_DATA_VERDICT; what is loaded into another register is NFTA_DATA_VALUE.
    const KIND_AT: usize = 2;
    const VERDICT: [u8; 1] = [2];
    let is_verdict = verdict_bytes(line, KIND_AT, KIND_AT + 1)? == VERDICT;
    let code = verdict_bytes(line, CODE_AT, CHAIN_AT).filter(|_| is_verdict)?;
    code.first_chunk().copied().map(i32::from_be_bytes)
}

/// The chain that a jump or a goto leads to.
pub(super) fn verdict_target(line: &str) -> Option<String> {
    let length = verdict_bytes(line, CHAIN_AT, CHAIN_AT + 2)?;
    let length = usize::from(u16::from_ne_bytes(*length.first_chunk()?));
    let name = verdict_bytes(line, CHAIN_AT + 4, CHAIN_AT + length)?;
    Some(String::from_utf8_lossy(name.split(|byte| *byte == 0).next()?).into_owned())
}

/// iptables' `-m comment`, by its name in NFTA_MATCH_NAME.
pub(super) fn is_comment(line: &str) -> bool {
    line.starts_with("match 1=636f6d6d656e74")
}

/// Whether it compares something with a link's name, or with what that begins with (`veth*`): such a name has no end.
pub(super) fn is_link(line: &str, link: &IfName) -> bool {
    let name = link.as_str().as_bytes();
    let is_it = |value: Vec<u8>| match value.iter().position(|byte| *byte == 0) {
        Some(end) => value.get(..end) == Some(name),
        None => value.len() > FEWEST_BYTES && name.starts_with(&value),
    };
    line.starts_with("cmp ") && datum(line, "3=").is_some_and(is_it)
}

/// The mask of the `bitwise` that stands before a comparison.
#[derive(Debug, Default)]
pub(super) struct Masked(Option<Vec<u8>>);

impl Masked {
    /// Keeps the mask of a `bitwise` for the next comparison.
    pub(super) fn load(&mut self, line: &str) {
        if line.starts_with("bitwise ") {
            // NFTA_BITWISE_MASK.
            self.0 = datum(line, "4=");
        }
    }

    /// Whether a line demands the address, a network that it is in, or the link.
    pub(super) fn compares(&mut self, line: &str, address: IpAddr, link: Option<&IfName>) -> bool {
        if !line.starts_with("cmp ") {
            return false;
        }
        let address = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mask = self.0.take();
        // NFTA_CMP_DATA; the operation is absent where it is NFT_CMP_EQ.
        if line.contains(" 2=") {
            return false;
        }
        let Some(value) = datum(line, "3=").filter(|value| value.len() > FEWEST_BYTES) else { return false };
        let masked: Vec<_> = match mask {
            Some(mask) => address.iter().zip(mask).map(|(byte, mask)| byte & mask).collect(),
            None => address,
        };
        masked.get(..value.len()) == Some(&value) || link.is_some_and(|link| is_link(line, link))
    }
}

/// The bytes of an attribute that holds NFTA_DATA_VALUE: behind that attribute's header, as long as it says.
pub(super) fn datum(line: &str, key: &str) -> Option<Vec<u8>> {
    let hex = line.split(' ').find_map(|word| word.strip_prefix(key))?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok();
    let length = usize::from(u16::from_ne_bytes([byte(0)?, byte(1)?]));
    (4..length).map(byte).collect()
}
