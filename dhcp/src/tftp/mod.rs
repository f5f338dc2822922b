//! TFTP for reading (RFC 1350) with the options blksize, timeout, tsize and windowsize (RFC 2347, 2348, 2349, 7440).
//!
//! *Flow.* [`Request::parse`] reads what a client asks for; with the file's size it becomes a [`Transfer`], which turns the
//! client's datagrams and deadlines into [`Step`]s: packets, and blocks of the file to read and send.
//!
//! *Guarantees.* No clock, socket or file. Memory does not depend on the file's size. A client that does not answer is given up.

mod request;
mod transfer;

pub use request::{ErrorCode, Refusal, Request, data};
pub use transfer::{End, Step, Transfer};
