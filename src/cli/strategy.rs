//! `trackside strategy`: what to do about the stops of a car at a lap of a recorded race.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::json;

use crate::cli::recorded;
use crate::cli::say::say;
use crate::compute::choice::NoGpu;
use crate::compute::{Backend as _, By, Choice, Witness};
use crate::engines::Chosen;
use crate::inference;
use crate::predict::{Floor, Predictor};
use crate::race::{CarStatus, Race};
use crate::strategy::duel::{Rival, Terms, board_on};
use crate::strategy::model::{LapsFrom, Start};
use crate::strategy::moment::Moment;
use crate::strategy::opinion::{PIT, Policy};
use crate::strategy::parameters::Parameters;
use crate::strategy::planner::{Advice, Kind, Outlook, Question, advise_on};
use crate::strategy::rejoin::{Rejoin, rejoins};
use crate::strategy::rules::Told;
use crate::strategy::snapshot::compound_of;

/// Share of the simulations that a duel is given.
const DUEL_SHARE: u32 = 4;
/// Plans that the table shows.
const PLANS_SHOWN: usize = 12;

/// Advise a car on its stops: every plan over the same simulated races.
#[derive(clap::Args)]
pub struct Args {
    /// The recording.
    file: PathBuf,
    /// When the driver has completed this many laps; 0 is the grid.
    #[arg(long, value_name = "N")]
    lap: u16,
    /// The driver: a number or three letters.
    #[arg(long, value_name = "D")]
    driver: String,
    /// Races that each of the best plans is tried on.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    simulations: u32,
    /// Laps of the race; without it, as telemetry measures the lap or as its circuit last had, else a guess.
    #[arg(long, value_name = "N")]
    laps: Option<NonZeroU16>,
    /// Changes of tyres that every car must make; 0 for none. Without it, as the rules of that race were.
    #[arg(long, value_name = "N")]
    min_stops: Option<u8>,
    /// Laps that a set may do; 0 for any number. Without it, as the rules of that race were.
    #[arg(long, value_name = "LAPS")]
    longest_stint: Option<u16>,
    /// Seed of the random numbers: the same seed, the same answer.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What simulates: a GPU where one works, the CPU, or a GPU and nothing else. Both give the same answer.
    #[arg(long, value_name = "auto|cpu|cuda", default_value = "auto")]
    backend: Choice,
    /// Write everything as JSON, on one line.
    #[arg(long)]
    json: bool,
    /// Folder of the models, for the network's second opinion, or `none`.
    #[arg(
        long,
        value_name = "DIR|none",
        default_value = "",
        hide_default_value = true
    )]
    engines: Chosen,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    // Before the recording is read: a wish that cannot be met is refused at once.
    let rules = rules(args)?;
    let (backend, instead) = args.backend.open().context("--backend cuda")?;
    let (race, laps) = fold(&args.file, args.lap, &args.driver)?;
    let parameters = Parameters::shipped();
    let told = args.laps.map(|laps| (laps.get(), LapsFrom::Told));
    let moment = Moment::of(&race, told.or(laps));
    let mut start = Start::at(&parameters, &moment);
    start.rules = rules.over(start.rules);
    let number = number(&race, &args.driver)?;
    let car = start
        .cars
        .iter()
        .position(|c| c.number == number)
        .with_context(|| format!("car {number} is not in the race"))?;
    let question = Question {
        car,
        races: args.simulations,
        seed: args.seed,
    };
    let witness = Witness::of(&backend);
    let advice = advise_on(&witness, &start, &parameters, question)?;
    let network = policy(&args.engines)?;
    let network = match &network {
        Some(policy) => Some(policy.opinion(&start, &parameters, car, Some(&advice))?),
        None => None,
    };
    let compound = advice
        .plans
        .iter()
        .find_map(|p| p.candidate.plan.stops[..p.candidate.plan.count as usize].first())
        .map_or(2, |s| s.compound as u8);
    let terms = Terms {
        car,
        compound,
        races: (args.simulations / DUEL_SHARE).max(16),
        seed: args.seed,
    };
    let rivals = board_on(&witness, &start, &parameters, terms)?;
    let by = Computed::new(&witness, instead);
    let rejoins = rejoins(&start, &parameters, car);
    let named = |n: u8| {
        race.car(n)
            .map_or_else(|| n.to_string(), |c| c.acronym.as_str().to_owned())
    };
    if args.json {
        let threats = rivals.iter().map(|r| json!({
            "driver_number": r.number, "driver": named(r.number), "ahead_by_s": r.ahead_by_s,
            "undercut": r.undercut(), "overcut": r.overcut(),
            "threat_undercut": r.threat().map(|t| t.0), "threat_on_the_road": r.threat().map(|t| t.1),
        }));
        let entrant = &start.cars[car];
        say!(
            "{}",
            json!({
                "driver": named(number), "circuit": start.circuit, "backend": by.by, "no_gpu": by.no_gpu,
                "simulations": args.simulations, "seed": args.seed,
                "status": format!("{:?}", start.status).to_lowercase(), "wetness": start.level,
                "compound": compound_of(entrant.compound).name(), "tyre_age": entrant.age,
                "pace_s": entrant.pace_s, "pace_spread_s": entrant.pace_spread_s, "wear": entrant.wear,
                "advice": advice, "network": network, "rejoin": rejoins, "rivals": threats.collect::<Vec<_>>(),
            })
        );
        return Ok(());
    }
    let entrant = &start.cars[car];
    say!(
        "{} ({number}), {}: lap {} of {}, P{}, {} {} laps old",
        named(number),
        if start.circuit.is_empty() {
            "unknown circuit"
        } else {
            &start.circuit
        },
        start.lap,
        told_laps(&start),
        advice.position,
        compound_of(entrant.compound).name(),
        entrant.age,
    );
    if let Some(rules) = start.rules.named() {
        say!("under {rules}");
    }
    table(&advice, args.simulations, &by);
    tell_rejoins(&rejoins, named);
    tell_rivals(&rivals, named);
    say!("\n{}.", advice.reason);
    if let Some(opinion) = network {
        say!("{}: {}.", opinion.model, opinion.reason);
    }
    Ok(())
}

