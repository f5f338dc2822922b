//! Numbers of `linux/netfilter/nf_tables.h` and `linux/netfilter/nfnetlink.h` that libc lacks. One module per kernel enum.

macro_rules! numbers {
    ($($(#[$doc:meta])* $module:ident { $($name:ident = $value:literal),* $(,)? })*) => {
        $($(#[$doc])* pub(crate) mod $module { $(pub(crate) const $name: u16 = $value;)* })*
    };
}

numbers! {
    /// NFTA_LIST_*
    list { ELEM = 1 }
    /// NFTA_HOOK_*
    hook { NUMBER = 1, PRIORITY = 2, DEVICE = 3 }
    /// NFTA_TABLE_*
    table { NAME = 1 }
    /// NFTA_CHAIN_*
    chain { TABLE = 1, NAME = 3, HOOK = 4, POLICY = 5, TYPE = 7 }
    /// NFTA_RULE_*
    rule { TABLE = 1, CHAIN = 2, HANDLE = 3, EXPRESSIONS = 4, USERDATA = 7 }
    /// NFTA_SET_*
    set {
        TABLE = 1, NAME = 2, FLAGS = 3, KEY_TYPE = 4, KEY_LEN = 5, DATA_TYPE = 6, DATA_LEN = 7, DESC = 9, ID = 10, TIMEOUT = 11, USERDATA = 13,
    }
    /// NFTA_SET_DESC_*
    desc { SIZE = 1, CONCAT = 2 }
    /// NFTA_SET_FIELD_*
    field { LEN = 1 }
    /// NFTA_SET_ELEM_LIST_*
    elements { TABLE = 1, SET = 2, ELEMENTS = 3, SET_ID = 4 }
    /// NFTA_SET_ELEM_*
    element { KEY = 1, DATA = 2, FLAGS = 3, EXPIRATION = 5, USERDATA = 6, KEY_END = 10 }
    /// NFTA_DATA_*
    data { VALUE = 1, VERDICT = 2 }
    /// NFTA_VERDICT_*
    verdict { CODE = 1, CHAIN = 2 }
    /// NFTA_EXPR_*
    expr { NAME = 1, DATA = 2 }
    /// NFTA_IMMEDIATE_*
    immediate { DREG = 1, DATA = 2 }
    /// NFTA_BITWISE_*
    bitwise { SREG = 1, DREG = 2, LEN = 3, MASK = 4, XOR = 5, OP = 6 }
    /// NFTA_CMP_*
    cmp { SREG = 1, OP = 2, DATA = 3 }
    /// NFTA_RANGE_*
    range { SREG = 1, OP = 2, FROM = 3, TO = 4 }
    /// NFTA_LOOKUP_*
    lookup { SET = 1, SREG = 2, DREG = 3, SET_ID = 4, FLAGS = 5 }
    /// NFTA_DYNSET_*
    dynset { SET_NAME = 1, SET_ID = 2, OP = 3, SREG_KEY = 4, TIMEOUT = 6 }
    /// NFTA_PAYLOAD_*
    payload { DREG = 1, BASE = 2, OFFSET = 3, LEN = 4, SREG = 5, CSUM_TYPE = 6, CSUM_OFFSET = 7, CSUM_FLAGS = 8 }
    /// NFTA_META_*
    meta { DREG = 1, KEY = 2, SREG = 3 }
    /// NFTA_CT_*
    ct { DREG = 1, KEY = 2, DIRECTION = 3, SREG = 4 }
    /// NFTA_COUNTER_*
    counter { BYTES = 1, PACKETS = 2 }
    /// NFTA_NAT_*
    nat { TYPE = 1, FAMILY = 2, ADDR_MIN = 3, ADDR_MAX = 4, PROTO_MIN = 5, PROTO_MAX = 6, FLAGS = 7 }
    /// NFTA_REDIR_*
    redir { PROTO_MIN = 1, PROTO_MAX = 2, FLAGS = 3 }
    /// NFTA_FWD_* and NFTA_DUP_*
    fwd { SREG_DEV = 1 }
    dup { SREG_DEV = 2 }
    /// NFTA_FIB_*
    fib { DREG = 1, RESULT = 2, FLAGS = 3 }
    /// NFTA_NG_*
    numgen { DREG = 1, MODULUS = 2, TYPE = 3 }
    /// NFTA_REJECT_*
    reject { TYPE = 1, CODE = 2 }
    /// NFTA_LIMIT_*
    limit { RATE = 1, UNIT = 2, BURST = 3, TYPE = 4, FLAGS = 5 }
}

/// NFT_SET_CONCAT: the key is a concatenation.
pub(crate) const SET_CONCAT: u32 = 0x80;
/// NFT_FIB_RESULT_OIF: the index of the way out.
pub(crate) const FIB_OIF: u32 = 1;
/// NFT_FIB_RESULT_ADDRTYPE: the kind of the address (RTN_*).
pub(crate) const FIB_ADDRTYPE: u32 = 3;
/// NFTA_FIB_F_SADDR: look up the source.
pub(crate) const FIB_SADDR: u32 = 1;
/// NFTA_FIB_F_DADDR: look up the destination.
pub(crate) const FIB_DADDR: u32 = 2;
/// NF_NAT_RANGE_MAP_IPS of `linux/netfilter/nf_nat.h`
pub(crate) const NAT_MAP_IPS: u32 = 1;
/// NF_NAT_RANGE_PROTO_SPECIFIED: the port is translated too.
pub(crate) const NAT_PROTO_SPECIFIED: u32 = 2;
/// NFT_PAYLOAD_L4CSUM_PSEUDOHDR: the transport checksum covers the field.
pub(crate) const CSUM_PSEUDO_HEADER: u32 = 1;
/// NFT_LIMIT_PKTS: counted in packets, not bytes.
pub(crate) const LIMIT_PACKETS: u32 = 0;
/// NFT_LIMIT_F_INV: matches above the rate, not below.
pub(crate) const LIMIT_OVER: u32 = 1;
/// NFPROTO_INET: both IP versions.
pub(crate) const NFPROTO_INET: u8 = 1;
/// NFPROTO_NETDEV: one device.
pub(crate) const NFPROTO_NETDEV: u8 = 5;
