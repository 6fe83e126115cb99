//! Hand-made tables with holes and dirt, and the published ones where they are.

use std::io::Write;
use std::path::Path;

use super::*;
use crate::predict::view::View;
use crate::race::{Compound, Event, TrackStatus};

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = zstd::stream::Encoder::new(std::fs::File::create(path).unwrap(), 1).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.finish().unwrap();
}

const HEADER: &str = "season,round,event_name,driver,driver_number,team,lap_number,lap_time_s,sector1_s,sector2_s,sector3_s,lap_end_session_s,stint,compound,tyre_life_laps,is_in_lap,is_out_lap,track_status,is_accurate";

#[test]
fn dirt_is_named_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let laps = format!(
        "{HEADER}\n\
         2031,1,Moon Grand Prix,ABC,7,New Team,1,95.0,,,,100.0,1,HYPERHARD,1,0,0,1,0\n\
         2031,1,Moon Grand Prix,ABC,7,New Team,2,fast,30.0,30.0,30.0,190.0,1,SOFT,2.0,0,0,1.0,1\n\
         2031,1,Moon Grand Prix,ABC,7,New Team,3,90.5,30.0,30.5,30.0,,1,SOFT,3,0,0,12,1.0\n\
         2031,1,Moon Grand Prix,ABC,7,New Team,3,90.5,30.0,30.5,30.0,,1,SOFT,3,0,0,1,1\n\
         2031,1,Moon Grand Prix,DEF,,New Team,1,95.0,,,,100.0,1,SOFT,1,0,0,1,1\n\
         2031,1,Moon Grand Prix,GHI,300,New Team,1,95.0,,,,100.0,1,SOFT,1,0,0,1,1\n\
         2031,1,Moon Grand Prix,JKL,8,Old Team,1,96.0,,,,101.0,1,MEDIUM,1,0,0,1,\n\
         2031,1,Moon Grand Prix,JKL,8,Old Team,2,91.0\n"
    );
    write(dir.path(), "laps/laps-2031.csv.zst", &laps);
    let set = Dataset::read(dir.path(), 2031..=2031).unwrap();
    let race = &set.races[0];
    assert_eq!(race.cars.len(), 2);
    let abc = race.car(7).unwrap();
    assert_eq!(abc.laps.len(), 3);
    assert_eq!(abc.laps[0].compound, Compound::Unknown);
    assert_eq!(abc.laps[1].time_s, None);
    assert!(!abc.laps[2].is_clean() && abc.laps[2].end_s == Some(280.5));
    // A row that breaks off has what it has.
    assert_eq!(race.car(8).unwrap().laps[1].end_s, Some(192.0));
    assert_eq!(set.faults.rows_skipped, 3);
    let named: Vec<String> = set.faults.named.iter().map(ToString::to_string).collect();
    assert!(
        named[0].contains("laps-2031.csv.zst line 3, lap_time_s = \"fast\""),
        "{named:?}"
    );
    assert!(
        named.iter().any(|f| f.contains("driver_number = \"300\"")),
        "{named:?}"
    );
    // (car, lap) in the order in which they ended.
    assert_eq!(race.order, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]);
}

#[test]
fn a_folder_without_laps_says_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Dataset::read(dir.path(), 2024..=2024).unwrap_err();
    assert!(
        missing.to_string().contains("laps/laps-*.csv.zst"),
        "{missing}"
    );
    let row = "2019,1,X,ABC,7,T,1,95.0,,,,100.0,1,SOFT,1,0,0,1,1";
    write(
        dir.path(),
        "laps/laps-2019.csv.zst",
        &format!("{HEADER}\n{row}\n"),
    );
    let wrong = Dataset::read(dir.path(), 2024..=2025).unwrap_err();
    assert!(wrong.to_string().ends_with("there are: 2019"), "{wrong}");
    write(
        dir.path(),
        "laps/laps-2024.csv.zst",
        &format!("{}\n2024{}\n", HEADER.replace("round", "rnd"), &row[4..]),
    );
    let unread = Dataset::read(dir.path(), 2024..=2024).unwrap_err();
    let told = unread.to_string();
    assert!(
        told.contains("1 rows were left out; the first fault: laps-2024.csv.zst line 2, round"),
        "{told}"
    );
}