/// The rules that are told.
fn rules(args: &Args) -> anyhow::Result<Told> {
    let told = Told {
        min_stops: args.min_stops,
        longest_stint_laps: args.longest_stint,
    };
    match told.check() {
        Err(("min_stops", why)) => bail!("--min-stops: {why}"),
        Err((_, why)) => bail!("--longest-stint: {why}"),
        Ok(()) => Ok(told),
    }
}

/// The pit network, where there is one.
fn policy(engines: &Chosen) -> anyhow::Result<Option<Policy>> {
    let Some(folder) = engines.folder() else {
        return Ok(None);
    };
    let manifest = inference::Manifest::read(&folder)?;
    if !manifest.models.iter().any(|m| m.name == PIT) {
        return Ok(None);
    }
    Ok(Some(Policy::new(inference::load(&folder, PIT)?.into())?))
}

/// The laps of the race, and whether that is a guess.
fn told_laps(start: &Start) -> String {
    match start.laps_from {
        LapsFrom::Guess => format!("{} (a guess; --laps says it)", start.laps),
        LapsFrom::Measured => format!("{} (as measured; --laps says it)", start.laps),
        LapsFrom::Told | LapsFrom::Calendar | LapsFrom::Circuit => start.laps.to_string(),
    }
}

/// Folds a recording until the driver has completed that lap; the laps of the race are told with it, as the daemon
/// would know them then.
fn fold(file: &Path, lap: u16, driver: &str) -> anyhow::Result<(Race, Option<(u16, LapsFrom)>)> {
    let reached = |race: &Race| {
        let Ok(number) = number(race, driver) else {
            return false;
        };
        race.car(number).is_some_and(|c| match lap {
            0 => c.current_lap() > 0,
            _ => c.laps_completed >= lap,
        })
    };
    // The floor alone, for its sense of distance.
    let mut predictor = Predictor::new(Floor::shipped());
    let (race, reached) = recorded::follow(file, |race, seq, events| {
        predictor.observe(race, seq, events);
        !events.is_empty() && reached(race)
    })?;
    if reached {
        ensure!(
            race.session.session_type.is_race(),
            "{} is no race: {:?}",
            file.display(),
            race.session.session_type
        );
        return Ok((race, predictor.laps()));
    }
    let number = number(&race, driver)?;
    let car = race.car(number);
    let done = car.map_or(0, |c| c.laps_completed);
    // After the flag there is nothing to plan.
    let finished = car.is_some_and(|c| c.status == CarStatus::Finished);
    let last = done - u16::from(finished && done > 0);
    bail!(
        "{}: car {number} completes {done} laps in this recording; ask for --lap 0 to {last}",
        file.display()
    )
}

