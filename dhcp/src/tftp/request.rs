//! Packets of TFTP: requests are read, data, errors and acknowledgements of options are written.

use crate::bytes::Bytes;

/// Opcodes (RFC 1350 §5, RFC 2347).
pub(crate) const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
pub(crate) const ACK: u16 = 4;
pub(crate) const ERROR: u16 = 5;
const OPTIONS: u16 = 6;

/// Longest file name that is looked for.
const MOST_NAME_BYTES: usize = 255;

/// Codes of errors (RFC 1350 appendix, RFC 2347).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum ErrorCode {
    /// See the message.
    Undefined = 0,
    /// No such file.
    NotFound = 1,
    /// The file may not be read, or files may not be written.
    Access = 2,
    /// The server has too many transfers.
    Full = 3,
    /// The packet is not understood.
    Illegal = 4,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal with its reason.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut packet = [ERROR.to_be_bytes(), (self.code as u16).to_be_bytes()].concat();
        packet.extend(self.message.bytes().filter(|byte| *byte != 0));
        packet.push(0);
        packet
    }
}

/// A client's request to read a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The file's name as the client writes it.
    pub file: String,
    /// Bytes of a block that the client wants.
    pub(crate) block_bytes: Option<u16>,
    /// Seconds after which to send again.
    pub(crate) timeout_seconds: Option<u8>,
    /// Whether it wants to know the file's size.
    pub(crate) wants_size: bool,
    /// Blocks to send before waiting for an acknowledgement.
    pub(crate) window: Option<u16>,
}

impl Request {
    /// Reads a request. Options that are unknown or out of their range are ignored, as RFC 2347 asks.
    ///
    /// # Errors
    /// The answer to what is no request to read a file in octets.
    pub fn parse(packet: &[u8]) -> Result<Self, Refusal> {
        let illegal = |message: &str| Refusal::new(ErrorCode::Illegal, message);
        let mut bytes = Bytes::new(packet);
        match bytes.u16() {
            Some(READ) => {}
            Some(WRITE) => return Err(Refusal::new(ErrorCode::Access, "files cannot be written")),
            _ => return Err(illegal("not a read request")),
        }
        let mut words = bytes.rest().split(|byte| *byte == 0);
        let file = words.next().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
        if file.is_empty() || file.len() > MOST_NAME_BYTES || file.chars().any(char::is_control) {
            return Err(illegal("the file name is empty, too long or not printable"));
        }
        let mode = words.next().unwrap_or_default();
        if !mode.eq_ignore_ascii_case(b"octet") {
            return Err(illegal("only mode octet is served (binary)"));
        }
        let mut request = Self { file: file.to_owned(), ..Self::default() };
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            request.read_option(name, value);
        }
        Ok(request)
    }

    fn read_option(&mut self, name: &[u8], value: &[u8]) {
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u16>().ok());
        let Some(number) = number else { return };
        match name.to_ascii_lowercase().as_slice() {
            b"blksize" if (8..=65_464).contains(&number) => self.block_bytes = Some(number),
            b"timeout" => self.timeout_seconds = u8::try_from(number).ok().filter(|seconds| *seconds > 0),
            b"tsize" => self.wants_size = true,
            b"windowsize" if number > 0 => self.window = Some(number),
            _ => {}
        }
    }
}

/// The packet of a block.
#[must_use]
pub fn data(number: u16, content: &[u8]) -> Vec<u8> {
    [&DATA.to_be_bytes()[..], &number.to_be_bytes(), content].concat()
}

/// The packet that acknowledges options.
pub(crate) fn options(accepted: &[(&str, String)]) -> Vec<u8> {
    let mut packet = OPTIONS.to_be_bytes().to_vec();
    for (name, value) in accepted {
        packet.extend(name.bytes().chain([0]).chain(value.bytes()).chain([0]));
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: BOOT-8
    #[test]
    fn a_read_request_is_read_with_its_options() {
        let packet = b"\0\x01pxelinux.0\0OCTET\0BLKSIZE\x001432\0tsize\x000\0windowsize\x0016\0timeout\x003\0x\x00y\0";
        let read = Request::parse(packet).unwrap();
        let expected = Request {
            file: "pxelinux.0".to_owned(),
            block_bytes: Some(1432),
            timeout_seconds: Some(3),
            wants_size: true,
            window: Some(16),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn options_out_of_their_range_are_ignored() {
        let packet = b"\0\x01f\0octet\0blksize\x007\0timeout\x000\0windowsize\x000\0timeout\x00256\0blksize\0";
        assert_eq!(Request::parse(packet).unwrap(), Request { file: "f".to_owned(), ..Request::default() });
    }

    #[test]
    fn what_is_no_read_request_in_octets_is_refused() {
        let code = |packet: &[u8]| Request::parse(packet).unwrap_err().code;
        assert_eq!(code(b"\0\x02f\0octet\0"), ErrorCode::Access);
        let illegal: [&[u8]; 7] =
            [b"", b"\0", b"\0\x01", b"\0\x01f\0netascii\0", b"\0\x01\0octet\0", b"\0\x04\0\0", b"\0\x01\xff\0octet\0"];
        illegal.into_iter().for_each(|packet| assert_eq!(code(packet), ErrorCode::Illegal, "{packet:?}"));
    }

    #[test]
    fn an_error_packet_has_code_and_text() {
        assert_eq!(Refusal::new(ErrorCode::NotFound, "no").packet(), b"\0\x05\0\x01no\0");
    }
}
