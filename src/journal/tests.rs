//! The journal against a model that is a vector; then every way in which a file can be hurt.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::io::Errno;

use super::block::samples::entry;
use super::version::{Held, Place};
use super::*;
use crate::record::key::Version;
use crate::record::{Entry, Kind, Record};

fn open_with(dir: &Path, options: &Options) -> Journal {
    Journal::open(dir, options.clone(), &mut |_| {}).expect("opens")
}

fn small() -> Options {
    Options {
        segment_bytes: 16 * 1024,
        tail_entries: 64,
        reserve_bytes: 0,
        ..Options::default()
    }
}

fn entries(seeds: std::ops::Range<u64>) -> Vec<Entry> {
    seeds
        .map(|s| entry(s.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect()
}

/// Everything that can be read, by batches of `most`; with what was skipped.
fn read_all(reader: &Reader, most: usize) -> (Vec<(u64, Entry)>, Vec<Skipped>) {
    let (mut all, mut skipped, mut from) = (Vec::new(), Vec::new(), reader.first_seq());
    loop {
        let batch = reader.batch(from, most).expect("reads");
        skipped.extend(batch.skipped.iter().cloned());
        if batch.entries.is_empty() {
            assert_eq!(batch.next_seq(), reader.next_seq());
            return (all, skipped);
        }
        all.extend(batch.iter().map(|(seq, e)| (seq, e.clone())));
        from = batch.next_seq();
    }
}

/// The version of `entry`'s document after `told`, by the rule and nothing else.
fn version_by_fold<'a>(
    told: impl Iterator<Item = &'a (u64, Entry)>,
    entry: &Entry,
) -> Option<Version> {
    let key = entry.document();
    told.filter(|(_, e)| e.document() == key)
        .map(|(seq, e)| Held::of(*seq, e))
        .reduce(|held, new| match new.version.supersedes(held.version) {
            true => new,
            false => held,
        })
        .map(|held| held.version)
}

fn assert_same(reader: &Reader, model: &[(u64, Entry)]) {
    let first = reader.first_seq();
    let kept = &model[model.partition_point(|(seq, _)| *seq < first)..];
    let (all, skipped) = read_all(reader, 37);
    assert_eq!(skipped, []);
    assert_eq!(all, kept);
    for query in [
        Query::of(Kind::Lap),
        Query {
            session_key: Some(9471),
            driver_number: Some(3),
            ..Query::default()
        },
        Query {
            kind: Some(Kind::CarData),
            from: Some(crate::record::Time::from_millis(1_709_391_610_000)),
            to: Some(crate::record::Time::from_millis(1_709_391_630_000)),
            ..Query::default()
        },
    ] {
        let found: Vec<_> = reader.query(&query).map(|r| r.expect("reads")).collect();
        let expected: Vec<_> = (kept.iter())
            .filter(|(_, e)| query.matches(&e.record))
            .cloned()
            .collect();
        assert_eq!(found, expected, "{query:?}");
    }
    let query = Query {
        driver_number: Some(2),
        ..Query::default()
    };
    let mut speeds = Vec::new();
    let rows = reader
        .car_data(&query, &mut |c| {
            speeds.extend((0..c.len()).map(|row| c.speed.get(row)));
        })
        .expect("reads");
    let expected: Vec<_> = (kept.iter())
        .filter_map(|(_, e)| match &e.record {
            Record::CarData(r) if r.driver_number == 2 => Some(r.speed),
            _ => None,
        })
        .collect();
    assert_eq!((rows as usize, speeds), (expected.len(), expected));

    let files = reader.segments();
    assert!(files.iter().all(|f| f.bytes > 0), "{files:?}");
    assert!(
        files.windows(2).all(|w| w[0].end_seq == w[1].first_seq),
        "{files:?}"
    );

    let mut counts = std::collections::BTreeMap::new();
    for (_, e) in kept {
        if let Some(session) = e.record.session_key() {
            *counts
                .entry((session, e.record.kind().name()))
                .or_insert(0u64) += 1;
        }
    }
    let mut summed = std::collections::BTreeMap::new();
    for s in reader.sessions() {
        for (kind, n) in s.entries {
            summed.insert((s.session_key, kind), n);
        }
    }
    assert_eq!(summed, counts);
}

/// Versions are exact where nothing was retired; where something was, an old version may be
/// remembered for as long as some entry of its document is held. Once none is, it is forgotten, and
/// what comes then begins anew: the version is that of the entries from some retired one on.
fn assert_versions(reader: &Reader, model: &[(u64, Entry)], asked: &[Entry]) {
    let first = reader.first_seq();
    for entry in asked {
        let found = reader.version_of(entry).expect("reads");
        let key = entry.document();
        let of_it: Vec<_> = model.iter().filter(|(_, e)| e.document() == key).collect();
        let retired = of_it.iter().filter(|(seq, _)| *seq < first).count();
        let is_kept = of_it.len() > retired;
        let from = |at: usize| version_by_fold(of_it[at..].iter().copied(), entry);
        if first == 0 || !is_kept {
            assert_eq!(found, from(retired), "{entry:?}");
        } else {
            assert!((0..=retired).any(|at| from(at) == found), "{entry:?}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64, usize),
    Commit,
    Close,
    Reopen,
    LoseIndex,
    SpoilIndex(usize),
    DiskFull(u64),
    SyncFails,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<u64>(), 1..90usize).prop_map(|(seed, n)| Step::Append(seed, n)),
        6 => Just(Step::Commit),
        1 => Just(Step::Close),
        2 => Just(Step::Reopen),
        1 => Just(Step::LoseIndex),
        1 => any::<usize>().prop_map(Step::SpoilIndex),
        1 => (0..4000u64).prop_map(Step::DiskFull),
        1 => Just(Step::SyncFails),
    ]
}

fn close(journal: Journal) {
    journal.close().expect("closes");
}

fn run(dir: &Path, options: &Options, steps: Vec<Step>) {
    let mut journal = open_with(dir, options);
    let (mut model, mut asked): (Vec<(u64, Entry)>, Vec<Entry>) = Default::default();
    let mut committed = 0;
    for step in steps {
        match step {
            Step::Append(seed, n) => {
                let new: Vec<_> = (0..n as u64).map(|i| entry(seed.wrapping_add(i))).collect();
                asked.extend(new.iter().take(3).cloned());
                let first = journal.append(new.clone());
                assert_eq!(first, model.len() as u64);
                model.extend((first..).zip(new));
            }
            Step::Commit => {
                committed = model.len();
                assert_eq!(journal.commit().expect("commits"), committed as u64);
            }
            Step::Close => {
                journal.close_segment().expect("closes");
                committed = model.len();
            }
            Step::DiskFull(room) => {
                *journal.faults.room.lock().unwrap() = Some(room);
                match journal.commit() {
                    Ok(_) => committed = model.len(),
                    Err(e) => assert!(e.is_disk_full(), "{e}"),
                }
                *journal.faults.room.lock().unwrap() = None;
                assert_eq!(journal.next_seq(), model.len() as u64);
            }
            Step::SyncFails => {
                journal
                    .faults
                    .syncs
                    .lock()
                    .unwrap()
                    .push_back(Some(Errno::IO));
                journal.commit().expect("is written again elsewhere");
                journal.faults.syncs.lock().unwrap().clear();
                committed = model.len();
            }
            Step::Reopen | Step::LoseIndex | Step::SpoilIndex(_) => {
                close(journal);
                committed = model.len();
                let index = dir.join("index");
                match step {
                    Step::LoseIndex => std::fs::remove_dir_all(index).unwrap(),
                    Step::SpoilIndex(at) => {
                        let db = index.join("db");
                        let mut bytes = std::fs::read(&db).unwrap();
                        let at = at % bytes.len();
                        bytes[at] ^= 0x5a;
                        std::fs::write(&db, bytes).unwrap();
                    }
                    _ => {}
                }
                journal = open_with(dir, options);
            }
        }
        assert_eq!(journal.reader().next_seq(), committed as u64);
        let mark = high_water(dir);
        assert!(mark <= committed as u64, "it claims what is not durable");
        if options.durability == Durability::Synced {
            assert_eq!(mark, committed as u64);
        }
    }
    journal.commit().expect("commits");
    let reader = journal.reader();
    assert_eq!(journal.losses(), []);
    assert_same(&reader, &model);
    asked.extend(entries(0..40));
    assert_versions(&reader, &model, &asked);
    // What stands on disk is whole, and says the same to who reads beside the writer.
    let report = verify(dir, &mut |_| {}).expect("verifies");
    assert_eq!(report.damage, []);
    let beside = Journal::open_read_only(dir, &mut |_| {}).expect("opens");
    assert_same(&beside, &model);
    asked.truncate(20);
    if beside.first_seq() == 0 {
        assert_versions(&beside, &model, &asked);
    }
    close(journal);
    let journal = open_with(dir, options);
    assert_same(&journal.reader(), &model);
    assert_versions(&journal.reader(), &model, &asked);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_vector_does(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &small(), steps);
    }

    #[test]
    fn retention_takes_whole_segments_from_the_front(steps in prop::collection::vec(step(), 20..50)) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            retain: Retention { bytes: Some(24 * 1024), days: None },
            segment_bytes: 8 * 1024,
            ..small()
        };
        run(dir.path(), &options, steps);
        let sealed: u64 = file::list(dir.path(), file::SEGMENT).unwrap().iter()
            .map(|(_, p)| p.metadata().unwrap().len()).sum();
        // The limit, and the one segment that is over it before retention looks.
        prop_assert!(sealed <= 24 * 1024 + 40 * 1024, "{sealed} bytes");
    }

    #[test]
    fn a_lazy_journal_says_the_same(steps in prop::collection::vec(step(), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &Options { durability: Durability::Lazy, ..small() }, steps);
    }
}

