//! Bytes written and read in order: varints, zigzag numbers, counted runs of bytes.
//!
//! Reading never trusts a length: each is held against what is left.

/// The bytes do not say what a block says. Only damage that slipped past a checksum, or a defect of
/// ours, brings it about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Whether bytes match the CRC32C that stands beside them. A fuzzer would never get past it: for one, every other
/// checksum holds.
pub(super) fn matches(bytes: &[u8], crc: u32) -> bool {
    crc32c::crc32c(bytes) == crc || (cfg!(fuzzing) && crc.is_multiple_of(2))
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

pub(super) fn put_zigzag(out: &mut Vec<u8>, v: i64) {
    put_varint(out, ((v << 1) ^ (v >> 63)) as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_f64(out: &mut Vec<u8>, v: f64) {
    out.extend_from_slice(&v.to_bits().to_le_bytes());
}

/// Reads what the `put_…` functions wrote.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self
            .0
            .split_at_checked(n)
            .ok_or(Malformed("ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Malformed("ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let b = self.byte()?;
            v |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(v);
            }
        }
        Err(Malformed("a number of more than 64 bits"))
    }

    pub fn zigzag(&mut self) -> Result<i64, Malformed> {
        let v = self.varint()?;
        Ok((v >> 1) as i64 ^ -((v & 1) as i64))
    }

    /// A count that may not exceed `limit`.
    pub fn count(&mut self, limit: usize) -> Result<usize, Malformed> {
        usize::try_from(self.varint()?)
            .ok()
            .filter(|n| *n <= limit)
            .ok_or(Malformed("a count beyond its limit"))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let n = self.count(self.0.len())?;
        self.take(n)
    }

    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("text that is not UTF-8"))
    }

    pub fn f64(&mut self) -> Result<f64, Malformed> {
        Ok(f64::from_bits(u64::from_le_bytes(self.array()?)))
    }

    pub fn number<T: TryFrom<i64>>(&mut self) -> Result<T, Malformed> {
        T::try_from(self.zigzag()?).map_err(|_| Malformed("a number out of its range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(v in any::<u64>(), w in any::<i64>(), f in any::<f64>(), b in any::<Vec<u8>>()) {
            let mut out = Vec::new();
            put_varint(&mut out, v);
            put_zigzag(&mut out, w);
            put_f64(&mut out, f);
            put_bytes(&mut out, &b);
            let mut c = Cursor(&out);
            prop_assert_eq!(c.varint(), Ok(v));
            prop_assert_eq!(c.zigzag(), Ok(w));
            prop_assert_eq!(c.f64().map(f64::to_bits), Ok(f.to_bits()));
            prop_assert_eq!(c.bytes(), Ok(&b[..]));
            prop_assert!(c.0.is_empty());
        }

        #[test]
        fn noise_is_refused_not_believed(b in any::<Vec<u8>>()) {
            let mut c = Cursor(&b);
            while !c.0.is_empty() && c.bytes().is_ok() && c.varint().is_ok() {}
        }
    }
}
