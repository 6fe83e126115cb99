//! `trackside journal ls|verify|repair|export`. All but repair read beside a running daemon.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustc_hash::FxHashSet;
use serde_json::json;

use crate::cli::say::{note, say};
use crate::journal::{Journal, Options, Progress, Query, Reader, export, repair, verify};
use crate::record::{Kind, Time};

/// Which of a data directory's journals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stream {
    /// What the feeds said.
    Records,
    /// What trackside said.
    Predictions,
}

/// Where the journal is.
#[derive(Debug, Args)]
pub struct Place {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Which journal in it
    #[arg(long, value_enum, default_value = "records")]
    stream: Stream,
}

impl Place {
    fn dir(&self) -> anyhow::Result<PathBuf> {
        let dir = self.data.join(match self.stream {
            Stream::Records => "records",
            Stream::Predictions => "predictions",
        });
        if !dir.is_dir() {
            bail!(
                "no journal in {}; --data names the daemon's data directory",
                dir.display()
            );
        }
        Ok(dir)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A recording, to be replayed
    Ndjson,
    Csv,
    Parquet,
}

/// Look into a journal, check it, mend it, get data out of it.
#[derive(Debug, Args)]
pub struct JournalArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List segments and sessions
    Ls {
        #[command(flatten)]
        place: Place,
        /// As JSON, with entries and distinct documents of each kind (reads everything)
        #[arg(long)]
        json: bool,
    },
    /// Hold every block against its checksums; exit code 1 if something is damaged
    Verify {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
    /// Put damaged blocks into quarantine and rebuild the index (stop the daemon first)
    Repair {
        #[command(flatten)]
        place: Place,
    },
    /// Write records to a file
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    place: Place,
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
    /// A collection, such as car_data or laps (CSV and Parquet need one)
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    /// A session_key
    #[arg(long)]
    session: Option<i32>,
    /// A driver_number
    #[arg(long)]
    driver: Option<u8>,
    /// The first date, such as 2024-03-02T15:00:00Z
    #[arg(long)]
    from: Option<Time>,
    /// The first date that is no longer wanted
    #[arg(long)]
    to: Option<Time>,
    /// Where to; `-` is the standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Kind::ALL.into_iter().map(Kind::name).collect();
        format!("no collection is called so; there are {}", names.join(", "))
    })
}

/// A progress bar on stderr; none where that is not a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) =
        ProgressStyle::with_template("{msg} [{bar:40}] {human_pos}/{human_len} {eta}")
    {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar) -> impl FnMut(Progress) {
    let bar = bar.clone();
    move |p| {
        bar.set_message(p.what);
        bar.set_length(p.of);
        bar.set_position(p.done);
    }
}

/// Runs `trackside journal …`.
pub fn run(args: JournalArgs) -> anyhow::Result<()> {
    match args.command {
        Command::Ls { place, json } => ls(&place.dir()?, json),
        Command::Verify { place, json } => {
            if !run_verify(&place.dir()?, json)? {
                std::process::exit(1);
            }
            Ok(())
        }
        Command::Repair { place } => run_repair(&place.dir()?),
        Command::Export(args) => run_export(&args),
    }
}

/// Distinct documents of each kind. Kind by kind, so that only one kind's keys are in memory.
fn documents(
    reader: &Reader,
    kinds: &BTreeMap<&str, u64>,
) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut documents = BTreeMap::new();
    for name in kinds.keys() {
        let Some(kind) = Kind::from_name(name) else {
            continue;
        };
        let mut keys = FxHashSet::default();
        for found in reader.query(&Query::of(kind)) {
            keys.insert(found?.1.document().hash);
        }
        documents.insert(kind.name().to_owned(), keys.len() as u64);
    }
    Ok(documents)
}

