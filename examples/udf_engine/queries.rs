//! The queries: one column each, computed by one function, and the same column in plain Rust.

use crate::functions::{self, Udf, Value};
use crate::reference;
use crate::table::{self, Airport};

/// What the queries compare the rows with.
pub struct Context {
    pub origin: Airport,
}

/// A name as someone typed it.
pub const WANTED_NAME: &str = "Chicago Ohare Internatl";
/// A city as someone heard it.
pub const HEARD_CITY: &str = "Pitsburg";
const PATTERN: &str = r"(?i)\b(international|intl)\b";
const WORDS: [&str; 2] = ["international", "intl"];

impl Context {
    /// Everything is measured from San Francisco; from the first row if the table lacks it.
    pub fn new(airports: &[Airport]) -> Self {
        let origin = table::find(airports, "SFO").or(airports.first());
        Self {
            origin: origin.expect("a table has rows").clone(),
        }
    }
}

/// A column to compute.
pub struct Query {
    pub udf: Udf,
    pub sql: &'static str,
    pub args: fn(&Context, &Airport) -> Vec<Value>,
    /// What the function should return for this row.
    pub expected: fn(&Context, &Airport) -> Value,
}

/// Places of the columns in [`QUERIES`].
pub mod column {
    pub const DISTANCE: usize = 0;
    pub const EDITS: usize = 1;
    pub const SOUND: usize = 2;
    pub const DIGEST: usize = 3;
    pub const STATE: usize = 4;
    pub const SHEET: usize = 5;
    pub const MATCHES: usize = 6;
}

pub const QUERIES: [Query; 7] = [
    Query {
        udf: functions::HAVERSINE,
        sql: "geo.haversine(:origin_lat, :origin_lon, latitude, longitude)",
        args: |context, airport| {
            let (from, to) = (position(&context.origin), position(airport));
            [from.0, from.1, to.0, to.1].map(Value::Double).to_vec()
        },
        expected: |context, airport| {
            let (from, to) = (position(&context.origin), position(airport));
            Value::Double(reference::great_circle(from, to))
        },
    },
    Query {
        udf: functions::LEVENSHTEIN,
        sql: "text.levenshtein(name, :wanted)",
        args: |_, airport| vec![Value::text(&airport.name), Value::text(WANTED_NAME)],
        expected: |_, airport| {
            Value::Int(reference::edit_distance(&airport.name, WANTED_NAME) as i32)
        },
    },
    Query {
        udf: functions::SOUNDEX,
        sql: "text.soundex(city)",
        args: |_, airport| vec![Value::text(&airport.city)],
        expected: |_, airport| Value::Text(reference::soundex(&airport.city)),
    },
    Query {
        udf: functions::SHA256,
        sql: "hash.sha256(row_text)",
        args: |_, airport| vec![Value::Text(row_text(airport))],
        expected: |_, airport| Value::Text(reference::sha256(row_text(airport).as_bytes())),
    },
    Query {
        udf: functions::EXTRACT,
        sql: "json.extract(document, '/place/state')",
        args: |_, airport| vec![Value::Text(document(airport)), Value::text("/place/state")],
        expected: |_, airport| Value::text(&airport.state),
    },
    Query {
        udf: functions::MARKDOWN,
        sql: "text.markdown(sheet)",
        args: |_, airport| vec![Value::Text(sheet(airport))],
        expected: |_, airport| Value::Text(sheet_html(airport)),
    },
    Query {
        udf: functions::REGEX_MATCH,
        sql: r"text.regex_match('(?i)\b(international|intl)\b', name)",
        args: |_, airport| vec![Value::text(PATTERN), Value::text(&airport.name)],
        expected: |_, airport| Value::Int(reference::has_word(&airport.name, &WORDS).into()),
    },
];

/// Degrees north and east.
pub fn position(airport: &Airport) -> (f64, f64) {
    (airport.latitude, airport.longitude)
}

