//! A journal block's body, behind its checksum: the first byte picks the encoding, the next two say how many
//! entries it claims to hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trackside::journal::block::{Encoding, entries_of_body};

fuzz_target!(|data: &[u8]| {
    let Some(([pick, low, high], body)) = data.split_first_chunk() else {
        return;
    };
    let encoding = match pick % 2 {
        0 => Encoding::Rows,
        _ => Encoding::Columns,
    };
    let count = u32::from(u16::from_le_bytes([*low, *high])).clamp(1, 16_384);
    if let Ok(entries) = entries_of_body(encoding, count, body) {
        assert_eq!(entries.len(), count as usize);
        assert!(entries.iter().map(|(seq, _)| *seq).eq(0..u64::from(count)));
    }
});