fn number(race: &Race, driver: &str) -> anyhow::Result<u8> {
    let found = race
        .cars()
        .iter()
        .find(|c| c.acronym.eq_ignore_ascii_case(driver) || driver.parse() == Ok(c.driver_number));
    found.map(|c| c.driver_number).with_context(|| {
        let mut known: Vec<&str> = race.cars().iter().map(|c| c.acronym.as_str()).collect();
        known.sort_unstable();
        match known.len() {
            0 => format!(
                "no driver {driver:?}: the file holds no cars; is it a recording of a race's feed?"
            ),
            _ => format!(
                "no driver {driver:?}; there are {} (or their numbers)",
                known.join(" ")
            ),
        }
    })
}

/// What did the work, and why not the GPU.
struct Computed {
    by: By,
    no_gpu: Option<String>,
}

impl Computed {
    /// After the work.
    fn new(backend: &Witness<'_>, instead: Option<NoGpu>) -> Computed {
        let by = backend.by();
        let failed = || {
            let failed = by.name() != backend.name();
            failed.then(|| "the GPU failed, and the CPU took over".to_owned())
        };
        Computed {
            by,
            no_gpu: instead.map(|none| none.why).or_else(failed),
        }
    }
}

fn table(advice: &Advice, simulations: u32, computed: &Computed) {
    let why = computed.no_gpu.as_ref();
    say!(
        "\n{simulations} races a plan, the same races for each, on {}{}\n",
        computed.by.name(),
        why.map_or_else(String::new, |why| format!(" ({why})"))
    );
    say!(
        "  {:<44} {:>5} {:>5} {:>5}  {:>6} {:>6} {:>6} {:>6}  {:>8}",
        "plan",
        "P10",
        "mean",
        "P90",
        "gain",
        "lose",
        "podium",
        "points",
        "time (s)"
    );
    for (place, plan) in advice.plans.iter().take(PLANS_SHOWN).enumerate() {
        let Outlook {
            candidate,
            position,
            ..
        } = plan;
        let percent = |x: f64| format!("{:.0} %", 100.0 * x);
        say!(
            "{} {:<44} {:>5.0} {:>5.2} {:>5.0}  {:>6} {:>6} {:>6} {:>6}  {:>8.1}",
            if place == 0 {
                "▶"
            } else if candidate.kind == Kind::BoxNow {
                "·"
            } else {
                " "
            },
            candidate.name,
            position.p10,
            position.mean,
            position.p90,
            percent(plan.gain),
            percent(plan.lose),
            percent(plan.podium),
            percent(plan.points),
            plan.time_s.mean,
        );
    }
}

fn tell_rejoins(rejoins: &[Rejoin], named: impl Fn(u8) -> String) {
    say!("\nif it boxed now");
    for r in rejoins {
        let gap = |g: Option<f64>| g.map_or_else(|| "–".to_owned(), |g| format!("{g:.1} s"));
        say!(
            "  {:<20} −{:.1} s: P{} ({} lost), {} behind {}, {} to the car behind, {} in traffic range",
            r.under.replace('_', " "),
            r.loss_s,
            r.position,
            r.places_lost,
            gap(r.gap_ahead_s),
            r.behind_car.map_or_else(|| "nobody".to_owned(), &named),
            gap(r.gap_behind_s),
            r.traffic,
        );
    }
}

fn tell_rivals(rivals: &[Rival], named: impl Fn(u8) -> String) {
    if rivals.is_empty() {
        return;
    }
    say!("\nrivals");
    for r in rivals {
        let who = named(r.number);
        let percent = |x: f64| format!("{:.0} %", 100.0 * x);
        if let (Some(under), Some(over)) = (r.undercut(), r.overcut()) {
            say!(
                "  {who:<4} {:>5.1} s ahead   undercut {:>5}  overcut {:>5}",
                r.ahead_by_s,
                percent(under),
                percent(over)
            );
        } else if let Some((under, road)) = r.threat() {
            say!(
                "  {who:<4} {:>5.1} s behind  undercuts us {:>5}  passes on the road {:>5}",
                r.ahead_by_s.abs(),
                percent(under),
                percent(road)
            );
        }
    }
}
