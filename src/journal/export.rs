//! Out of the journal: a recording that can be replayed, or one kind as a table.
//!
//! NDJSON is the recording format: `{"t": …, "topic": …, "payload": …}` a line, in order of sequence;
//! `t` is the latest date seen so far (the journal keeps no time of receipt). CSV and Parquet have
//! OpenF1's columns; lists, and gaps that may be laps, are JSON text. Every version of a document is a row:
//! the last columns, `_key` and `_id`, tell which rows are of one document, and which of them is the newest
//! (the one with the highest `_id`; where there is none, the last).

use std::io::{self, Write};

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Entries, Error};
use crate::record::codec::{FRAMES_PREFIX, openf1_topic};
use crate::record::{Entry, Kind, Record, Time, key};

/// Rows in a Parquet row group: also what is held in memory.
const ROW_GROUP_ROWS: usize = 16_384;

/// What an export fails of.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Journal(#[from] Error),
    #[error("cannot write the export: {0}")]
    Write(#[from] io::Error),
    #[error("cannot write the export: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("a record cannot be written as JSON: {0}")]
    Json(serde_json::Error),
    #[error("{0} do not fit a table; export them as NDJSON")]
    NoTable(&'static str),
}

impl From<serde_json::Error> for ExportError {
    fn from(error: serde_json::Error) -> ExportError {
        match error.io_error_kind() {
            // A full disk, or a reader that has gone.
            Some(_) => ExportError::Write(error.into()),
            None => ExportError::Json(error),
        }
    }
}

/// Whether a kind can be written as a table: to be asked before anything is created for it.
///
/// # Errors
/// [`ExportError::NoTable`].
pub fn check_table(kind: Kind) -> Result<(), ExportError> {
    columns(kind)
        .map(|_| ())
        .ok_or(ExportError::NoTable(kind.name()))
}

/// The topic on which an entry came, or would be published.
pub fn topic(entry: &Entry) -> String {
    match &entry.record {
        Record::Frame(f) => format!("{FRAMES_PREFIX}{}/{}", f.session_key, f.driver_number),
        Record::Prediction(p) => p.topic(),
        record => openf1_topic(record.kind()),
    }
}

/// Writes a recording. `progress` is told the sequence number reached.
pub fn ndjson(
    entries: Entries,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, ExportError> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        t: Option<Time>,
        topic: String,
        payload: &'a Entry,
    }
    let (mut rows, mut t) = (0, None);
    for found in entries {
        let (seq, entry) = found?;
        t = t.max(entry.record.date());
        let line = Line {
            t,
            topic: topic(&entry),
            payload: &entry,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
        rows += 1;
        progress(seq);
    }
    out.flush()?;
    Ok(rows)
}

/// How a column is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Whole,
    Number,
    Flag,
    Date,
    Text,
    /// What has no type of its own: JSON.
    Json,
}

type Columns = &'static [(&'static str, Column)];