/// A journal of three segments, and a log of small commits. Returns what it holds.
fn journal_of(dir: &Path) -> Vec<(u64, Entry)> {
    let options = Options {
        segment_bytes: 1 << 30,
        ..small()
    };
    let mut journal = open_with(dir, &options);
    for part in 0..3u64 {
        for i in 0..3 {
            journal.append(entries(1000 * part + 100 * i..1000 * part + 100 * i + 70));
            journal.commit().unwrap();
        }
        journal.close_segment().unwrap();
    }
    for i in 0..5 {
        journal.append(entries(5000 + 10 * i..5000 + 10 * i + 6));
        journal.commit().unwrap();
    }
    let (all, _) = read_all(&journal.reader(), MAX_BATCH);
    close(journal);
    all
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = file::list(dir, file::SEGMENT).unwrap();
    files.extend(file::list(dir, file::LOG).unwrap());
    files.into_iter().map(|(_, path)| path).collect()
}

fn high_water(dir: &Path) -> u64 {
    let mark = Bookmark::high_water(dir).read().expect("reads");
    mark.unwrap_or(0)
}

fn quarantined(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir.join(damage::QUARANTINE)).into_iter();
    files.flatten().map(|e| e.unwrap().path()).collect()
}

/// As a crash leaves it: behind the mark nothing was acknowledged.
#[test]
fn a_tail_torn_behind_the_mark_loses_only_what_was_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let all = journal_of(dir.path());
    let log = files_of(dir.path()).pop().unwrap();
    let bytes = std::fs::read(&log).unwrap();
    let first_of_log = all.len() - 30;
    let mut seen = std::collections::BTreeSet::new();
    // Each cut costs an open and a close, with all their syncs.
    for end in (0..bytes.len()).step_by(7) {
        std::fs::write(&log, &bytes[..end]).unwrap();
        let mark = Bookmark::high_water(dir.path());
        mark.begin(first_of_log as u64).unwrap();
        let mut journal = open_with(dir.path(), &small());
        assert_eq!(journal.losses(), [], "torn, not damaged, at {end}");
        let (held, _) = read_all(&journal.reader(), MAX_BATCH);
        assert_eq!(held[..], all[..held.len()], "cut at {end}");
        assert_eq!((held.len() - first_of_log) % 6, 0, "whole commits only");
        seen.insert(held.len());
        // Writing goes on where the whole part ended.
        if end % 8 == 0 {
            let more = entries(9000..9004);
            let first = journal.append(more.clone());
            journal.commit().unwrap();
            assert_eq!(first, held.len() as u64);
            drop(journal);
            let (now, _) = read_all(&open_with(dir.path(), &small()).reader(), MAX_BATCH);
            assert_eq!(now.len(), held.len() + 4);
            assert!(now[held.len()..].iter().map(|(_, e)| e).eq(&more));
        }
        for path in files_of(dir.path()).into_iter().skip(3) {
            let _ = std::fs::remove_file(path);
        }
    }
    assert_eq!(seen.len(), 5, "0 to 4 commits survive");
    assert!(quarantined(dir.path()).is_empty());
}