fn row_text(airport: &Airport) -> String {
    let Airport {
        iata,
        name,
        city,
        state,
        country,
        latitude,
        longitude,
    } = airport;
    format!("{iata}\t{name}\t{city}\t{state}\t{country}\t{latitude}\t{longitude}")
}

fn document(airport: &Airport) -> String {
    let quote = reference::json_string;
    format!(
        r#"{{"iata": {}, "place": {{"city": {}, "state": {}}}, "position": [{}, {}]}}"#,
        quote(&airport.iata),
        quote(&airport.city),
        quote(&airport.state),
        airport.latitude,
        airport.longitude,
    )
}

fn sheet(airport: &Airport) -> String {
    let [iata, name, city, state] = [&airport.iata, &airport.name, &airport.city, &airport.state]
        .map(|text| reference::markdown_escape(text));
    format!("## {iata}: {name}\n\n| city | state |\n|---|---|\n| {city} | {state} |\n")
}

fn sheet_html(airport: &Airport) -> String {
    let [iata, name, city, state] = [&airport.iata, &airport.name, &airport.city, &airport.state]
        .map(|text| reference::html_escape(text));
    format!(
        "<h2>{iata}: {name}</h2>\n<table><thead><tr><th>city</th><th>state</th></tr></thead>\
         <tbody>\n<tr><td>{city}</td><td>{state}</td></tr>\n</tbody></table>\n"
    )
}

/// Answers known from elsewhere.
pub struct KnownAnswer {
    pub udf: Udf,
    pub args: Vec<Value>,
    pub answer: Value,
}

/// At least one for each function of [`QUERIES`], in that order.
pub fn known_answers() -> Vec<KnownAnswer> {
    let half_way_round = std::f64::consts::PI * reference::EARTH_RADIUS;
    let points = [0.0, 0.0, 0.0, 180.0].map(Value::Double).to_vec();
    let mut known = vec![KnownAnswer {
        udf: functions::HAVERSINE,
        args: points,
        answer: Value::Double(half_way_round),
    }];
    let texts: [(Udf, &[&str], Value); 12] = [
        (
            functions::LEVENSHTEIN,
            &["kitten", "sitting"],
            Value::Int(3),
        ),
        (functions::LEVENSHTEIN, &["", "über"], Value::Int(4)),
        (functions::SOUNDEX, &["Robert"], Value::text("R163")),
        (functions::SOUNDEX, &["Ashcraft"], Value::text("A261")),
        (functions::SOUNDEX, &["Tymczak"], Value::text("T522")),
        (
            functions::SHA256,
            &["abc"],
            Value::text("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ),
        (
            functions::SHA256,
            &[""],
            Value::text("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ),
        (
            functions::EXTRACT,
            &[r#"{"a/b": [10, 20]}"#, "/a~1b/1"],
            Value::text("20"),
        ),
        (functions::EXTRACT, &["{}", "/a"], Value::Null),
        (
            functions::MARKDOWN,
            &["# Hi *there*"],
            Value::text("<h1>Hi <em>there</em></h1>\n"),
        ),
        (functions::REGEX_MATCH, &[r"^\d{3}$", "٣٤٥"], Value::Int(1)),
        (functions::REGEX_MATCH, &["(", "no pattern"], Value::Int(-1)),
    ];
    known.extend(texts.map(|(udf, args, answer)| KnownAnswer {
        udf,
        args: args.iter().map(|text| Value::text(*text)).collect(),
        answer,
    }));
    known
}

/// Pairs of airports and the kilometres between them on the ellipsoid, as published; a sphere is
/// within half a per cent of that.
pub const KNOWN_DISTANCES: [(&str, &str, f64); 4] = [
    ("JFK", "LAX", 3983.0),
    ("SFO", "JFK", 4162.0),
    ("SFO", "LAX", 543.0),
    ("ANC", "SEA", 2330.0),
];