/// The columns of a kind, in OpenF1's order.
fn columns(kind: Kind) -> Option<Columns> {
    use Column::{Date, Flag, Json, Number, Text, Whole};
    macro_rules! columns {
        ($($name:ident: $column:ident),* $(,)?) => {
            &[$((stringify!($name), $column),)* ("_key", Text), ("_id", Whole)]
        };
    }
    Some(match kind {
        Kind::CarData => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, date: Date, rpm: Whole,
            speed: Whole, n_gear: Whole, throttle: Whole, brake: Whole, drs: Whole
        ),
        Kind::Location => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, date: Date, x: Whole,
            y: Whole, z: Whole
        ),
        Kind::Interval => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, date: Date,
            gap_to_leader: Json, interval: Json
        ),
        Kind::Position => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, date: Date,
            position: Whole
        ),
        Kind::Lap => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, lap_number: Whole,
            date_start: Date, duration_sector_1: Number, duration_sector_2: Number,
            duration_sector_3: Number, i1_speed: Whole, i2_speed: Whole, st_speed: Whole,
            is_pit_out_lap: Flag, lap_duration: Number, segments_sector_1: Json,
            segments_sector_2: Json, segments_sector_3: Json
        ),
        Kind::Pit => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, date: Date,
            lap_number: Whole, lane_duration: Number, stop_duration: Number, pit_duration: Number
        ),
        Kind::Stint => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, stint_number: Whole,
            lap_start: Whole, lap_end: Whole, compound: Text, tyre_age_at_start: Whole
        ),
        Kind::Weather => columns!(
            meeting_key: Whole, session_key: Whole, date: Date, air_temperature: Number,
            track_temperature: Number, humidity: Number, pressure: Number, rainfall: Whole,
            wind_direction: Whole, wind_speed: Number
        ),
        Kind::RaceControl => columns!(
            meeting_key: Whole, session_key: Whole, date: Date, driver_number: Whole,
            lap_number: Whole, category: Text, flag: Text, scope: Text, sector: Whole,
            qualifying_phase: Whole, message: Text
        ),
        Kind::Overtake => columns!(
            meeting_key: Whole, session_key: Whole, date: Date, overtaking_driver_number: Whole,
            overtaken_driver_number: Whole, position: Whole
        ),
        Kind::TeamRadio => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, date: Date,
            recording_url: Text
        ),
        Kind::Driver => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, broadcast_name: Text,
            full_name: Text, name_acronym: Text, team_name: Text, team_colour: Text,
            first_name: Text, last_name: Text, headshot_url: Text, country_code: Text
        ),
        Kind::Session => columns!(
            meeting_key: Whole, session_key: Whole, session_type: Text, session_name: Text,
            date_start: Date, date_end: Date, gmt_offset: Text, location: Text,
            country_key: Whole, country_code: Text, country_name: Text, circuit_key: Whole,
            circuit_short_name: Text, year: Whole, is_cancelled: Flag
        ),
        Kind::Meeting => columns!(
            meeting_key: Whole, meeting_name: Text, meeting_official_name: Text,
            meeting_code: Text, date_start: Date, date_end: Date, gmt_offset: Text,
            location: Text, country_key: Whole, country_code: Text, country_name: Text,
            circuit_key: Whole, circuit_short_name: Text, year: Whole, is_cancelled: Flag
        ),
        Kind::StartingGrid => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, position: Whole,
            lap_duration: Number
        ),
        Kind::SessionResult => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, position: Whole,
            number_of_laps: Whole, points: Number, dnf: Flag, dns: Flag, dsq: Flag,
            duration: Json, gap_to_leader: Json
        ),
        Kind::ChampionshipDriver => columns!(
            meeting_key: Whole, session_key: Whole, driver_number: Whole, position_start: Whole,
            position_current: Whole, points_start: Number, points_current: Number
        ),
        Kind::ChampionshipTeam => columns!(
            meeting_key: Whole, session_key: Whole, team_name: Text, position_start: Whole,
            position_current: Whole, points_start: Number, points_current: Number
        ),
        Kind::Frame | Kind::Prediction => return None,
    })
}