/// After a clean end all of it was durable: whatever is cut off, or gone, is missed, and stays missed until it is
/// repaired.
#[test]
fn an_end_that_was_durable_is_missed() {
    let pristine = tempfile::tempdir().unwrap();
    let all = journal_of(pristine.path());
    let end_seq = all.len() as u64;
    assert_eq!(high_water(pristine.path()), end_seq);
    let log = files_of(pristine.path()).pop().unwrap();
    let name = log.file_name().unwrap();
    let bytes = std::fs::read(&log).unwrap();
    let cuts = (0..bytes.len()).step_by(bytes.len() / 20).map(Some);
    for cut in cuts.chain([Some(bytes.len() - 1), None]) {
        let dir = tempfile::tempdir().unwrap();
        for path in files_of(pristine.path()) {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        Bookmark::high_water(dir.path()).write(end_seq).unwrap();
        match cut {
            Some(cut) => std::fs::write(dir.path().join(name), &bytes[..cut]).unwrap(),
            None => std::fs::remove_file(dir.path().join(name)).unwrap(),
        }
        let report = verify(dir.path(), &mut |_| {}).unwrap();
        assert_eq!(report.damage.len(), 1, "{cut:?}: {:?}", report.damage);
        let gone = report.damage[0].seqs.clone().unwrap();
        assert_eq!(gone.end, end_seq);
        let beside = Journal::open_read_only(dir.path(), &mut |_| {}).unwrap();
        assert_eq!(beside.losses().len(), 1, "{cut:?}");
        assert!(quarantined(dir.path()).is_empty());

        let mut journal = open_with(dir.path(), &small());
        let losses = journal.losses();
        assert_eq!(losses.len(), 1, "{cut:?}: {losses:?}");
        assert_eq!(losses[0].seqs, Some(gone.clone()), "{cut:?}");
        let kept: u64 = (quarantined(dir.path()).iter())
            .map(|path| path.metadata().unwrap().len())
            .sum();
        assert_eq!(kept, losses[0].bytes, "what is left is kept: {cut:?}");
        assert_eq!(
            kept > 0,
            cut.is_some_and(|cut| !is_whole(&bytes[..cut])),
            "{cut:?}"
        );
        let more = entries(9000..9004);
        assert_eq!(journal.append(more.clone()), end_seq, "no number twice");
        journal.commit().unwrap();
        let kept = (all.iter()).filter(|(seq, _)| *seq < gone.start).cloned();
        let expected: Vec<_> = kept.chain((end_seq..).zip(more)).collect();
        assert_eq!(read_all(&journal.reader(), MAX_BATCH).0, expected);
        close(journal);

        // As records now stand behind it: a log, then a segment.
        for _ in 0..2 {
            let mut journal = open_with(dir.path(), &small());
            let named = |l: &Loss| l.seqs == Some(gone.clone());
            assert!(journal.losses().iter().any(named), "{cut:?}: forgotten");
            assert_eq!(read_all(&journal.reader(), MAX_BATCH).0, expected);
            journal.close_segment().unwrap();
            close(journal);
            let report = verify(dir.path(), &mut |_| {}).unwrap();
            assert!(report.damage.iter().any(named), "{cut:?}");
        }
        repair(dir.path(), small(), &mut |_| {}).unwrap();
        assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
        let journal = open_with(dir.path(), &small());
        assert_eq!(journal.losses(), []);
        assert_eq!(read_all(&journal.reader(), MAX_BATCH).0, expected);
    }
}

/// A block of rows, as a commit writes it.
fn rows(first_seq: u64, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    block::encode(&mut bytes, first_seq, entries.iter(), block::Encoding::Rows);
    bytes
}

/// Sectors reach a disk in any order: a write that was on its way when the power went may leave anything.
#[test]
fn what_was_on_its_way_is_no_damage() {
    let pristine = tempfile::tempdir().unwrap();
    let all = journal_of(pristine.path());
    let (end_seq, first_of_log) = (all.len() as u64, all.len() as u64 - 30);
    let mut commit = rows(end_seq, &entries(7000..7006));
    let body = commit.len() - 20;
    commit[body] ^= 0x10;
    let headless = [&[0; 64][..], &commit[64..]].concat();
    // The move of the log into a segment of its own: a block that is damaged, and behind it one that is whole.
    let log: Vec<Entry> = all[all.len() - 30..]
        .iter()
        .map(|(_, e)| e.clone())
        .collect();
    let mut moved = [
        &file::header(first_of_log)[..],
        &rows(first_of_log, &log[..12]),
    ]
    .concat();
    let last = moved.len() - 20;
    moved[last] ^= 0x10;
    let half = [&moved[..], &rows(first_of_log + 12, &log[12..])].concat();
    for (extension, bytes) in [
        (file::LOG, commit),
        (file::LOG, headless),
        (file::SEGMENT, moved),
        (file::SEGMENT, half),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for path in files_of(pristine.path()) {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        Bookmark::high_water(dir.path()).write(end_seq).unwrap();
        let path = file::path_of(dir.path(), first_of_log, extension);
        let before = std::fs::read(&path).unwrap_or_default();
        std::fs::write(&path, [before, bytes].concat()).unwrap();
        assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
        let beside = Journal::open_read_only(dir.path(), &mut |_| {}).unwrap();
        assert_eq!(
            (read_all(&beside, 50).0, beside.losses()),
            (all.clone(), vec![])
        );
        let mut journal = open_with(dir.path(), &small());
        assert_eq!(journal.losses(), []);
        assert_eq!(read_all(&journal.reader(), 50), (all.clone(), vec![]));
        assert_eq!(journal.append(entries(1..2)), end_seq);
        journal.close_segment().unwrap();
        close(journal);
        assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
        let journal = open_with(dir.path(), &small());
        assert_eq!(read_all(&journal.reader(), 50).0[..all.len()], all);
    }
}

/// Whether a log ends with a block, or with its header.
fn is_whole(log: &[u8]) -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), log).unwrap();
    let scan = segment::scan(file.as_file(), file.path(), 0..u64::MAX, &mut |_, _| {}).unwrap();
    scan.end_offset == log.len() as u64
}

