//! The command line.

pub const HELP: &str = "\
Hundreds of tenants call WebAssembly functions as tokio tasks, each on a fiber stack; there are few
stacks, and little memory for instances. Patient tenants wait for room, hurried ones for some
milliseconds, impatient ones are refused at once. Three rogue guests that never return are stopped:
by a canceller, by their time limit, and by dropping their call. Every answer is checked.

Usage: cargo run --release --example async_host -- [options]

  --tenants N      tenants at once, each a task and a scheduling group  [300; 100 with --short]
  --visits N       leases that each of them asks for                    [8; 3 with --short]
  --stacks N       fiber stacks of 512 KiB in the stack budget          [16]
  --memory BYTES   linear memories and instances; with K, M or G for powers of 1024  [24M]
  --short          fewer tenants and visits: a second or two
  --quiet          only the closing tables, and what went wrong
  --help           this text

Exit status: 0 if all is well, 1 if an answer was wrong, a peak exceeded its limit, a rogue went on
or something was left behind, 2 if an option or a budget makes no sense.
";

/// What can be changed.
#[derive(Debug)]
pub struct Args {
    pub tenants: u64,
    pub visits: u64,
    pub stacks: u64,
    pub memory: u64,
    pub quiet: bool,
    pub help: bool,
}

/// More than this is a slip of the finger, not a test.
const MOST: u64 = 1_000_000;

impl Args {
    /// Reads the options; the error is a message for the user.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut tenants, mut visits) = (None, None);
        let mut short = false;
        let mut args = Self {
            tenants: 0,
            visits: 0,
            stacks: 16,
            memory: 24 << 20,
            quiet: false,
            help: false,
        };
        let mut words = words;
        while let Some(option) = words.next() {
            let mut value = || {
                let value = words.next();
                value.ok_or_else(|| format!("{option} needs a value"))
            };
            match option.as_str() {
                "--tenants" => tenants = Some(count(&option, &value()?)?),
                "--visits" => visits = Some(count(&option, &value()?)?),
                "--stacks" => args.stacks = count(&option, &value()?)?,
                "--memory" => args.memory = bytes(&option, &value()?)?,
                "--short" => short = true,
                "--quiet" => args.quiet = true,
                "--help" | "-h" => args.help = true,
                _ => return Err(format!("unknown option {option:?}")),
            }
        }
        let (many, often) = if short { (100, 3) } else { (300, 8) };
        args.tenants = tenants.unwrap_or(many);
        args.visits = visits.unwrap_or(often);
        Ok(args)
    }
}

fn count(option: &str, value: &str) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if (1..=MOST).contains(&number) => Ok(number),
        _ => Err(format!(
            "{option} needs a number from 1 to {MOST}, not {value:?}"
        )),
    }
}

fn bytes(option: &str, value: &str) -> Result<u64, String> {
    let (digits, shift) = match value.char_indices().next_back() {
        Some((end, 'K' | 'k')) => (&value[..end], 10),
        Some((end, 'M' | 'm')) => (&value[..end], 20),
        Some((end, 'G' | 'g')) => (&value[..end], 30),
        _ => (value, 0),
    };
    let number = digits.parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{option} needs a number of bytes, such as 24M, not {value:?}"))
}
