//! The same objects in CBOR: the first byte picks the collection.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use trackside::record::codec::{encode, openf1_topic};
use trackside::record::{Kind, Wire, decode};

fuzz_target!(|data: &[u8]| {
    let Some((pick, payload)) = data.split_first() else {
        return;
    };
    let topic = openf1_topic(Kind::ALL[usize::from(*pick) % Kind::ALL.len()]) + "/cbor";
    if let Ok(first) = decode(&topic, &Bytes::copy_from_slice(payload)) {
        let again = decode(&topic, &encode(&first.entry, Wire::Cbor).into());
        assert_eq!(again.map(|d| d.entry), Ok(first.entry));
    }
});