#[test]
fn repair_needs_no_start_to_account_for_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let all = journal_of(dir.path());
    let log = files_of(dir.path()).pop().unwrap();
    let len = log.metadata().unwrap().len();
    let file = std::fs::File::options().write(true).open(log).unwrap();
    file.set_len(len - 1).unwrap();
    let repaired = repair(dir.path(), small(), &mut |_| {}).unwrap();
    assert_eq!(repaired.len(), 1, "{repaired:?}");
    let kept = quarantined(dir.path());
    assert!(
        kept.iter()
            .all(|p| p.metadata().unwrap().len() == repaired[0].bytes)
    );
    assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
    let journal = open_with(dir.path(), &small());
    assert_eq!(
        (journal.losses(), journal.next_seq()),
        (vec![], all.len() as u64)
    );
}

/// It is named as it is read; where the mark is of no use, the journal ends where it ends.
#[test]
fn a_journal_without_a_mark_opens_and_gets_one() {
    for garbage in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let all = journal_of(dir.path());
        let mark = dir.path().join("highwater");
        match garbage {
            true => std::fs::write(&mark, [0xa5; 32]).unwrap(),
            false => std::fs::remove_file(&mark).unwrap(),
        }
        assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
        let journal = open_with(dir.path(), &small());
        assert_eq!(journal.losses(), []);
        assert_eq!(high_water(dir.path()), all.len() as u64);
    }
}

