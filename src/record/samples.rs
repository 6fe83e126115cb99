//! One channel of a frame: an RFC 8746 typed array, read where it lies.

use serde::{Serialize, Serializer};

/// What one sample is. The numbers are RFC 8746's tags for little-endian typed arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Element {
    U8 = 64,
    U16 = 69,
    U32 = 70,
    U64 = 71,
    I8 = 72,
    I16 = 77,
    I32 = 78,
    I64 = 79,
    F16 = 84,
    F32 = 85,
    F64 = 86,
}

impl Element {
    /// The element of that tag; `None` for big-endian, clamped and 128-bit arrays, which no car
    /// sends.
    pub const fn from_tag(tag: u64) -> Option<Element> {
        Some(match tag {
            64 => Element::U8,
            69 => Element::U16,
            70 => Element::U32,
            71 => Element::U64,
            72 => Element::I8,
            77 => Element::I16,
            78 => Element::I32,
            79 => Element::I64,
            84 => Element::F16,
            85 => Element::F32,
            86 => Element::F64,
            _ => return None,
        })
    }

    /// Bytes of one sample.
    pub const fn width(self) -> usize {
        match self {
            Element::U8 | Element::I8 => 1,
            Element::U16 | Element::I16 | Element::F16 => 2,
            Element::U32 | Element::I32 | Element::F32 => 4,
            Element::U64 | Element::I64 | Element::F64 => 8,
        }
    }
}

/// The samples of one channel, borrowed from the frame's payload.
///
/// **Invariant:** the bytes are a whole number of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Samples<'a> {
    element: Element,
    bytes: &'a [u8],
}

impl<'a> Samples<'a> {
    /// Views `bytes` as little-endian elements; `None` unless they are a whole number of them.
    pub fn new(element: Element, bytes: &'a [u8]) -> Option<Samples<'a>> {
        (bytes.len().is_multiple_of(element.width())).then_some(Samples { element, bytes })
    }

    /// What one sample is.
    pub const fn element(self) -> Element {
        self.element
    }

    /// The samples as they lie in the payload, little-endian.
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// How many samples there are.
    pub const fn len(self) -> usize {
        self.bytes.len() / self.element.width()
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Sample `i` as a float; 64-bit integers beyond 2⁵³ are rounded.
    pub fn get(self, i: usize) -> Option<f64> {
        let width = self.element.width();
        let b = self.bytes.get(i.checked_mul(width)?..)?.get(..width)?;
        Some(match (self.element, b) {
            (Element::U8, &[a]) => f64::from(a),
            (Element::I8, &[a]) => f64::from(a as i8),
            (Element::U16, &[a, b]) => f64::from(u16::from_le_bytes([a, b])),
            (Element::I16, &[a, b]) => f64::from(i16::from_le_bytes([a, b])),
            (Element::F16, &[a, b]) => half(u16::from_le_bytes([a, b])),
            (Element::U32, &[a, b, c, d]) => f64::from(u32::from_le_bytes([a, b, c, d])),
            (Element::I32, &[a, b, c, d]) => f64::from(i32::from_le_bytes([a, b, c, d])),
            (Element::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
            (element, b) => {
                let b: [u8; 8] = b.try_into().ok()?;
                match element {
                    Element::U64 => u64::from_le_bytes(b) as f64,
                    Element::I64 => i64::from_le_bytes(b) as f64,
                    _ => f64::from_le_bytes(b),
                }
            }
        })
    }

    /// Every sample as a float, first to last.
    pub fn iter(self) -> impl ExactSizeIterator<Item = f64> + 'a {
        // The invariant makes each chunk whole, so none is ever replaced by the NaN.
        (0..self.len()).map(move |i| self.get(i).unwrap_or(f64::NAN))
    }
}

/// IEEE 754 half precision: 1 sign, 5 exponent, 10 fraction bits.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f64::from(bits & 0x3ff);
    match (bits >> 10) & 0x1f {
        0 => sign * fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        e => sign * (1.0 + fraction / 1024.0) * 2f64.powi(i32::from(e) - 15),
    }
}

/// An array of numbers: whole numbers whole and exact, floats as floats (`null` if not finite, in
/// JSON).
impl Serialize for Samples<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        macro_rules! exact {
            ($ty:ty) => {
                s.collect_seq(self.bytes.chunks_exact(size_of::<$ty>()).map(|b| {
                    let mut le = [0; size_of::<$ty>()];
                    le.copy_from_slice(b);
                    <$ty>::from_le_bytes(le)
                }))
            };
        }
        match self.element {
            Element::U8 => exact!(u8),
            Element::U16 => exact!(u16),
            Element::U32 => exact!(u32),
            Element::U64 => exact!(u64),
            Element::I8 => exact!(i8),
            Element::I16 => exact!(i16),
            Element::I32 => exact!(i32),
            Element::I64 => exact!(i64),
            Element::F16 => s.collect_seq(self.iter().map(|v| v as f32)),
            Element::F32 => exact!(f32),
            Element::F64 => exact!(f64),
        }
    }
}

/// Numbers on their way into a frame.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    F32(&'a [f32]),
    F64(&'a [f64]),
}

macro_rules! columns {
    ($($variant:ident: $ty:ty),*) => {
        $(impl<'a> From<&'a [$ty]> for Column<'a> {
            fn from(values: &'a [$ty]) -> Self {
                Column::$variant(values)
            }
        })*

        impl Column<'_> {
            /// What one of its samples is.
            pub const fn element(self) -> Element {
                match self { $(Column::$variant(_) => Element::$variant),* }
            }

            /// How many samples there are.
            pub const fn len(self) -> usize {
                match self { $(Column::$variant(v) => v.len()),* }
            }

            /// Whether there is none.
            pub const fn is_empty(self) -> bool {
                self.len() == 0
            }

            /// Appends the samples, little-endian.
            pub(super) fn write(self, out: &mut Vec<u8>) {
                match self {
                    $(Column::$variant(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes()))),*
                }
            }
        }
    };
}
columns!(U8: u8, U16: u16, U32: u32, U64: u64, I8: i8, I16: i16, I32: i32, I64: i64, F32: f32, F64: f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_follows_ieee_754() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x3555, 0.333_251_953_125),
            (0xfc00, f64::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), value, "{bits:#06x}");
        }
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn a_torn_array_is_no_samples() {
        assert!(Samples::new(Element::I32, &[0; 7]).is_none());
        let whole = Samples::new(Element::I16, &[1, 0, 0xff, 0xff]).unwrap();
        assert_eq!(whole.iter().collect::<Vec<_>>(), [1.0, -1.0]);
        assert_eq!((whole.len(), whole.get(2)), (2, None));
    }
}
