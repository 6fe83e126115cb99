use proptest::prelude::*;

use super::samples::{entry, entry_of};
use super::*;

fn encoded(first_seq: u64, entries: &[Entry], encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, first_seq, entries.iter(), encoding);
    out
}

fn decoded(block: &[u8], wanted: KindSet) -> Result<Vec<(u64, Entry)>, Malformed> {
    let header = Header::read(block)?;
    header.check(block)?;
    Body::open(header, block)?.entries(wanted)
}

#[test]
fn every_kind_comes_back_as_it_was() {
    for kind in Kind::ALL {
        for encoding in [Encoding::Rows, Encoding::Columns] {
            let entries: Vec<_> = (0..300).map(|seed| entry_of(kind, seed)).collect();
            let back = decoded(&encoded(7, &entries, encoding), KindSet::ALL).unwrap();
            for ((seq, back), (at, entry)) in back.iter().zip((7..).zip(&entries)) {
                assert_eq!((*seq, back), (at, entry), "{kind:?} {encoding:?}");
            }
            assert_eq!(back.len(), entries.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_mixture_comes_back(
        seeds in prop::collection::vec(any::<u64>(), 1..400),
        first_seq in 0..u64::MAX / 2,
        columns in any::<bool>(),
    ) {
        let encoding = if columns { Encoding::Columns } else { Encoding::Rows };
        let entries: Vec<_> = seeds.into_iter().map(entry).collect();
        let block = encoded(first_seq, &entries, encoding);
        let whole: Vec<_> = (first_seq..).zip(entries).collect();
        prop_assert_eq!(&decoded(&block, KindSet::ALL).unwrap(), &whole);

        // Any choice of kinds is the whole, filtered.
        let some = KindSet::of([Kind::CarData, Kind::Lap, Kind::Frame]);
        let filtered: Vec<_> = whole.iter().filter(|(_, e)| some.has(e.record.kind())).cloned().collect();
        prop_assert_eq!(decoded(&block, some).unwrap(), filtered);

        // The columns say what the entries say.
        let header = Header::read(&block).unwrap();
        let mut cars: Vec<_> = whole.iter().filter_map(|(_, e)| match &e.record {
            Record::CarData(r) => Some(r.clone()),
            _ => None,
        }).collect();
        cars.sort_by_key(|r| r.driver_number);
        let columns = Body::open(header, &block).unwrap().car_data().unwrap();
        let back: Vec<_> = columns.iter().flat_map(|c| (0..c.len()).map(|row| c.record(row))).collect();
        prop_assert_eq!(back, cars);
        let mut places: Vec<_> = whole.iter().filter_map(|(_, e)| match &e.record {
            Record::Location(r) => Some(r.clone()),
            _ => None,
        }).collect();
        places.sort_by_key(|r| r.driver_number);
        let columns = Body::open(header, &block).unwrap().location().unwrap();
        let back: Vec<_> = columns.iter().flat_map(|c| (0..c.len()).map(|row| c.record(row))).collect();
        prop_assert_eq!(back, places);
    }

    #[test]
    fn a_flipped_bit_never_passes(seed in any::<u64>(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let entries: Vec<_> = (seed..).take(40).map(entry).collect();
        let mut block = encoded(3, &entries, Encoding::Columns);
        let at = at.index(block.len());
        block[at] ^= 1 << bit;
        prop_assert!(decoded(&block, KindSet::ALL).is_err());
    }

    #[test]
    fn a_part_that_passes_its_checksum_by_chance_does_not_crash(
        seed in any::<u64>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), columns in any::<bool>(),
    ) {
        // As a defect of ours would: the checksum is right, the content is not.
        let encoding = if columns { Encoding::Columns } else { Encoding::Rows };
        let entries: Vec<_> = (seed..).take(40).map(entry).collect();
        let mut block = encoded(3, &entries, encoding);
        let header = Header::read(&block).unwrap();
        let body = HEADER_BYTES + header.directory_bytes as usize;
        let at = body + at.index(block.len() - body);
        block[at] = byte;
        let header = Header { body_crc: crc32c::crc32c(&block[body..]), ..header };
        let read = Body::open(header, &block).and_then(|body| body.entries(KindSet::ALL));
        // As the fuzzer sees it: the sequence aside, the same.
        let fuzzed = entries_of_body(encoding, header.count, &block[body..]);
        prop_assert_eq!(read.map(|all| all.len()), fuzzed.map(|all| all.len()));
    }
}
