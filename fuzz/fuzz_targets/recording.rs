//! A recording's lines, plain or packed by zstd.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use trackside::ingest::recording::Reader;

fuzz_target!(|data: &[u8]| {
    let lines = data.iter().filter(|byte| **byte == b'\n').count() + 1;
    let packed = data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    if let Ok(reader) = Reader::new(Cursor::new(data.to_vec())) {
        let read = reader.take(100_000).count();
        assert!(packed || read <= lines, "{read} of {lines} lines");
    }
});
