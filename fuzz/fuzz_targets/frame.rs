//! High-rate frames: what is accepted can be walked through to its last sample.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use trackside::record::Frame;

fuzz_target!(|data: &[u8]| {
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(data)) {
        let samples = frame.samples as usize;
        let mut channels = 0;
        for (name, column) in frame.channels() {
            assert_eq!(column.len(), samples, "{name}");
            assert_eq!(column.iter().count(), samples);
            channels += 1;
        }
        assert!(channels > 0);
        assert_eq!(frame.times().next(), Some(frame.first));
        assert_eq!(frame.times().last(), Some(frame.last));
        assert!(frame.times().is_sorted());
    }
});
