//! The command line.

pub const HELP: &str = "\
Strangers upload modules, most of them bombs: small on the wire, dear to compile. Beside them one tenant
calls its functions all the time, and another uploads good modules. Each compilation runs in a process of
its own, which cannot take more than is reserved for it and is killed when its time is over.

Usage: cargo run --release --features compiler --example strangers -- [options]

  --uploads N      uploads by strangers                                 [400; 60 with --short]
  --largest BYTES  the largest of them; with K or M for powers of 1024  [64K; 16K with --short]
  --cap BYTES      writable memory that this process may have           [192M]
  --short          fewer and smaller uploads: some seconds
  --quiet          only the closing tables, and what went wrong
  --help           this text

Exit status: 0 if all is well, 1 if an answer was wrong, a budget was exceeded, this process grew or something
was left behind, 2 if an option makes no sense.
";

/// What can be changed.
#[derive(Debug)]
pub struct Args {
    pub uploads: usize,
    pub largest: u32,
    pub cap: u64,
    pub quiet: bool,
    pub help: bool,
}

impl Args {
    /// Reads the options; the error is a message for the user.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut uploads, mut largest) = (None, None);
        let mut short = false;
        let mut args = Self {
            uploads: 0,
            largest: 0,
            cap: 192 << 20,
            quiet: false,
            help: false,
        };
        while let Some(option) = words.next() {
            let mut value = || {
                let value = words.next();
                value.ok_or_else(|| format!("{option} needs a value"))
            };
            match option.as_str() {
                "--uploads" => uploads = Some(number(&option, &value()?, 1_000_000)?),
                "--largest" => largest = Some(number(&option, &value()?, 16 << 20)?),
                "--cap" => args.cap = number(&option, &value()?, 1 << 40)?,
                "--short" => short = true,
                "--quiet" => args.quiet = true,
                "--help" | "-h" => args.help = true,
                _ => return Err(format!("unknown option {option:?}")),
            }
        }
        let (many, large) = if short {
            (60, 16 << 10)
        } else {
            (400, 64 << 10)
        };
        args.uploads = uploads.unwrap_or(many) as usize;
        args.largest = largest.unwrap_or(large) as u32;
        Ok(args)
    }
}

fn number(option: &str, value: &str, most: u64) -> Result<u64, String> {
    let (digits, shift) = match value.char_indices().next_back() {
        Some((end, 'K' | 'k')) => (&value[..end], 10),
        Some((end, 'M' | 'm')) => (&value[..end], 20),
        _ => (value, 0),
    };
    let number = digits.parse::<u64>().ok();
    let number = number.and_then(|number| number.checked_mul(1 << shift));
    number
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("{option} needs a number from 1 to {most}, not {value:?}"))
}