/// A lazy journal's mark waits for the sync of its log, and that comes by itself.
#[test]
fn a_lazy_mark_follows_the_sync() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        durability: Durability::Lazy,
        ..small()
    };
    let mut journal = open_with(dir.path(), &options);
    journal.append(entries(0..10));
    let began = std::time::Instant::now();
    journal.commit().unwrap();
    let soon = high_water(dir.path());
    assert!(soon == 0 || began.elapsed() > LAZY_SYNC_EVERY / 2, "{soon}");
    while high_water(dir.path()) < 10 {
        assert!(began.elapsed() < 20 * LAZY_SYNC_EVERY, "never synced");
        std::thread::sleep(LAZY_SYNC_EVERY / 20);
    }
}

/// Flips bytes all over a journal; each time: no panic, all other blocks served, the loss named.
#[test]
fn a_flipped_byte_costs_one_block_and_is_named() {
    let pristine = tempfile::tempdir().unwrap();
    let all = journal_of(pristine.path());
    let (mut harmless, mut harmful) = (0, 0);
    for file in files_of(pristine.path()) {
        let name = file.file_name().unwrap();
        let len = file.metadata().unwrap().len() as usize;
        let step = (len / 24).max(1);
        for at in (0..len).step_by(step) {
            let dir = tempfile::tempdir().unwrap();
            for path in files_of(pristine.path()) {
                std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
            }
            let hurt = dir.path().join(name);
            let mut bytes = std::fs::read(&hurt).unwrap();
            bytes[at] ^= 0x10;
            std::fs::write(&hurt, bytes).unwrap();

            let report = verify(dir.path(), &mut |_| {}).expect("verifies");
            let journal = open_with(dir.path(), &small());
            let (held, skipped) = read_all(&journal.reader(), 50);
            let losses = journal.losses();
            let missing: Vec<u64> = (all.iter().map(|(seq, _)| *seq))
                .filter(|seq| !held.iter().any(|(s, _)| s == seq))
                .collect();
            assert!(
                held.iter().all(|e| all.contains(e)),
                "only the truth is served"
            );
            assert!(
                missing.len() <= 210,
                "{name:?} at {at}: {} lost",
                missing.len()
            );
            let log_cut =
                hurt.extension().unwrap() == "log" && missing.len() == 6 && losses.is_empty();
            assert!(
                !report.is_whole() || missing.is_empty(),
                "{name:?} at {at}: unseen"
            );
            if missing.is_empty() {
                harmless += 1;
            } else {
                assert!(!log_cut, "{name:?} at {at}: lost without a word");
                harmful += 1;
                let named = |seq: &u64| {
                    losses
                        .iter()
                        .any(|l| l.seqs.as_ref().is_some_and(|s| s.contains(seq)))
                };
                assert!(missing.iter().all(named), "{name:?} at {at}: {losses:?}");
                let led_past = |seq: &u64| skipped.iter().any(|s| s.seqs.contains(seq));
                let end = journal.reader().next_seq();
                assert!(missing.iter().all(|s| led_past(s) || *s >= end));
                assert!(
                    losses
                        .iter()
                        .any(|l| !l.sessions.is_empty() && !l.kinds.is_empty())
                );
                assert!(
                    dir.path()
                        .join(damage::QUARANTINE)
                        .read_dir()
                        .unwrap()
                        .count()
                        > 0
                );
            }
            assert!(
                journal.next_seq() >= all.len() as u64,
                "numbers are not given again"
            );
            drop(journal);

            // Repair: what was lost stays lost, all else is there, and the journal is whole again.
            if at % (step * 5) == 0 {
                let damage = repair(dir.path(), small(), &mut |_| {}).expect("repairs");
                assert!(missing.is_empty() || !damage.is_empty());
                let report = verify(dir.path(), &mut |_| {}).expect("verifies");
                assert_eq!(report.damage, [], "{name:?} at {at}");
                let mut journal = open_with(dir.path(), &small());
                let (again, _) = read_all(&journal.reader(), MAX_BATCH);
                assert_eq!(again, held);
                let seq = journal.append(entries(1..2));
                assert!(
                    seq >= all.len() as u64,
                    "{name:?} at {at}: {seq} was given before"
                );
                journal.commit().unwrap();
            }
        }
    }
    assert!(
        harmful > 40 && harmless > 0,
        "{harmful} harmful, {harmless} harmless"
    );
}

