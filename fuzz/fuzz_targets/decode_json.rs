//! OpenF1's JSON, every collection: the first byte picks it. What is accepted is written and read
//! again; a second reading nulls nothing more.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use trackside::record::codec::{encode, openf1_topic};
use trackside::record::sanitise::Nulled;
use trackside::record::{Kind, Wire, decode};

fuzz_target!(|data: &[u8]| {
    let Some((pick, payload)) = data.split_first() else {
        return;
    };
    let topic = openf1_topic(Kind::ALL[usize::from(*pick) % Kind::ALL.len()]);
    if let Ok(first) = decode(&topic, &Bytes::copy_from_slice(payload)) {
        // By way of CBOR, which keeps every bit of a float; JSON is allowed the last one.
        let again = decode(&topic, &encode(&first.entry, Wire::Cbor).into());
        let again = again.expect("what was accepted is accepted again");
        assert_eq!(again.entry, first.entry);
        assert_eq!(again.nulled, Nulled(0));
        let json = decode(&topic, &encode(&first.entry, Wire::Json).into());
        assert_eq!(json.map(|d| d.entry.document()), Ok(first.entry.document()));
    }
});
