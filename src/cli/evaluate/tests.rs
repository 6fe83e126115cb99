use std::collections::BTreeMap;
use std::path::Path;

use super::*;

#[test]
fn seasons_are_years_in_order() {
    assert_eq!(seasons("2024").unwrap(), 2024..=2024);
    assert_eq!(seasons("2018-2023").unwrap(), 2018..=2023);
    for wrong in ["", "2024-2018", "twenty", "18-23"] {
        assert!(seasons(wrong).is_err(), "{wrong}");
    }
}

/// The shipped models.
fn engines() -> Chosen {
    Chosen::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("engines"))
}

fn common(data: &Path, seasons: RangeInclusive<u16>) -> Common {
    Common {
        data: data.to_owned(),
        seasons,
        features: None,
        engines: engines(),
        engine: crate::engines::computed::Computed::Cpu,
        json: true,
    }
}

/// A folder with the laps of some races of 2024 as a season that nobody has seen: other drivers, numbers, teams,
/// events and rubber. No calendar, grid, result or stop; `without` columns are not there at all, and the second race
/// has no sectors. `None` where there are no tables.
fn unseen(rounds: &[&str], without: &[&str]) -> Option<tempfile::TempDir> {
    let data = crate::predict::backtest::data()?;
    let file = std::fs::File::open(data.join("laps/laps-2024.csv.zst")).unwrap();
    let text = String::from_utf8(zstd::decode_all(file).unwrap()).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let kept: Vec<usize> = (0..header.len())
        .filter(|c| !without.contains(&header[*c]))
        .collect();
    let names: Vec<&str> = kept.iter().map(|c| header[*c]).collect();
    let mut written = names.join(",") + "\n";
    let mut teams = BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let round = cells[1];
        if !rounds.contains(&round) {
            continue;
        }
        let next = teams.len();
        let team = *teams.entry(cells[6]).or_insert(next);
        let other = |c: &usize| -> String {
            let cell = cells[*c];
            match header[*c] {
                "season" => "2031".to_owned(),
                "event_name" => format!("Lunar Grand Prix {round}"),
                "session_key" => String::new(),
                "driver" => cell.chars().rev().collect(),
                "driver_number" => (cell.parse::<u16>().unwrap() + 100).to_string(),
                "team" => format!("Scuderia {team}"),
                "compound_name" => "C9".to_owned(),
                "compound" if cells[5] == "1" => "HYPERSOFT".to_owned(),
                "sector1_s" | "sector2_s" | "sector3_s" if round == rounds[1] => String::new(),
                _ => cell.to_owned(),
            }
        };
        let row: Vec<String> = kept.iter().map(other).collect();
        written += &(row.join(",") + "\n");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("laps")).unwrap();
    std::fs::write(dir.path().join("laps/laps-2031.csv"), written).unwrap();
    Some(dir)
}

/// The number at that path of keys.
fn at(figures: &Value, path: &str) -> f64 {
    let found = path.split('.').fold(figures, |v, key| &v[key]);
    found
        .as_f64()
        .unwrap_or_else(|| panic!("{path} is {found}"))
}