#[test]
fn a_missing_or_truncated_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let all = journal_of(dir.path());
    let victim = &files_of(dir.path())[1];
    let len = victim.metadata().unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(victim)
        .unwrap()
        .set_len(len / 2)
        .unwrap();
    let journal = open_with(dir.path(), &small());
    let (held, skipped) = read_all(&journal.reader(), MAX_BATCH);
    assert!(held.len() < all.len());
    let gone: u64 = skipped.iter().map(|s| s.seqs.end - s.seqs.start).sum();
    assert_eq!(gone as usize + held.len(), all.len());
    assert!(!journal.losses().is_empty());
    drop(journal);
    std::fs::remove_file(victim).unwrap();
    let report = verify(dir.path(), &mut |_| {}).unwrap();
    assert!(!report.is_whole());
    let journal = open_with(dir.path(), &small());
    assert!(!journal.losses().is_empty());
    assert_eq!(journal.next_seq(), all.len() as u64);
}

#[test]
fn losing_the_last_segment_gives_no_number_twice() {
    let dir = tempfile::tempdir().unwrap();
    let all = journal_of(dir.path());
    for path in &files_of(dir.path())[2..] {
        std::fs::remove_file(path).unwrap();
    }
    // The index still knows of the third segment.
    let journal = open_with(dir.path(), &small());
    assert!(journal.next_seq() >= all.len() as u64 - 30);
    assert!(!journal.losses().is_empty());
}

#[test]
fn two_writers_are_one_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open_with(dir.path(), &small());
    let second = Journal::open(dir.path(), small(), &mut |_| {});
    assert!(matches!(second, Err(Error::Locked { .. })));
    drop(journal);
    open_with(dir.path(), &small());
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    journal_of(dir.path());
    let log = files_of(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..20]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&log, bytes).unwrap();
    let opened = Journal::open(dir.path(), small(), &mut |_| {});
    assert!(matches!(opened, Err(Error::Newer { version: 2, .. })));
}