fn fields(entry: &Entry) -> Result<Map<String, Value>, ExportError> {
    let Value::Object(mut fields) = serde_json::to_value(&entry.record)? else {
        return Ok(Map::new());
    };
    let key = match &entry.key {
        Some(key) => key.to_string(),
        None => key::derive(&entry.record).as_str().to_owned(),
    };
    fields.insert("_key".to_owned(), key.into());
    fields.insert("_id".to_owned(), entry.id.into());
    Ok(fields)
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn put_cell(out: &mut dyn Write, text: &str) -> io::Result<()> {
    if text.contains([',', '"', '\n', '\r']) {
        write!(out, "\"{}\"", text.replace('"', "\"\""))
    } else {
        out.write_all(text.as_bytes())
    }
}

/// Writes one kind as CSV (RFC 4180), with a header. An empty cell is a null.
pub fn csv(
    kind: Kind,
    entries: Entries,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, ExportError> {
    let columns = columns(kind).ok_or(ExportError::NoTable(kind.name()))?;
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    writeln!(out, "{}", names.join(","))?;
    let mut rows = 0;
    for found in entries {
        let (seq, entry) = found?;
        let fields = fields(&entry)?;
        for (at, name) in names.iter().enumerate() {
            if at > 0 {
                out.write_all(b",")?;
            }
            put_cell(out, &cell(fields.get(*name)))?;
        }
        out.write_all(b"\n")?;
        rows += 1;
        progress(seq);
    }
    out.flush()?;
    Ok(rows)
}

/// Writes one kind as Parquet: dates as UTC timestamps (µs), zstd, nulls as nulls.
pub fn parquet(
    kind: Kind,
    entries: Entries,
    out: &mut (dyn Write + Send),
    progress: &mut dyn FnMut(u64),
) -> Result<u64, ExportError> {
    let columns = columns(kind).ok_or(ExportError::NoTable(kind.name()))?;
    let types = columns
        .iter()
        .map(|(name, column)| parquet_type(name, *column).map(Into::into))
        .collect::<Result<_, _>>()?;
    let schema = Type::group_type_builder(kind.name())
        .with_fields(types)
        .build()?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(Default::default()))
        .build();
    let mut file = SerializedFileWriter::new(out, schema.into(), properties.into())?;
    let (mut rows, mut held) = (0, Vec::with_capacity(ROW_GROUP_ROWS));
    for found in entries {
        let (seq, entry) = found?;
        held.push(fields(&entry)?);
        rows += 1;
        progress(seq);
        if held.len() == ROW_GROUP_ROWS {
            let mut group = file.next_row_group()?;
            put_group(&mut group, columns, &held)?;
            group.close()?;
            held.clear();
        }
    }
    if !held.is_empty() {
        let mut group = file.next_row_group()?;
        put_group(&mut group, columns, &held)?;
        group.close()?;
    }
    file.close()?;
    Ok(rows)
}

fn parquet_type(name: &str, column: Column) -> Result<Type, ExportError> {
    let (physical, logical) = match column {
        Column::Whole => (Physical::INT64, None),
        Column::Number => (Physical::DOUBLE, None),
        Column::Flag => (Physical::BOOLEAN, None),
        Column::Date => (
            Physical::INT64,
            Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
        ),
        Column::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Column::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
    };
    Ok(Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()?)
}

fn put_group<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    columns: Columns,
    rows: &[Map<String, Value>],
) -> Result<(), ExportError> {
    for (name, column) in columns {
        let Some(mut writer) = group.next_column()? else {
            break;
        };
        /// The values that are there, and for each row whether it has one.
        fn split<T>(
            rows: &[Map<String, Value>],
            name: &str,
            value: impl Fn(&Value) -> Option<T>,
        ) -> (Vec<T>, Vec<i16>) {
            let cells: Vec<Option<T>> = (rows.iter())
                .map(|row| row.get(name).filter(|v| !v.is_null()).and_then(&value))
                .collect();
            let levels = cells.iter().map(|v| i16::from(v.is_some())).collect();
            (cells.into_iter().flatten().collect(), levels)
        }
        match column {
            Column::Whole => {
                let (values, levels) = split(rows, name, Value::as_i64);
                let typed = writer.typed::<Int64Type>();
                typed.write_batch(&values, Some(&levels), None)?;
            }
            Column::Date => {
                let micros = |v: &Value| Some(v.as_str()?.parse::<Time>().ok()?.micros());
                let (values, levels) = split(rows, name, micros);
                let typed = writer.typed::<Int64Type>();
                typed.write_batch(&values, Some(&levels), None)?;
            }
            Column::Number => {
                let (values, levels) = split(rows, name, Value::as_f64);
                let typed = writer.typed::<DoubleType>();
                typed.write_batch(&values, Some(&levels), None)?;
            }
            Column::Flag => {
                let (values, levels) = split(rows, name, Value::as_bool);
                let typed = writer.typed::<BoolType>();
                typed.write_batch(&values, Some(&levels), None)?;
            }
            Column::Text => {
                let (values, levels) = split(rows, name, |v| v.as_str().map(ByteArray::from));
                let typed = writer.typed::<ByteArrayType>();
                typed.write_batch(&values, Some(&levels), None)?;
            }
            Column::Json => {
                let text = |v: &Value| Some(ByteArray::from(v.to_string().into_bytes()));
                let (values, levels) = split(rows, name, text);
                let typed = writer.typed::<ByteArrayType>();
                typed.write_batch(&values, Some(&levels), None)?;
            }
        }
        writer.close()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::super::block::samples::entry_of;
    use super::super::{Journal, Options, Query};
    use super::*;
    use crate::record::decode;

    fn journal() -> (tempfile::TempDir, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            reserve_bytes: 0,
            ..Options::default()
        };
        let mut journal = Journal::open(dir.path(), options, &mut |_| {}).unwrap();
        for kind in Kind::ALL {
            journal.append((0..60).map(|seed| entry_of(kind, seed)).collect());
            journal.commit().unwrap();
        }
        journal.close_segment().unwrap();
        (dir, journal)
    }

    #[test]
    fn a_recording_says_again_what_was_said() {
        let (_dir, journal) = journal();
        let reader = journal.reader();
        let mut out = Vec::new();
        let rows = ndjson(reader.query(&Query::default()), &mut out, &mut |_| {}).unwrap();
        assert_eq!(rows, 20 * 60);
        let mut entries = reader.query(&Query::default());
        for line in std::str::from_utf8(&out).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let (_, entry) = entries.next().unwrap().unwrap();
            if matches!(entry.record.kind(), Kind::Frame | Kind::Prediction) {
                continue;
            }
            // Values outside the bounds of the possible are nulled on the way in, so compare keys.
            let payload = line["payload"].to_string().into();
            if let Ok(back) = decode(line["topic"].as_str().unwrap(), &payload) {
                assert_eq!(back.entry.document(), entry.document());
                assert_eq!(back.entry.id, entry.id);
            }
        }
        assert!(entries.next().is_none());
    }

    #[test]
    fn tables_have_a_column_for_every_field_and_a_row_for_every_record() {
        let (_dir, journal) = journal();
        let reader = journal.reader();
        for kind in Kind::ALL {
            let Some(columns) = columns(kind) else {
                let refused = csv(
                    kind,
                    reader.query(&Query::of(kind)),
                    &mut vec![],
                    &mut |_| {},
                );
                assert!(matches!(refused, Err(ExportError::NoTable(_))));
                continue;
            };
            let (_, entry) = reader.query(&Query::of(kind)).next().unwrap().unwrap();
            let mut names: Vec<_> = columns.iter().map(|(n, _)| (*n).to_owned()).collect();
            names.sort();
            let fields: Vec<_> = fields(&entry)
                .unwrap()
                .into_iter()
                .map(|(k, _)| k)
                .collect();
            assert_eq!(names, fields, "{kind:?}");

            let mut out = Vec::new();
            csv(kind, reader.query(&Query::of(kind)), &mut out, &mut |_| {}).unwrap();
            assert!(out.iter().filter(|b| **b == b'\n').count() > 60);

            let mut out = Vec::new();
            parquet(kind, reader.query(&Query::of(kind)), &mut out, &mut |_| {}).unwrap();
            let file = SerializedFileReader::new(bytes::Bytes::from(out)).unwrap();
            let rows: Vec<_> = file
                .get_row_iter(None)
                .unwrap()
                .map(|r| r.unwrap())
                .collect();
            assert_eq!(rows.len(), 60);
            for (row, found) in rows.iter().zip(reader.query(&Query::of(kind))) {
                let fields = self::fields(&found.unwrap().1).unwrap();
                for ((name, cell), (_, column)) in row.get_column_iter().zip(columns) {
                    use parquet::record::Field;
                    let expected = &fields[name];
                    match (cell, column) {
                        (Field::Null, _) => assert!(expected.is_null(), "{kind:?} {name}"),
                        (Field::Long(v), Column::Whole) => assert_eq!(expected, v),
                        (Field::Double(v), _) => assert_eq!(expected.as_f64(), Some(*v)),
                        (Field::Bool(v), _) => assert_eq!(expected, v),
                        (Field::Str(v), Column::Text) => assert_eq!(expected, v),
                        (Field::Str(v), _) => assert_eq!(expected.to_string(), *v),
                        (_, Column::Date) => assert!(expected.is_string()),
                        other => panic!("{kind:?} {name}: {other:?}"),
                    }
                }
            }
        }
    }
}