#[test]
fn seasons_that_nobody_has_seen_are_judged_alike_on_any_number_of_threads() {
    let without = ["date_start_utc", "air_temp_c", "track_temp_c", "rainfall"];
    let Some(dir) = unseen(&["1", "9"], &without) else {
        return;
    };
    let args = common(dir.path(), 2031..=2031);
    let pit = pit::Args {
        common: common(dir.path(), 2031..=2031),
        regret_races: 1,
    };
    let judge = || {
        [
            laptime::figures(&args).unwrap(),
            outcome::figures(&args).unwrap(),
            pit::figures(&pit).unwrap(),
        ]
    };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(judge)
    };
    let one = on(1);
    assert_eq!(one, on(3));
    let [laptime, outcome, pit] = one;
    assert!(at(&laptime, "laptime.laps") > 1000.0);
    assert!(at(&laptime, "laptime.laps_after_s1") > 500.0);
    assert!(at(&laptime, "laptime.mae") < at(&laptime, "laptime.baselines.previous_lap.mae"));
    for key in [
        "mae_after_s1",
        "mae_after_s2",
        "coverage80",
        "baselines.floor.mae",
        "seasons.2031.mae",
    ] {
        assert!(at(&laptime, &format!("laptime.{key}")) > 0.0, "{key}");
    }
    assert_eq!(at(&outcome, "outcome.failures"), 0.0);
    assert_eq!(at(&outcome, "outcome.races_without_grid"), 2.0);
    for who in ["", "baselines.current_order.", "baselines.grid_certain."] {
        let grid_known = !who.contains("grid");
        for moment in [25, 50, 75] {
            for key in ["podium_overlap", "log_loss_top3", "brier_top3"] {
                let value = &outcome["outcome"];
                let value = who
                    .split('.')
                    .filter(|k| !k.is_empty())
                    .fold(value, |v, k| &v[k]);
                let value = &value[key][moment.to_string()];
                assert_eq!(
                    value.is_number(),
                    grid_known,
                    "{who}{key}.{moment}: {value}"
                );
            }
        }
    }
    assert!(outcome["outcome"]["podium_overlap"]["0"].is_null());
    for key in ["calibration_error_top3", "calibration_error_win"] {
        assert!(at(&outcome, &format!("outcome.{key}")) < 0.2, "{key}");
    }
    for key in ["f1_within_2_laps", "compound_accuracy", "regret_ratio"] {
        assert!(at(&pit, &format!("pit.{key}")) > 0.0, "{key}");
    }
    assert!(at(&pit, "pit.baselines.fixed_plan.f1_within_2_laps") > 0.0);
}

/// A GPU that fails half way through leaves its model to the CPU, whose figures these are not to be.
#[test]
fn figures_of_another_engine_than_was_asked_for_are_none() {
    let mut common = common(Path::new("nowhere"), 2031..=2031);
    let engine = common.engine("pit").unwrap();
    let mut figures = Map::new();
    common
        .computed(&mut figures, &[engine.clone(), None])
        .unwrap();
    assert_eq!(figures["computed_by"], "cpu");
    common.engine = "tensorrt-fp16".parse().unwrap();
    let told = common.computed(&mut figures, &[None, engine]).unwrap_err();
    let told = format!("{told:#}");
    for part in ["pit-1", "tensorrt-fp16", "tract has answered"] {
        assert!(told.contains(part), "{told}");
    }
    // The floor is nobody's.
    let mut figures = Map::new();
    common.computed(&mut figures, &[None]).unwrap();
    assert!(figures.is_empty());
}

#[test]
fn rehearsed_answers_are_the_daemons() {
    use crate::dataset::Walk;
    use crate::predict::models::LapTimeModel;
    use crate::predict::{Floor, Models, Predictor};
    use crate::record::prediction::Prediction;

    let Some(dir) = unseen(&["1", "9"], &["date_start_utc"]) else {
        return;
    };
    let mut set = Dataset::read(dir.path(), 2031..=2031).unwrap();
    let race = &mut set.races[0];
    // The daemon takes its time: a few laps tell.
    for car in &mut race.cars {
        car.laps.truncate(12);
    }
    let floor = Floor::shipped();
    let model = Models {
        laptime: engines().load().unwrap().laptime,
        ..Models::none()
    };
    let mut daemon = Predictor::new(floor.clone())
        .with_models(model)
        .with_calendar(race.calendar.lap_km);
    let mut expected = Vec::new();
    Walk::new(race).each(|view, seq, events| {
        for prediction in daemon.observe_view(view, seq, events) {
            if let Prediction::LapTime(p) = prediction {
                expected.push(((p.driver_number, p.lap_number, p.sectors_known), p));
            }
        }
    });
    let batched = common(dir.path(), 2031..=2031).engine("laptime").unwrap();
    let batched = LapTimeModel::new(batched.unwrap()).unwrap();
    let rehearsal = rehearsal::Rehearsal::new(batched.into()).unwrap();
    let rows = crate::dataset::laptime::samples(race, &floor);
    let models = Models {
        laptime: Some(rehearsal.of(&rows).unwrap().into()),
        ..Models::none()
    };
    let (made, failure) = laptime::drive(race, &floor, models);
    assert_eq!(failure, None);
    let by_model = expected
        .iter()
        .filter(|(_, p)| p.provenance.model != "floor-1");
    assert!(by_model.count() > 300);
    for (key, p) in &expected {
        let (a, b) = (p.lap_time, made[key]);
        for (a, b) in [(a.p10, b.p10), (a.p50, b.p50), (a.p90, b.p90)] {
            // A larger batch may sum in another order.
            assert!((a - b).abs() < 0.003, "{key:?}: {a} {b}");
        }
    }
}

