//! `trackside analytics`: what the laps say about the drivers.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::json;

use crate::analytics::driver::{CleanLap, Driver, Entry, Field, judge};
use crate::analytics::season::{SeasonDriver, season};
use crate::cli::evaluate::races::side_by_side;
use crate::cli::recorded;
use crate::cli::say::{note, say};
use crate::compute::{Backend as _, Choice, Witness};
use crate::dataset::{CarData, Dataset, RaceData};
use crate::predict::floor::compound_index;
use crate::predict::view::View;

/// Most recordings that are read at a time: a season, and its sprints.
const MOST_RECORDINGS: usize = 64;

/// What the laps say about the drivers.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Pace, consistency, tyre management, sectors and teammates.
    Driver(Options),
}

#[derive(clap::Args)]
struct Options {
    /// Recordings of races: each by itself if there is one, else as a season.
    #[arg(value_name = "FILE", num_args = ..=MOST_RECORDINGS)]
    files: Vec<PathBuf>,
    /// Instead, a folder with laps/laps-*.csv.zst.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "files",
        requires = "season"
    )]
    data: Option<PathBuf>,
    /// The season of the folder.
    #[arg(long, value_name = "YEAR", requires = "data")]
    season: Option<u16>,
    /// One race of the season; without it, all.
    #[arg(long, requires = "data")]
    round: Option<u16>,
    /// One driver: three letters or a number.
    #[arg(long)]
    driver: Option<String>,
    /// What computes: a GPU where one works, the CPU, or a GPU and nothing else. All give the same figures.
    #[arg(long, value_name = "auto|cpu|cuda", default_value = "auto")]
    backend: Choice,
    /// Write everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let What::Driver(options) = &args.what;
    ensure!(
        options.data.is_some() || !options.files.is_empty(),
        "name recordings of races (FILE...), or a season of published laps (--data DIR --season YEAR)"
    );
    // Before anything is read: a wish that cannot be met is refused at once.
    let (backend, instead) = options.backend.open().context("--backend cuda")?;
    let (titles, laps): (Vec<String>, Vec<Vec<Entry>>) = match (&options.data, options.season) {
        (Some(data), Some(season)) => of_season(data, season, options.round)?,
        _ => of_recordings(&options.files)?,
    };
    let witness = Witness::of(&backend);
    let judged: Vec<(String, Field, Vec<Driver>)> = titles
        .into_iter()
        .zip(judge(&laps, &witness)?)
        .filter_map(|(race, judged)| judged.map(|(field, found)| (race, field, found)))
        .collect();
    let by = witness.by().name();
    match instead {
        _ if by != backend.name() => note!("on the CPU: the GPU failed"),
        Some(none) if !options.json => note!("on the CPU: {}", none.why),
        _ => {}
    }
    if judged.is_empty() {
        bail!("nobody drove enough clean laps to be judged");
    }
    match &judged[..] {
        [(race, field, found)] if laps.len() == 1 => one_race(options, by, race, field, found),
        _ => {
            let all: Vec<Vec<Driver>> = judged.into_iter().map(|j| j.2).collect();
            whole_season(options, by, &season(&all))
        }
    }
}

/// Laps of a season, or of one of its races.
fn of_season(
    data: &Path,
    season: u16,
    round: Option<u16>,
) -> anyhow::Result<(Vec<String>, Vec<Vec<Entry>>)> {
    let set = Dataset::read(data, season..=season)?;
    let wanted = |r: &&RaceData| round.is_none_or(|round| r.round == round);
    let races = || set.races.iter().filter(wanted);
    if races().next().is_none() {
        let rounds: Vec<String> = set.races.iter().map(|r| r.round.to_string()).collect();
        bail!(
            "{season} has no round {}; there are: {}",
            round.unwrap_or_default(),
            rounds.join(", ")
        );
    }
    Ok((
        races().map(RaceData::title).collect(),
        races().map(entries).collect(),
    ))
}

/// Laps of recorded races.
fn of_recordings(files: &[PathBuf]) -> anyhow::Result<(Vec<String>, Vec<Vec<Entry>>)> {
    let read = side_by_side("recordings", files, |file| {
        let (race, _) = recorded::fold(file, |_| false)?;
        ensure!(
            race.session.session_type.is_race(),
            "{} is no race: {:?}",
            file.display(),
            race.session.session_type
        );
        let view = View::of(&race);
        let title = match view.circuit.as_str() {
            "" => file.display().to_string(),
            circuit => circuit.to_owned(),
        };
        Ok((title, view.cars.iter().map(Entry::of).collect()))
    });
    read.into_iter().collect()
}