#[test]
fn seasons_before_those_asked_for_are_folded_into_form() {
    let dir = tempfile::tempdir().unwrap();
    for season in [2027, 2028] {
        let rows: String = (1..=3)
            .map(|lap| {
                let end = 95 * lap;
                format!("{season},1,X,ABC,7,T,{lap},95.0,,,,{end},1,SOFT,{lap},0,0,1,1\n")
            })
            .collect();
        let name = format!("laps/laps-{season}.csv.zst");
        write(dir.path(), &name, &format!("{HEADER}\n{rows}"));
    }
    let mut faults = Faults::default();
    let history = form::History::read(dir.path(), &mut faults).unwrap();
    let asked = Dataset::read(dir.path(), 2028..=2028).unwrap();
    let before = form::between(dir.path(), &history, 2028).unwrap();
    let seasons: Vec<u16> = before.iter().map(|r| r.season).collect();
    assert_eq!(seasons, [2027]);
    let mut told = Vec::new();
    let races = before.iter().chain(&asked.races);
    form::fold(&history, races, |key, form, _| {
        told.push((key, form.clone()))
    });
    let both = Dataset::read(dir.path(), 2027..=2028).unwrap();
    let mut expected = Vec::new();
    form::fold(&history, &both.races, |key, form, _| {
        expected.push((key, form.clone()))
    });
    // As if both seasons had been asked for.
    assert_eq!(told.len(), 2);
    assert!(told == expected);
    // History that tells of them already is not told twice.
    let mut history = history;
    history.races.insert((2028, 1), form::PastRace::default());
    assert!(
        form::between(dir.path(), &history, 2028)
            .unwrap()
            .is_empty()
    );
}

/// The header is line 1, however lines end.
#[test]
fn faults_name_the_line_that_an_editor_shows() {
    for end in ["\n", "\r\n"] {
        let dir = tempfile::tempdir().unwrap();
        let row = "2031,1,X,ABC,7,T,1,95.0,,,,100.0,1,SOFT,1,0,0,1,1";
        let rows = [HEADER, row, &row.replace("95.0", "fast"), "", ""];
        write(dir.path(), "laps/laps-2031.csv.zst", &rows.join(end));
        let set = Dataset::read(dir.path(), 2031..=2031).unwrap();
        let named: Vec<String> = set.faults.named.iter().map(ToString::to_string).collect();
        assert!(
            named[0].contains("line 3, lap_time_s = \"fast\""),
            "{named:?}"
        );
        assert_eq!(set.races[0].cars[0].laps[0].accurate, Some(true));
    }
}

#[test]
fn a_walk_shows_only_what_was_known() {
    let Some(folder) = crate::predict::backtest::data() else {
        return;
    };
    let set = Dataset::read(&folder, 2023..=2024).unwrap();
    assert_eq!(set.races.len(), 43);
    assert_eq!(set.faults.count, 0, "{:?}", set.faults.named);
    let mut laps = 0;
    for race in &set.races {
        let mut clock = None;
        let mut finished = false;
        Walk::new(race).each(|view: &View, _, events| {
            assert!(Some(view.clock) >= clock || finished);
            clock = Some(view.clock);
            for car in &view.cars {
                assert!(car.last().is_none_or(|l| l.ended <= Some(view.clock)));
                assert!(
                    car.current
                        .is_none_or(|l| l.time_s.is_none() && l.sectors[2].is_none())
                );
            }
            laps += usize::from(matches!(events[0], Event::LapCompleted { .. }));
            finished |= view.finished;
        });
        assert!(finished, "{}", race.title());
        assert!(race.cars.iter().all(|c| c.grid.is_some() || c.number > 0));
        assert!(
            race.cars.iter().filter(|c| race.finished(c)).count() >= 10,
            "{}",
            race.title()
        );
    }
    assert_eq!(laps, set.races.iter().map(|r| r.order.len()).sum::<usize>());
    assert!(laps > 47_000, "{laps}");
}

/// What was known at a moment is the same whether or not the race went on: no feature looks ahead.
#[test]
fn features_know_nothing_of_later_laps() {
    let Some(folder) = crate::predict::backtest::data() else {
        return;
    };
    let set = Dataset::read(&folder, 2023..=2023).unwrap();
    let floor = crate::predict::Floor::shipped();
    for race in set.races.iter().step_by(7) {
        let whole = laptime::samples(race, &floor);
        let (car, lap) = race.order[race.order.len() * 2 / 3];
        let now = race.cars[car].laps[lap].end_s.unwrap();
        let mut cut = race.clone();
        for car in &mut cut.cars {
            // The lap in progress is there with its sectors: they are known once they are driven.
            let done = car
                .laps
                .iter()
                .position(|l| l.end_s.is_some_and(|t| t > now));
            car.laps.truncate(done.map_or(car.laps.len(), |d| d + 1));
        }
        let known = laptime::samples(&cut, &floor);
        let mut compared = 0;
        for (all, part) in whole.iter().zip(&known) {
            for (a, b) in all.iter().zip(part) {
                let car = race.car(a.car).unwrap();
                if car.lap(a.lap).is_some_and(|l| l.end_s <= Some(now)) {
                    assert_eq!(
                        a.line,
                        b.line,
                        "{} car {} lap {}",
                        race.title(),
                        a.car,
                        a.lap
                    );
                    assert_eq!(a.base_s, b.base_s);
                    compared += 1;
                }
            }
        }
        assert!(compared > 300, "{compared}");
    }
}