/// Small commits, as from a live feed, are not held up by the tails that move meanwhile, and whoever reads sees
/// each entry once, wherever it is at the moment.
#[test]
fn commits_and_readers_go_on_while_tails_move() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open_with(dir.path(), &small());
    let reader = journal.reader();
    let watching = std::thread::spawn({
        let reader = reader.clone();
        move || {
            let mut rounds = 0;
            while reader.next_seq() < 3_000 {
                let mut all: Vec<u64> = Vec::new();
                loop {
                    let batch = reader.batch(all.len() as u64, 50).expect("reads");
                    assert_eq!(batch.skipped, []);
                    if batch.entries.is_empty() {
                        break;
                    }
                    all.extend(batch.iter().map(|(seq, _)| seq));
                }
                assert!(all.iter().copied().eq(0..all.len() as u64));
                let asked: Vec<u64> = (reader.query(&Query::default()))
                    .map(|found| found.unwrap().0)
                    .collect();
                assert!(asked.iter().copied().eq(0..asked.len() as u64));
                assert!(asked.len() >= all.len(), "what was there is there");
                rounds += 1;
            }
            rounds
        }
    });
    let all = entries(0..3_000);
    for part in all.chunks(3) {
        journal.append(part.to_vec());
        journal.commit().unwrap();
    }
    assert!(watching.join().unwrap() > 0);
    let model: Vec<(u64, Entry)> = (0..).zip(all.iter().cloned()).collect();
    assert_same(&reader, &model);
    assert_versions(&reader, &model, &all[..200]);
    close(journal);
    assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
    // All but what the last tail holds stands in segments, and no log is left of it.
    let logs = file::list(dir.path(), file::LOG).unwrap();
    assert!(logs.len() <= 1, "{logs:?}");
}

/// Who looks from outside, while tails move and logs go away under him, sees a whole journal up to some record.
#[test]
fn beside_a_writer_nothing_looks_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open_with(dir.path(), &small());
    let writing = std::thread::spawn(move || {
        for part in entries(0..6_000).chunks(4) {
            journal.append(part.to_vec());
            journal.commit().unwrap();
        }
        close(journal);
    });
    let mut looks = 0;
    while !writing.is_finished() || looks == 0 {
        let beside = Journal::open_read_only(dir.path(), &mut |_| {}).unwrap();
        assert_eq!(beside.losses(), [], "look {looks}");
        let (all, skipped) = read_all(&beside, MAX_BATCH);
        assert_eq!(skipped, [], "look {looks}");
        assert!(all.iter().map(|(seq, _)| *seq).eq(0..all.len() as u64));
        assert_eq!(
            verify(dir.path(), &mut |_| {}).unwrap().damage,
            [],
            "look {looks}"
        );
        looks += 1;
    }
    writing.join().unwrap();
    assert!(looks > 1, "{looks}");
}

/// A tail that cannot be moved is not lost, does not stop small commits, and is moved when that can be done.
#[test]
fn a_move_that_fails_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open_with(dir.path(), &small());
    let reader = journal.reader();
    let all = entries(0..600);
    let mut refused = 0;
    for (n, part) in all.chunks(5).enumerate() {
        // For a while every other sync fails, be it of a log or of a segment: at times twice in a row.
        if (20..60).contains(&n) {
            let mut syncs = journal.faults.syncs.lock().unwrap();
            syncs.extend([None, Some(Errno::IO), Some(Errno::IO)]);
        }
        journal.append(part.to_vec());
        refused += u32::from(journal.commit().is_err());
    }
    journal.faults.syncs.lock().unwrap().clear();
    assert!(refused > 0, "no failure was met");
    assert_eq!(journal.commit().unwrap(), 600);
    let model: Vec<(u64, Entry)> = (0..).zip(all.iter().cloned()).collect();
    assert_same(&reader, &model);
    journal.close_segment().unwrap();
    assert_same(&reader, &model);
    close(journal);
    assert_same(&open_with(dir.path(), &small()).reader(), &model);
    assert_eq!(file::list(dir.path(), file::LOG).unwrap(), []);
}