#[test]
fn a_season_without_laps_names_the_file_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("laps")).unwrap();
    std::fs::write(
        dir.path().join("laps/laps-2031.csv"),
        "season,round,driver_number,lap_number\n",
    )
    .unwrap();
    let told = laptime::figures(&common(dir.path(), 2031..=2032)).unwrap_err();
    let told = format!("{told:#}");
    for part in ["laps", "2031-2032", "put laps-2031.csv.zst there", "none"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn the_models_hold_their_figures_on_2024() {
    let Some(data) = crate::predict::backtest::data() else {
        return;
    };
    let args = common(&data, 2024..=2024);
    let laptime = laptime::figures(&args).unwrap();
    let outcome = outcome::figures(&args).unwrap();
    println!("{laptime}\n{outcome}");
    assert!(at(&laptime, "laptime.mae") <= 0.38);
    assert!((0.78..=0.82).contains(&at(&laptime, "laptime.coverage80")));
    for key in ["", "_after_s1", "_after_s2"] {
        let gain = at(&laptime, &format!("laptime.better_than_previous_lap{key}"));
        assert!(gain >= 0.2, "{key}: {gain}");
    }
    for moment in ["0", "25", "50", "75"] {
        let of = |who: &str, key: &str| at(&outcome, &format!("outcome.{who}{key}.{moment}"));
        for than in ["baselines.current_order.", "baselines.grid."] {
            for key in ["log_loss_top3", "brier_top3"] {
                assert!(of("", key) < of(than, key), "{than}{key} at {moment}");
            }
            assert!(of("", "podium_overlap") >= of(than, "podium_overlap"));
        }
    }
    for key in ["top3", "win"] {
        assert!(at(&outcome, &format!("outcome.calibration_error_{key}")) <= 0.03);
    }
    assert_eq!(at(&outcome, "outcome.moments_missing"), 0.0);
    let pit = pit::Args {
        common: common(&data, 2024..=2024),
        regret_races: 0,
    };
    let pit = pit::figures(&pit).unwrap();
    println!("{pit}");
    let of = |key: &str| at(&pit, &format!("pit.{key}"));
    assert!(of("f1_within_2_laps") > 0.40 && of("brier") < 0.0465);
    assert!(of("f1_within_2_laps") > 1.25 * of("baselines.floor.f1_within_2_laps"));
    assert!(of("lap_within_1") > 0.30);
    assert!(of("compound_accuracy") >= of("baselines.floor.compound_accuracy"));
}

/// Over races of all kinds of circuits, at a circuit that nobody knows.
#[test]
fn the_network_and_monte_carlo_lose_less_to_hindsight_than_plans_do() {
    let Some(dir) = unseen(&["10", "16", "22"], &[]) else {
        return;
    };
    let pit = pit::Args {
        common: common(dir.path(), 2031..=2031),
        regret_races: 2,
    };
    let pit = pit::figures(&pit).unwrap();
    let ratio = at(&pit, "pit.regret_ratio");
    assert!(ratio < 0.88, "{ratio}");
}

/// The race of 2020 on the outer layout: a known name, and 87 laps.
#[test]
fn another_layout_under_a_known_name_is_judged_to_its_end() {
    let Some(data) = crate::predict::backtest::data() else {
        return;
    };
    let mut set = Dataset::read(&data, 2020..=2020).unwrap();
    let race = set.races.iter_mut().find(|r| r.title().contains("Sakhir"));
    let race = race.expect("it is among the published races");
    let floor = crate::predict::Floor::shipped();
    let furthest = |race: &crate::dataset::RaceData| {
        let (made, _) = laptime::drive(race, &floor, crate::predict::Models::none());
        made.keys().map(|key| key.1).max()
    };
    assert_eq!(race.calendar.lap_km, Some(3.543));
    assert_eq!(furthest(race), Some(87));
    // Without a calendar lap times tell that it is another layout.
    race.calendar.lap_km = None;
    assert!(furthest(race) >= Some(87));
}
