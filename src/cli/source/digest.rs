//! SHA-256 sums: parsing, printing, and computing while bytes pass by.

use std::fmt;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

/// A SHA-256 sum; prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("sha256 = \"{text}\": expected 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }

    /// Copies `from` to `to` and returns the sum of what passed; `on_bytes` learns of each piece.
    pub fn copy(
        from: &mut impl Read,
        to: &mut impl Write,
        mut on_bytes: impl FnMut(u64),
    ) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(Self(hash.finalize().into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hash.update(&buffer[..count]);
            to.write_all(&buffer[..count])?;
            on_bytes(count as u64);
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_read_print_and_compute() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let computed = Digest::copy(&mut io::empty(), &mut io::sink(), |_| {}).unwrap();
        assert_eq!(computed.to_string(), empty);
        assert_eq!(Digest::parse(&empty.to_uppercase()).unwrap(), computed);
        for bad in [
            "",
            "e3",
            &empty[1..],
            &empty.replace('e', "g"),
            &"+1".repeat(32),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }
}
