//! The command line.

use wasm_pool::{Limits, Policy};

pub const HELP: &str = "\
A small query engine: seven WebAssembly functions over a table of airports, on behalf of several
scheduling groups on several threads, from one pool; first with roomy budgets, then with budgets
that force instances and code out and back in, then with one that cannot be met.

Usage: cargo run --release --example udf_engine -- [options]

  --rows N                  rows, spread evenly over the table  [all; 240 with --short]
  --threads N               threads that serve the groups       [4]
  --groups N                scheduling groups                   [3]
  --instances-per-entry N   leases that one function may hold at once in one group  [2]
  --policy P                what to evict for code: lru, module-lru or cost-aware  [cost-aware]

  The budgets of the tight phase, in bytes, or with K, M or G for powers of 1024:
  --memory BYTES            linear memories, tables, instances  [12M]
  --code BYTES              compiled code                       [3M]
  --total BYTES             all of it, with what compiling takes while it lasts  [144M]
                            A query that does not fit is refused, and reported as that.

  --artifacts DIR           keep compiled code there: started again, it compiles nothing  [none]
  --data FILE               another table, with the columns of examples/data/airports.csv
  --json FILE               write the closing table of the tight phase, for machines
  --short                   few rows, few rounds: some seconds
  --quiet                   only the closing tables, and what went wrong
  --help                    this text

Exit status: 0 if all is well, 1 if an answer was wrong or a peak exceeded its limit, 2 if an
option, the table or a budget makes no sense.
";

/// What can be changed.
#[derive(Debug)]
pub struct Args {
    pub rows: Option<usize>,
    pub threads: usize,
    pub groups: usize,
    pub instances_per_entry: usize,
    pub policy: Policy,
    pub memory: u64,
    pub code: u64,
    pub total: u64,
    pub artifacts: Option<String>,
    pub data: Option<String>,
    pub json: Option<String>,
    pub short: bool,
    pub quiet: bool,
    pub help: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            rows: None,
            threads: 4,
            groups: 3,
            instances_per_entry: 2,
            policy: Policy::default(),
            memory: 12 << 20,
            code: 3 << 20,
            total: 144 << 20,
            artifacts: None,
            data: None,
            json: None,
            short: false,
            quiet: false,
            help: false,
        }
    }
}

/// More than this is a slip of the finger, not a test.
const MOST_THREADS: usize = 1024;

impl Args {
    /// Reads the options; the error is a message for the user.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = words;
        while let Some(word) = words.next() {
            let (option, attached) = match word.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            if args.set_flag(&option) {
                if attached.is_some() {
                    return Err(format!("{option} takes no value"));
                }
                continue;
            }
            if !Self::takes_value(&option) {
                return Err(format!("unknown option {option:?}"));
            }
            let value = attached.or_else(|| words.next());
            let value = value.ok_or_else(|| format!("{option} needs a value"))?;
            args.set(&option, value)?;
        }
        Ok(args)
    }

    /// The budgets of the tight phase.
    pub fn tight_limits(&self) -> Limits {
        Limits::new()
            .memory(self.memory)
            .code(self.code)
            .total(self.total)
    }

    fn set_flag(&mut self, option: &str) -> bool {
        match option {
            "--short" => self.short = true,
            "--quiet" => self.quiet = true,
            "--help" | "-h" => self.help = true,
            _ => return false,
        }
        true
    }

    fn takes_value(option: &str) -> bool {
        matches!(
            option,
            "--rows"
                | "--threads"
                | "--groups"
                | "--instances-per-entry"
                | "--policy"
                | "--memory"
                | "--code"
                | "--total"
                | "--artifacts"
                | "--data"
                | "--json"
        )
    }

    fn set(&mut self, option: &str, value: String) -> Result<(), String> {
        let number = |most| count(option, &value, most);
        match option {
            "--rows" => self.rows = Some(number(usize::MAX)?),
            "--threads" => self.threads = number(MOST_THREADS)?,
            "--groups" => self.groups = number(MOST_THREADS)?,
            "--instances-per-entry" => self.instances_per_entry = number(MOST_THREADS)?,
            "--policy" => self.policy = policy(&value)?,
            "--memory" => self.memory = bytes(option, &value)?,
            "--code" => self.code = bytes(option, &value)?,
            "--total" => self.total = bytes(option, &value)?,
            "--artifacts" => self.artifacts = Some(value),
            "--data" => self.data = Some(value),
            "--json" => self.json = Some(value),
            _ => return Err(format!("unknown option {option:?}")),
        }
        Ok(())
    }
}

fn count(option: &str, value: &str, most: usize) -> Result<usize, String> {
    match value.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        Ok(0) => Err(format!("{option} must be at least 1")),
        Ok(_) => Err(format!("{option} can be at most {most}")),
        Err(_) => Err(format!("{option} needs a number, not {value:?}")),
    }
}

fn bytes(option: &str, value: &str) -> Result<u64, String> {
    let shift = match value.chars().last() {
        Some('K' | 'k') => 10,
        Some('M' | 'm') => 20,
        Some('G' | 'g') => 30,
        _ => 0,
    };
    let digits = if shift > 0 {
        &value[..value.len() - 1]
    } else {
        value
    };
    let number = digits.parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| {
            format!("{option} needs a number of bytes, such as 6000000 or 6M, not {value:?}")
        })
}

fn policy(value: &str) -> Result<Policy, String> {
    match value {
        "lru" => Ok(Policy::Lru),
        "module-lru" => Ok(Policy::ModuleLru),
        "cost-aware" => Ok(Policy::CostAware),
        _ => Err(format!(
            "--policy is lru, module-lru or cost-aware, not {value:?}"
        )),
    }
}