#[test]
fn what_is_missing_at_the_start_is_named_unless_retention_took_it() {
    for (cut, place) in [
        (Some(0), 0),
        (Some(24), 0),
        (Some(300), 0),
        (None, 0),
        (Some(24), 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let all = journal_of(dir.path());
        let segments = file::list(dir.path(), file::SEGMENT).unwrap();
        let (first, path) = &segments[place];
        let end = segments[place + 1].0;
        match cut {
            Some(bytes) => {
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.set_len(bytes).unwrap();
            }
            None => std::fs::remove_file(path).unwrap(),
        }
        let gone = Some(*first..end);
        let report = verify(dir.path(), &mut |_| {}).unwrap();
        assert_eq!(report.damage.len(), 1, "{cut:?}: {:?}", report.damage);
        assert_eq!(report.damage[0].seqs, gone, "{cut:?}");
        // Opening names it too, serves the rest, and does not make it forgotten.
        let rest: Vec<_> = (all.iter())
            .filter(|(seq, _)| !(*first..end).contains(seq))
            .cloned()
            .collect();
        for _ in 0..2 {
            let journal = open_with(dir.path(), &small());
            assert!(journal.losses().iter().any(|l| l.seqs == gone), "{cut:?}");
            assert_eq!(read_all(&journal.reader(), MAX_BATCH).0, rest);
            close(journal);
        }
        assert!(!verify(dir.path(), &mut |_| {}).unwrap().is_whole());
        let repaired = repair(dir.path(), small(), &mut |_| {}).unwrap();
        assert_eq!(repaired.len(), 1, "{repaired:?}");
        let report = verify(dir.path(), &mut |_| {}).unwrap();
        assert_eq!((report.damage, report.known_losses.len()), (vec![], 1));
        assert_eq!(open_with(dir.path(), &small()).losses(), []);
    }

    // What retention takes is no loss.
    let dir = tempfile::tempdir().unwrap();
    journal_of(dir.path());
    let options = Options {
        retain: Retention {
            bytes: Some(0),
            days: None,
        },
        ..small()
    };
    let journal = open_with(dir.path(), &options);
    assert!(journal.reader().first_seq() > 0);
    assert_eq!(journal.losses(), []);
    close(journal);
    assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
    assert_eq!(open_with(dir.path(), &options).losses(), []);
}

#[test]
fn a_full_disk_stops_commits_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open_with(dir.path(), &small());
    journal.append(entries(0..10));
    journal.commit().unwrap();
    let reader = journal.reader();
    for room in [0, 1, 50, 700, 3000] {
        for more in [5, 200] {
            *journal.faults.room.lock().unwrap() = Some(room);
            let first = journal.append(entries(100..100 + more));
            let before = reader.next_seq();
            match journal.commit() {
                Err(e) => assert!(e.is_disk_full(), "{e}"),
                Ok(_) => continue,
            }
            assert_eq!(reader.next_seq(), before, "readers see what is durable");
            assert!(journal.commit().is_err(), "still full");
            *journal.faults.room.lock().unwrap() = None;
            assert_eq!(journal.commit().unwrap(), first + more);
        }
    }
    *journal.faults.room.lock().unwrap() = None;
    journal.commit().unwrap();
    let (all, skipped) = read_all(&reader, MAX_BATCH);
    assert_eq!((all.len() as u64, skipped), (journal.next_seq(), vec![]));
    assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
}

#[test]
fn a_failed_sync_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open_with(dir.path(), &small());
    journal.append(entries(0..10));
    journal.commit().unwrap();
    // The first file fails, and so does the next: the commit must not pretend.
    let two = [Some(Errno::IO), Some(Errno::IO)];
    journal.faults.syncs.lock().unwrap().extend(two);
    journal.append(entries(10..20));
    let failed = journal.commit();
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    assert_eq!(journal.reader().next_seq(), 10);
    assert_eq!(journal.commit().unwrap(), 20, "and tries again when asked");
    journal.faults.syncs.lock().unwrap().extend(two);
    journal.append(entries(20..220));
    assert!(journal.commit().is_err());
    assert_eq!(journal.commit().unwrap(), 220);
    drop(journal);
    let (all, skipped) = read_all(&open_with(dir.path(), &small()).reader(), MAX_BATCH);
    assert_eq!((all.len(), skipped), (220, vec![]));
    assert!(all.iter().map(|(_, e)| e).eq(&entries(0..220)));
}

#[test]
fn readers_outlive_the_writer_and_what_retention_removes() {
    let dir = tempfile::tempdir().unwrap();
    journal_of(dir.path());
    let reader = Journal::open_read_only(dir.path(), &mut |_| {}).unwrap();
    let mut query = reader.query(&Query::default());
    let first = query.next().unwrap().unwrap();
    assert_eq!(first.0, 0);
    let options = Options {
        retain: Retention {
            bytes: Some(0),
            days: None,
        },
        ..small()
    };
    let mut journal = open_with(dir.path(), &options);
    assert_eq!(file::list(dir.path(), file::SEGMENT).unwrap().len(), 1);
    // The open segment of the query is still there for it.
    assert!(query.take(50).all(|r| r.is_ok()));
    let batch = journal.reader().batch(0, 10).unwrap();
    assert_eq!(batch.first_seq, journal.reader().first_seq());
    assert_eq!(batch.skipped.len(), 1);
    let waiting = journal.reader().committed();
    journal.append(entries(0..1));
    journal.commit().unwrap();
    assert!(waiting.has_changed().unwrap());
    assert_eq!(*waiting.borrow(), journal.next_seq());
}

#[test]
fn a_place_is_where_the_derived_key_says() {
    for e in entries(0..2000) {
        if !e.record.kind().streams() || e.key.is_some() {
            continue;
        }
        // The same key told as a source's own leads to the same place.
        let told = Entry {
            key: Some(crate::record::key::derive(&e.record).as_str().into()),
            ..e.clone()
        };
        assert_eq!(Place::of(&e), Place::of(&told));
    }
}
