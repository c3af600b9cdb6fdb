//! The closing tables, for people and for machines.

use wasm_pool::Stats;

use crate::reference::json_string;
use crate::row;
use crate::screen::{Screen, grouped};

/// Per budget and per function, what a phase came to. Shown even with `--quiet`.
pub fn closing_table(screen: &mut Screen, phase: &str, stats: &Stats) {
    screen.always(&format!("\n{phase}"));
    let mut budgets = vec![row!["budget", "limit", "charged", "peak", ""]];
    for (budget, seen) in stats.budgets() {
        let limit = seen.limit.map_or("none".into(), grouped);
        let unit = budget.unit();
        let (charged, peak) = (grouped(seen.charged), grouped(seen.peak));
        budgets.push(row![budget, limit, charged, peak, unit]);
    }
    screen.always_table("lrrrl", &budgets);
    screen.always("");
    let mut functions = vec![row![
        "function",
        "hits",
        "misses",
        "blocks",
        "evictions",
        "code bytes"
    ]];
    for f in &stats.functions {
        let numbers = [f.hits, f.misses, f.blocks, f.evictions, f.code_bytes].map(grouped);
        functions.push([f.name.to_string()].into_iter().chain(numbers).collect());
    }
    screen.always_table("lrrrrr", &functions);
    let [compilations, loads, dropped, refused] = [
        stats.compilations,
        stats.loads,
        stats.code_dropped,
        stats.refusals,
    ]
    .map(grouped);
    screen.always(&format!(
        "\n  {compilations} compilations, {loads} loads, {dropped} times code dropped out, \
         {refused} requests refused"
    ));
}

/// The same as JSON.
pub fn json(stats: &Stats) -> String {
    let budgets = stats.budgets().map(|(budget, seen)| {
        let limit = seen.limit.map_or("null".into(), |limit| limit.to_string());
        let (name, charged, peak) = (json_string(budget.name()), seen.charged, seen.peak);
        format!("    {name}: {{\"limit\": {limit}, \"charged\": {charged}, \"peak\": {peak}}}")
    });
    let functions = stats.functions.iter().map(|f| {
        format!(
            "    {}: {{\"hits\": {}, \"misses\": {}, \"blocks\": {}, \"evictions\": {}}}",
            json_string(&f.name),
            f.hits,
            f.misses,
            f.blocks,
            f.evictions
        )
    });
    format!(
        "{{\n  \"budgets\": {{\n{}\n  }},\n  \"functions\": {{\n{}\n  }},\n  \
         \"compilations\": {},\n  \"loads\": {},\n  \"refused\": {}\n}}\n",
        budgets.collect::<Vec<_>>().join(",\n"),
        functions.collect::<Vec<_>>().join(",\n"),
        stats.compilations,
        stats.loads,
        stats.refusals
    )
}