fn ls(dir: &Path, as_json: bool) -> anyhow::Result<()> {
    let reader = Journal::open_read_only(dir, &mut |_| {})?;
    let segments = reader.segments();
    let sessions = reader.sessions();
    let kinds = reader.entries_by_kind();
    if as_json {
        let report = json!({
            "first_seq": reader.first_seq(),
            "next_seq": reader.next_seq(),
            "segments": segments,
            "sessions": sessions,
            "entries": kinds,
            "documents": documents(&reader, &kinds)?,
            "losses": reader.losses(),
        });
        say!("{report:#}");
        return Ok(());
    }
    say!("records {}..{}", reader.first_seq(), reader.next_seq());
    for s in &segments {
        say!(
            "  {}  {} bytes  records {}..{}",
            s.file,
            s.bytes,
            s.first_seq,
            s.end_seq
        );
    }
    for s in &sessions {
        let total: u64 = s.entries.values().sum();
        let date = |t: Option<Time>| t.map_or("?".to_owned(), |t| t.to_string());
        say!(
            "session {}: {total} records, {} to {}",
            s.session_key,
            date(s.first),
            date(s.last)
        );
        for (kind, n) in &s.entries {
            say!("  {kind:<22} {n:>10}");
        }
    }
    for loss in reader.losses() {
        say!("damaged: {loss}");
    }
    Ok(())
}

fn run_verify(dir: &Path, as_json: bool) -> anyhow::Result<bool> {
    let bar = bar();
    let report = verify(dir, &mut show(&bar))?;
    bar.finish_and_clear();
    if as_json {
        say!("{:#}", serde_json::to_value(&report)?);
        return Ok(report.is_whole());
    }
    let blocks: u64 = report.files.iter().map(|f| f.blocks).sum();
    let entries: u64 = report.files.iter().map(|f| f.entries).sum();
    say!(
        "{} files, {blocks} blocks, {entries} records are whole",
        report.files.len()
    );
    for seqs in &report.known_losses {
        say!(
            "known: records {}..{} were put into quarantine",
            seqs.start,
            seqs.end
        );
    }
    for loss in &report.damage {
        say!("damaged: {loss}");
    }
    Ok(report.is_whole())
}

fn run_repair(dir: &Path) -> anyhow::Result<()> {
    let bar = bar();
    let damage = repair(dir, Options::default(), &mut show(&bar))?;
    bar.finish_and_clear();
    for loss in &damage {
        say!("put into quarantine: {loss}");
    }
    say!("the index is rebuilt");
    Ok(())
}

fn run_export(args: &ExportArgs) -> anyhow::Result<()> {
    if args.kind.is_none() && args.format != Format::Ndjson {
        bail!("a table holds one kind: say which with --kind, or take --format ndjson");
    }
    if let (Some(kind), Format::Csv | Format::Parquet) = (args.kind, args.format) {
        export::check_table(kind)?;
    }
    let bar = bar();
    let reader = Journal::open_read_only(&args.place.dir()?, &mut show(&bar))?;
    let query = Query {
        kind: args.kind,
        session_key: args.session,
        driver_number: args.driver,
        from: args.from,
        to: args.to,
    };
    let mut out: Box<dyn Write + Send> = match args.out.as_os_str() == "-" {
        true => Box::new(BufWriter::new(std::io::stdout())),
        false => {
            let file = std::fs::File::create(&args.out)
                .with_context(|| format!("cannot create {}", args.out.display()))?;
            Box::new(BufWriter::new(file))
        }
    };
    bar.set_message("exporting");
    bar.set_length(reader.next_seq());
    let entries = reader.query(&query);
    let progress = &mut |seq| bar.set_position(seq);
    let rows = match (args.format, args.kind) {
        (Format::Csv, Some(kind)) => export::csv(kind, entries, &mut out, progress)?,
        (Format::Parquet, Some(kind)) => export::parquet(kind, entries, &mut out, progress)?,
        _ => export::ndjson(entries, &mut out, progress)?,
    };
    out.flush().context("cannot write the export")?;
    bar.finish_and_clear();
    for loss in reader.losses() {
        note!("left out: {loss}");
    }
    note!("{rows} records written to {}", args.out.display());
    Ok(())
}
