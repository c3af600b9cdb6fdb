//! What the queries found, for people.

use std::collections::BTreeMap;

use crate::functions::Value;
use crate::queries::{Context, HEARD_CITY, WANTED_NAME, column};
use crate::reference;
use crate::row;
use crate::screen::{Screen, bar, grouped};
use crate::table::Airport;
use crate::workload::Column;

/// Rows that a result shows.
const SHOWN: usize = 5;
const BAR: usize = 40;

/// The rows and what the guests computed of them, in one group.
pub struct Results<'a> {
    pub context: &'a Context,
    pub airports: &'a [Airport],
    pub columns: &'a [Column],
}

impl<'a> Results<'a> {
    /// Shows all of them.
    pub fn show(&self, screen: &mut Screen) {
        self.nearest(screen);
        self.histogram(screen);
        self.fuzzy(screen);
        self.states(screen);
        self.matches(screen);
        self.digests(screen);
        self.sheets(screen);
    }

    /// Rows with an answer in this column that `pick` makes something of.
    fn pick<X>(
        &self,
        column: usize,
        pick: impl Fn(&'a Value) -> Option<X>,
    ) -> Vec<(X, &'a Airport)> {
        let rows = self.columns[column].iter().zip(self.airports);
        rows.filter_map(|(value, airport)| Some((pick(value.as_ref()?)?, airport)))
            .collect()
    }

    fn distances(&self) -> Vec<(f64, &'a Airport)> {
        self.pick(column::DISTANCE, |value| match value {
            Value::Double(kilometres) => Some(*kilometres),
            _ => None,
        })
    }

    fn texts(&self, column: usize) -> Vec<(&'a str, &'a Airport)> {
        self.pick(column, |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    fn ints(&self, column: usize) -> Vec<(i32, &'a Airport)> {
        self.pick(column, |value| match value {
            Value::Int(n) => Some(*n),
            _ => None,
        })
    }

    fn nearest(&self, screen: &mut Screen) {
        let origin = &self.context.origin;
        let mut distances = self.distances();
        distances.retain(|(_, airport)| airport.iata != origin.iata);
        distances.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (iata, name) = (&origin.iata, &origin.name);
        screen.line(&format!("\nNearest to {iata}, {name} (geo.haversine)"));
        let mut table = vec![row!["", "name", "city", "km"]];
        for (kilometres, airport) in distances.iter().take(SHOWN) {
            let Airport {
                iata, name, city, ..
            } = airport;
            table.push(row![iata, name, city, format!("{kilometres:.1}")]);
        }
        screen.table("lllr", &table);
    }

    fn histogram(&self, screen: &mut Screen) {
        const STEP: f64 = 1000.0;
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for (kilometres, _) in self.distances() {
            *counts.entry((kilometres / STEP) as u64).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        screen.line("\nAirports by distance from there, thousands of km");
        let rows: Vec<_> = counts
            .iter()
            .map(|(&step, &count)| {
                let range = format!("{step} to {}", step + 1);
                row![range, count, bar(count, most, BAR)]
            })
            .collect();
        screen.table("rrl", &rows);
    }

    fn fuzzy(&self, screen: &mut Screen) {
        let mut edits = self.ints(column::EDITS);
        edits.sort_by_key(|(edits, _)| *edits);
        screen.line(&format!(
            "\nNames most like {WANTED_NAME:?} (text.levenshtein)"
        ));
        let rows: Vec<_> = edits
            .iter()
            .take(3)
            .map(|(edits, airport)| row![airport.iata, airport.name, format!("{edits} edits")])
            .collect();
        screen.table("llr", &rows);

        let heard = reference::soundex(HEARD_CITY);
        let mut cities: Vec<_> = self
            .texts(column::SOUND)
            .into_iter()
            .filter(|(code, _)| *code == heard)
            .map(|(_, airport)| airport.city.as_str())
            .collect();
        cities.sort_unstable();
        cities.dedup();
        screen.line(&format!(
            "\nCities that sound like {HEARD_CITY:?}, {heard} (text.soundex)"
        ));
        screen.line(&format!("  {}", some_of(&cities, ", ")));
    }

    fn states(&self, screen: &mut Screen) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (state, _) in self.texts(column::STATE) {
            *counts.entry(state).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let most = counts.first().map_or(0, |(_, count)| *count);
        screen.line("\nStates with most airports (json.extract of a document per row)");
        let rows: Vec<_> = counts
            .iter()
            .take(SHOWN)
            .map(|(state, count)| row![state, count, bar(*count, most, BAR)])
            .collect();
        screen.table("lrl", &rows);
    }

    fn matches(&self, screen: &mut Screen) {
        let all = self.ints(column::MATCHES);
        let matches: Vec<_> = all
            .iter()
            .filter(|(matches, _)| *matches == 1)
            .map(|(_, airport)| airport.name.as_str())
            .collect();
        let (some, of) = (grouped(matches.len() as u64), grouped(all.len() as u64));
        screen.line(&format!(
            "\nInternational by name: {some} of {of} (text.regex_match)"
        ));
        screen.line(&format!("  {}", some_of(&matches, "; ")));
    }

    fn digests(&self, screen: &mut Screen) {
        screen.line("\nDigests of the rows (hash.sha256)");
        let digests = self.texts(column::DIGEST);
        let rows: Vec<_> = digests
            .iter()
            .take(3)
            .map(|(digest, airport)| row![airport.iata, digest])
            .collect();
        screen.table("ll", &rows);
    }

    fn sheets(&self, screen: &mut Screen) {
        let sheets = self.texts(column::SHEET);
        let bytes: usize = sheets.iter().map(|(html, _)| html.len()).sum();
        let (count, bytes) = (grouped(sheets.len() as u64), grouped(bytes as u64));
        screen.line(&format!(
            "\nA sheet for each airport, {count} of them, {bytes} bytes of HTML (text.markdown)"
        ));
        if let Some((html, _)) = sheets.first() {
            for line in html.lines() {
                screen.line(&format!("  {line}"));
            }
        }
    }
}

fn some_of(texts: &[&str], separator: &str) -> String {
    let shown = texts.len().min(SHOWN);
    let list = texts[..shown].join(separator);
    match texts.len() - shown {
        0 => list,
        more => format!("{list}{separator}and {more} more"),
    }
}
