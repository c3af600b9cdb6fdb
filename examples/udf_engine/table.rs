//! The table: airports, from a CSV file.

use std::fmt;

/// One row.
#[derive(Debug, Clone)]
pub struct Airport {
    pub iata: String,
    pub name: String,
    pub city: String,
    pub state: String,
    pub country: String,
    /// Degrees, north is positive.
    pub latitude: f64,
    /// Degrees, east is positive.
    pub longitude: f64,
}

const HEADER: [&str; 7] = [
    "iata",
    "name",
    "city",
    "state",
    "country",
    "latitude",
    "longitude",
];

/// What is wrong with a file, and where.
#[derive(Debug)]
pub struct TableError {
    line: usize,
    problem: String,
}

impl TableError {
    fn new(line: usize, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { line, problem }
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// The rows of a CSV file with the columns of [`HEADER`].
pub fn parse(text: &str) -> Result<Vec<Airport>, TableError> {
    let mut records = records(text.trim_start_matches('\u{feff}'))?.into_iter();
    match records.next() {
        Some((_, header)) if header == HEADER => {}
        Some((line, header)) => {
            let (expected, found) = (HEADER.join(","), header.join(","));
            let problem = format!("the header should be {expected:?}, and is {found:?}");
            return Err(TableError::new(line, problem));
        }
        None => return Err(TableError::new(1, "the file is empty")),
    }
    let airports = records
        .map(|(line, fields)| airport(line, fields))
        .collect::<Result<Vec<_>, _>>()?;
    if airports.is_empty() {
        return Err(TableError::new(2, "there are no rows below the header"));
    }
    Ok(airports)
}

fn airport(line: usize, fields: Vec<String>) -> Result<Airport, TableError> {
    let [iata, name, city, state, country, latitude, longitude] = <[String; 7]>::try_from(fields)
        .map_err(|fields| {
        let problem = format!("{} fields instead of {}", fields.len(), HEADER.len());
        TableError::new(line, problem)
    })?;
    Ok(Airport {
        iata,
        name,
        city,
        state,
        country,
        latitude: degrees(line, "latitude", &latitude, 90.0)?,
        longitude: degrees(line, "longitude", &longitude, 180.0)?,
    })
}

fn degrees(line: usize, column: &str, text: &str, most: f64) -> Result<f64, TableError> {
    match text.trim().parse::<f64>() {
        Ok(degrees) if degrees.abs() <= most => Ok(degrees),
        _ => {
            let problem = format!("{column} {text:?} is not a number from -{most} to {most}");
            Err(TableError::new(line, problem))
        }
    }
}

/// Records as RFC 4180 has them, each with the line it begins on; empty lines are skipped.
fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, TableError> {
    let mut records = Vec::new();
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut line, mut began) = (1, 1);
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            _ if quoted => field.push(c),
            '"' if field.is_empty() => quoted = true,
            ',' => fields.push(std::mem::take(&mut field)),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                if !fields.is_empty() || !field.is_empty() {
                    fields.push(std::mem::take(&mut field));
                    records.push((began, std::mem::take(&mut fields)));
                }
                began = line;
            }
            _ => field.push(c),
        }
    }
    if quoted {
        return Err(TableError::new(began, "a quote is never closed"));
    }
    if !fields.is_empty() || !field.is_empty() {
        fields.push(field);
        records.push((began, fields));
    }
    Ok(records)
}

/// `count` rows spread evenly over the table, in its order; all of them if there are not so many.
pub fn sample(airports: &[Airport], count: usize) -> Vec<Airport> {
    let count = count.min(airports.len());
    (0..count)
        .map(|n| airports[n * airports.len() / count].clone())
        .collect()
}

/// The row with this code.
pub fn find<'a>(airports: &'a [Airport], iata: &str) -> Option<&'a Airport> {
    airports.iter().find(|airport| airport.iata == iata)
}