fn one_race(
    options: &Options,
    by: &str,
    race: &str,
    field: &Field,
    found: &[Driver],
) -> anyhow::Result<()> {
    let chosen = chosen(options, found, |d| (&d.driver, d.number))?;
    if options.json {
        let answer = json!({ "race": race, "backend": by, "field": field, "drivers": chosen });
        say!("{}", serde_json::to_string(&answer)?);
        return Ok(());
    }
    say!(
        "{}: lap {:.3} s, fuel and track {:+.3} s a lap",
        race,
        field.lap_s,
        field.fuel_s_per_lap
    );
    say!(
        "{:<5} {:>4} {:>8} {:>7} {:>8} {:>9} {:>8} {:>8} {:>8}  teammate",
        "",
        "laps",
        "pace s",
        "pace %",
        "scatter",
        "wear s/l",
        "S1 s",
        "S2 s",
        "S3 s"
    );
    for d in chosen {
        let mate = d.teammate.as_ref().map_or(String::new(), |m| {
            format!(
                "{:+.3} s against {}, quicker on {} of {}",
                m.pace_s,
                named(&m.driver, m.number),
                m.quicker,
                m.compared
            )
        });
        let figures = [d.pace_s, d.pace_percent, d.consistency_s, d.wear_s_per_lap];
        say!(
            "{:<5} {:>4} {}  {mate}",
            named(&d.driver, d.number),
            d.laps,
            columns(figures, d.sectors_s)
        );
    }
    Ok(())
}

fn whole_season(options: &Options, by: &str, found: &[SeasonDriver]) -> anyhow::Result<()> {
    let chosen = chosen(options, found, |d| (&d.driver, d.number))?;
    if options.json {
        let answer = json!({ "season": options.season, "backend": by, "drivers": chosen });
        say!("{}", serde_json::to_string(&answer)?);
        return Ok(());
    }
    say!(
        "{:<5} {:>5} {:>5} {:>8} {:>7} {:>8} {:>9} {:>8} {:>8} {:>8}  against teammates",
        "",
        "races",
        "laps",
        "pace s",
        "pace %",
        "scatter",
        "wear s/l",
        "S1 s",
        "S2 s",
        "S3 s"
    );
    for d in chosen {
        let mate = d.teammate_pace_s.map_or(String::new(), |p| {
            format!(
                "{p:+.3} s, ahead in {} of {}",
                d.teammate_beaten, d.teammate_races
            )
        });
        let figures = [d.pace_s, d.pace_percent, d.consistency_s, d.wear_s_per_lap];
        say!(
            "{:<5} {:>5} {:>5} {}  {mate}",
            named(&d.driver, d.number),
            d.races,
            d.laps,
            columns(figures, d.sectors_s)
        );
    }
    Ok(())
}

fn columns([pace, percent, scatter, wear]: [Option<f64>; 4], sectors: [Option<f64>; 3]) -> String {
    let of = |v: Option<f64>, width: usize, digits: usize| match v {
        Some(v) => format!("{v:>+width$.digits$}"),
        None => format!("{:>width$}", "-"),
    };
    let [s1, s2, s3] = sectors.map(|s| of(s, 8, 3));
    format!(
        "{} {} {} {} {s1} {s2} {s3}",
        of(pace, 8, 3),
        of(percent, 7, 3),
        of(scatter, 8, 3),
        of(wear, 9, 4)
    )
}

fn named(driver: &str, number: u8) -> String {
    if driver.is_empty() {
        number.to_string()
    } else {
        driver.to_owned()
    }
}

/// The driver that was asked for, or everybody.
fn chosen<'a, T>(
    options: &Options,
    all: &'a [T],
    of: impl Fn(&T) -> (&String, u8),
) -> anyhow::Result<Vec<&'a T>> {
    let Some(wanted) = &options.driver else {
        return Ok(all.iter().collect());
    };
    let is_wanted = |d: &&T| {
        let (letters, number) = of(d);
        letters.eq_ignore_ascii_case(wanted) || number.to_string() == *wanted
    };
    let names: Vec<String> = all.iter().map(|d| named(of(d).0, of(d).1)).collect();
    let found = all.iter().find(is_wanted);
    let found = found.with_context(|| {
        format!(
            "no driver {wanted} has enough clean laps; there are: {}",
            names.join(", ")
        )
    })?;
    Ok(vec![found])
}

fn entries(race: &RaceData) -> Vec<Entry> {
    race.cars.iter().map(entry).collect()
}

fn entry(car: &CarData) -> Entry {
    let (mut stint, mut laps) = (0, Vec::new());
    for lap in &car.laps {
        stint += u8::from(lap.is_out);
        if !lap.is_clean() {
            continue;
        }
        if let (Some(time_s), Some(compound), Some(age)) =
            (lap.time_s, compound_index(lap.compound), lap.tyre_age)
        {
            laps.push(CleanLap {
                number: lap.lap,
                time_s,
                sectors: lap.sectors,
                compound,
                age: f64::from(age),
                stint,
            });
        }
    }
    Entry {
        number: car.number,
        driver: car.driver.clone(),
        team: car.team.clone(),
        laps,
    }
}
