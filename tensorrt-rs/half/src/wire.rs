//! The wire format of protocol buffers: just enough to take an ONNX file apart and put it together again, with
//! every field that nobody asked for as it was.

use crate::Error;

/// A field of a message, as it stands in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    /// Its number in the message's definition.
    pub number: u64,
    /// Tag and value, to be copied.
    pub whole: &'a [u8],
    /// The value: the bytes of a string or message, or of a fixed-size number.
    pub bytes: &'a [u8],
    /// The value of a number of variable size.
    pub value: u64,
}

impl<'a> Field<'a> {
    pub fn text(&self) -> &'a str {
        std::str::from_utf8(self.bytes).unwrap_or_default()
    }

    /// Numbers, one to a field or many packed into one.
    pub fn numbers(&self) -> Result<Vec<u64>, Error> {
        if self.bytes.is_empty() {
            return Ok(vec![self.value]);
        }
        let (mut rest, mut numbers) = (self.bytes, Vec::new());
        while !rest.is_empty() {
            numbers.push(varint(&mut rest)?);
        }
        Ok(numbers)
    }
}

fn damaged() -> Error {
    Error {
        found: "bytes that are no ONNX file".to_owned(),
        allowed: "it must be an ONNX file, and all of it",
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or_else(damaged)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(damaged())
}

/// The fields of a message, in their order.
pub(super) fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, Error> {
    let (mut rest, mut fields) = (message, Vec::new());
    while !rest.is_empty() {
        let start = rest;
        let tag = varint(&mut rest)?;
        let (mut value, mut bytes) = (0, &rest[..0]);
        let length = match tag & 7 {
            0 => {
                value = varint(&mut rest)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).map_err(|_| damaged())?,
            5 => 4,
            _ => return Err(damaged()),
        };
        if length > 0 {
            (bytes, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
        }
        let whole = &start[..start.len() - rest.len()];
        fields.push(Field {
            number: tag >> 3,
            whole,
            bytes,
            value,
        });
    }
    Ok(fields)
}

/// A message, being written.
#[derive(Debug, Default)]
pub(super) struct Message(pub Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    pub fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    pub fn copy(&mut self, field: &Field<'_>) {
        self.0.extend(field.whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_apart_goes_together_again() {
        let mut message = Message::default();
        message.number(1, 300);
        message.bytes(2, b"lap");
        message.0.extend([3 << 3 | 5, 1, 2, 3, 4]);
        message.bytes(4, &[1, 0x80, 1]);
        let found = fields(&message.0).unwrap();
        assert_eq!(
            found.iter().map(|f| f.number).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        assert_eq!(
            (found[0].value, found[1].text(), found[2].bytes),
            (300, "lap", &[1, 2, 3, 4][..])
        );
        assert_eq!(found[0].numbers().unwrap(), [300]);
        assert_eq!(found[3].numbers().unwrap(), [1, 128]);
        let mut again = Message::default();
        found.iter().for_each(|f| again.copy(f));
        assert_eq!(again.0, message.0);
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let mut message = Message::default();
        message.bytes(2, b"a lap of Bahrain");
        for cut in 1..message.0.len() {
            assert!(fields(&message.0[..cut]).is_err(), "{cut}");
        }
        assert!(fields(&[0xff; 20]).is_err());
        assert!(fields(&[7]).is_err());
    }
}
