//! A journal's files as a disk may leave them: blocks, footers, marks, and the way through what is damaged.
//!
//! The first byte says which files there are, the next eight where they are cut apart; the marks' bytes come before
//! the blocks'. Half of all checksums hold (see `journal::cursor::matches`), so that both ways are gone.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use trackside::journal::{Journal, MAX_BATCH, verify};

/// Of this process; it stays when the process ends, as what crashed it may be looked at there.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("trackside-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
});

fuzz_target!(|data: &[u8]| {
    let Some(([pick, cuts @ ..], data)) = data.split_first_chunk::<9>() else {
        return;
    };
    let names = ["highwater", "floor", FIRST, SECOND, TAIL];
    let mut rest = data;
    for (at, name) in names.into_iter().enumerate() {
        let path = FOLDER.join(name);
        if pick >> at & 1 == 0 {
            let _ = std::fs::remove_file(path);
            continue;
        }
        let most = match name {
            "highwater" | "floor" => 32,
            TAIL => usize::MAX,
            _ => usize::from(u16::from_le_bytes([cuts[at], cuts[at + 1]])) * 8,
        };
        let (file, behind) = rest.split_at(most.min(rest.len()));
        std::fs::write(path, file).expect("a file");
        rest = behind;
    }
    let report = verify(&FOLDER, &mut |_| {});
    let Ok(reader) = Journal::open_read_only(&FOLDER, &mut |_| {}) else {
        // Of a newer format, by its own words.
        return;
    };
    let (mut from, mut served) = (reader.first_seq(), 0);
    loop {
        let batch = reader.batch(from, MAX_BATCH).expect("files that can be read");
        assert!(batch.first_seq >= from);
        if batch.entries.is_empty() {
            break;
        }
        served += batch.entries.len() as u64;
        assert!(batch.next_seq() > from && batch.next_seq() <= reader.next_seq());
        from = batch.next_seq();
    }
    if let Ok(report) = report {
        let whole: u64 = report.files.iter().map(|f| f.entries).sum();
        assert!(served <= whole, "{served} served of {whole} that are whole");
    }
});

const FIRST: &str = "00000000000000000000.seg";
const SECOND: &str = "00000000000000004096.seg";
const TAIL: &str = "00000000000000008192.log";
