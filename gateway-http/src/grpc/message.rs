//! Where the messages of a gRPC body begin and end (PROTOCOL-HTTP2.md, "Length-Prefixed-Message"), without keeping
//! any of it: a prefix of five bytes that may be cut anywhere, then as many bytes as it says.

/// Bytes before every message: one of flags, four of length.
pub const PREFIX_LEN: usize = 5;

/// A message that is larger than allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLarge;

/// One direction of a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Messages {
    /// Bytes of the message under way that have not come.
    left: u32,
    prefix: [u8; PREFIX_LEN],
    prefix_len: u8,
    count: u64,
}

impl Messages {
    /// The next bytes of the body. Costs the same for a message of a kilobyte and of a megabyte.
    /// `max`: bytes a message may have.
    #[inline]
    pub fn scan(&mut self, mut bytes: &[u8], max: u32) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let Some(len) = self.length(&mut bytes) else {
                    return Ok(());
                };
                if len > max {
                    return Err(TooLarge);
                }
                self.left = len;
            }
            let count = bytes.len().min(self.left as usize);
            self.left -= count as u32;
            bytes = &bytes[count..];
            self.count += u64::from(self.left == 0);
        }
        Ok(())
    }

    /// The length in the prefix at the front of `bytes`, once all of it is there.
    #[inline]
    fn length(&mut self, bytes: &mut &[u8]) -> Option<u32> {
        if let (0, Some(([_, len @ ..], rest))) = (self.prefix_len, bytes.split_first_chunk::<PREFIX_LEN>()) {
            *bytes = rest;
            return Some(u32::from_be_bytes(*len));
        }
        let have = usize::from(self.prefix_len);
        let count = (PREFIX_LEN - have).min(bytes.len());
        self.prefix[have..have + count].copy_from_slice(&bytes[..count]);
        *bytes = &bytes[count..];
        if have + count < PREFIX_LEN {
            self.prefix_len += count as u8;
            return None;
        }
        self.prefix_len = 0;
        let [_, len @ ..] = self.prefix;
        Some(u32::from_be_bytes(len))
    }

    /// Whole messages so far.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether nothing of a message is under way.
    pub const fn is_between(&self) -> bool {
        self.left == 0 && self.prefix_len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(lengths: &[usize]) -> Vec<u8> {
        let mut body = Vec::new();
        for len in lengths {
            body.push(0);
            body.extend_from_slice(&(*len as u32).to_be_bytes());
            body.extend(std::iter::repeat_n(0xff, *len));
        }
        body
    }

    proptest! {
        #[test]
        fn messages_are_counted_wherever_the_body_is_cut(
            lengths in prop::collection::vec(0..300_usize, 0..20),
            cuts in prop::collection::vec(1..40_usize, 1..10),
        ) {
            let body = body(&lengths);
            let mut messages = Messages::default();
            let (mut rest, mut cut) = (&body[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let count = (*cut.next().unwrap()).min(rest.len());
                messages.scan(&rest[..count], 300).unwrap();
                rest = &rest[count..];
            }
            prop_assert_eq!(messages.count(), lengths.len() as u64);
            prop_assert!(messages.is_between());
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_known_by_its_prefix() {
        let mut messages = Messages::default();
        assert_eq!(messages.scan(&body(&[10]), 10), Ok(()));
        assert_eq!(messages.scan(&[0, 0, 0], 10), Ok(()));
        assert!(!messages.is_between());
        assert_eq!(messages.scan(&[0, 11], 10), Err(TooLarge));
        assert_eq!(messages.count(), 1);
    }
}
