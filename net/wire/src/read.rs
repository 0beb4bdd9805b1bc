//! Reads fixed-width little-endian numbers and byte strings from a body, checking every length.

use crate::{KEY_BYTES_MAX, WireError};

const ENDS_EARLY: WireError = WireError::Malformed {
    what: "it ends before its last field",
};

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Reader { rest: body }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(*self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(*self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(*self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_le_bytes(*self.array()?))
    }

    /// Bytes that must be zero until a version gives them a meaning.
    pub(crate) fn reserved<const N: usize>(&mut self) -> Result<(), WireError> {
        if self.array::<N>()?.iter().any(|&byte| byte != 0) {
            return Err(WireError::Malformed {
                what: "reserved bytes are not zero",
            });
        }
        Ok(())
    }

    /// A key of a length that was read before.
    pub(crate) fn key(&mut self, length: u32) -> Result<&'a [u8], WireError> {
        check_key_length(length)?;
        self.bytes(length as usize)
    }

    /// A string of a length that was read before.
    pub(crate) fn text(&mut self, length: usize) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(length)?).map_err(|_| WireError::Malformed {
            what: "a text is not UTF-8",
        })
    }

    /// A count of items of at least `item_bytes_min` each, all of which are still to come: what it
    /// announces is there, so room may be made for it.
    pub(crate) fn count(&mut self, item_bytes_min: usize) -> Result<usize, WireError> {
        let count = self.u32()? as usize;
        self.check_count(count, item_bytes_min)?;
        Ok(count)
    }

    pub(crate) fn check_count(&self, count: usize, item_bytes_min: usize) -> Result<(), WireError> {
        if count.saturating_mul(item_bytes_min) > self.rest.len() {
            return Err(ENDS_EARLY);
        }
        Ok(())
    }

    /// Nothing may be left over.
    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Malformed {
                what: "bytes are left over after its last field",
            })
        }
    }
}

pub(crate) fn check_key_length(length: u32) -> Result<(), WireError> {
    match length {
        0 => Err(WireError::Malformed {
            what: "a key is empty",
        }),
        1..=KEY_BYTES_MAX => Ok(()),
        _ => Err(WireError::OverLimit {
            what: "a key",
            length: u64::from(length),
            limit: u64::from(KEY_BYTES_MAX),
        }),
    }
}