/// Where no times of status changes are published, digits of laps to come are not read: neither at the line nor within
/// the lap.
#[test]
fn no_digit_of_the_next_lap_is_read() {
    const LAPS: u16 = 20;
    let read = |cut: u16| {
        let dir = tempfile::tempdir().unwrap();
        let mut rows = format!("{HEADER}\n");
        // Nobody is in sector 3 when the leader ends his lap: all sectors of a lap come before its first digit.
        for (car, gap) in [(7_u16, 0.0), (8, 1.4), (9, 20.0)] {
            for lap in 1..=LAPS {
                // Safety cars on laps 6 and 7; from the cut on, another race.
                let status = match lap {
                    6 => "124",
                    7 => "41",
                    _ if lap > cut => "24",
                    _ => "1",
                };
                let end = 100.0 + gap + 95.0 * f64::from(lap);
                rows += &format!(
                    "2031,1,X,D{car},{car},T,{lap},95.0,30.0,40.0,25.0,{end},1,SOFT,{lap},0,0,{status},1\n"
                );
            }
        }
        write(dir.path(), "laps/laps-2031.csv.zst", &rows);
        Dataset::read(dir.path(), 2031..=2031).unwrap()
    };
    let floor = crate::predict::Floor::shipped();
    let (cut, whole) = (12, read(LAPS));
    let other = read(cut);
    let (race, changed) = (&whole.races[0], &other.races[0]);
    let known = |race: &RaceData| -> Vec<_> {
        let laps = laptime::samples(race, &floor).into_iter().flatten();
        let laps = laps.filter(|s| s.lap <= cut);
        laps.map(|s| (s.car, s.lap, s.line.map(f32::to_bits), s.sectors))
            .collect()
    };
    let rows = |race: &RaceData| -> Vec<_> {
        let rows = super::pit::samples(race, &floor).into_iter();
        let rows = rows.filter(|s| s.lap <= cut);
        rows.map(|s| (s.car, s.lap, s.features.map(f32::to_bits)))
            .collect()
    };
    assert_eq!(rows(race), rows(changed));
    let (a, b) = (known(race), known(changed));
    assert_eq!(a.len(), b.len());
    assert!(a.len() > 20, "{}", a.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!((a.0, a.1, a.2), (b.0, b.1, b.2));
        for (a, b) in a.3.iter().zip(&b.3) {
            let bits = |s: &Option<crate::predict::features::laptime::Sector>| {
                s.as_ref().map(|s| s.x.map(f32::to_bits))
            };
            assert_eq!(bits(a), bits(b));
        }
    }
    // What has been seen is known: the safety car came out on lap 6 and was gone at the end of lap 7.
    let mut seen = Vec::new();
    Walk::new(race).each(|view: &View, _, events| {
        if let Event::LapCompleted {
            driver_number: 7,
            lap,
        } = events[0]
        {
            seen.push((lap, view.status));
        }
    });
    let under = seen.iter().filter(|s| s.1 == TrackStatus::SafetyCar);
    assert_eq!(under.map(|s| s.0).collect::<Vec<_>>(), [6]);
}

#[test]
fn the_published_baseline_comes_out() {
    let Some(folder) = crate::predict::backtest::data() else {
        return;
    };
    let set = Dataset::read(&folder, 2024..=2024).unwrap();
    let floor = crate::predict::Floor::shipped();
    let mut errors = [crate::predict::scores::Errors::default(); 3];
    for race in &set.races {
        for row in laptime::samples(race, &floor).iter().flatten() {
            for (plain, errors) in row.plain_s.iter().zip(&mut errors) {
                if let (true, Some(plain), Some(truth)) = (row.graded, plain, row.truth_s) {
                    errors.add(*plain, truth);
                }
            }
        }
    }
    let [line, first, second] = errors.map(|e| e.mae().unwrap());
    assert!((line - 0.485).abs() < 0.001, "{line}");
    assert!((errors[0].rmse().unwrap() - 1.13).abs() < 0.01);
    assert!((first - 0.347).abs() < 0.001 && (second - 0.179).abs() < 0.001);
}
