//! What is allowed. Every problem is collected with its place, so that one run of `hadrian check`
//! shows all of them.
//!
//! This file reads single values; `members` and `resources` read what belongs together, `places`
//! looks for what two of them must not share, `keys` for what is no key at all.

mod alone;
mod fencing;
mod history;
mod keys;
mod members;
mod pace;
mod places;
mod resources;

pub use keys::KEYS;

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::file;
use super::model::Config;
use super::problem::{ConfigError, Problem};
use crate::driver::{Compression, Share};

const NAME_MAX: usize = 48;
const MEMORY_DEFAULT: u64 = 2 << 30;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

pub(super) struct Checker<'a> {
    text: &'a str,
    path: &'a Path,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Unknown keys, each with its place; before anything else, because they keep the rest from being
/// read.
pub(super) fn unknown_keys(text: &str, path: &Path) -> Result<(), ConfigError> {
    let mut checker = Checker::new(text, path);
    keys::look(&mut checker);
    checker.done()
}

/// Checks what could be read.
pub(super) fn check(raw: &file::File, text: &str, path: &Path) -> Result<Config, ConfigError> {
    let mut checker = Checker::new(text, path);
    let cluster = checker.name(&raw.cluster, "cluster");
    let timeout = checker.duration(raw.link.timeout.as_ref(), TIMEOUT_DEFAULT, TIMEOUT);
    let compression = checker.compression(raw.link.compression.as_ref());
    let members = checker.members(raw);
    let fencing = checker.fencing(raw.fencing.as_ref());
    checker.takeovers(&fencing, raw);
    let resources: Vec<_> = raw
        .resource
        .iter()
        .filter_map(|resource| checker.resource(&cluster, &members, (raw, resource)))
        .collect();
    checker.distinct(raw.resource.iter().map(|resource| &resource.name), "resource name");
    let memory_bytes = checker.memory(raw.memory.as_ref(), raw.resource.len());
    let config = Config {
        cluster,
        memory_bytes,
        fencing,
        plaintext: raw.link.plaintext,
        timeout,
        compression,
        members,
        resources,
        warnings: Vec::new(),
    };
    // Places are compared only where every part could be read: else one slip would be told twice.
    if checker.problems.is_empty() {
        places::look(&mut checker, raw, &config);
    }
    let warnings = std::mem::take(&mut checker.warnings);
    checker.done().map(|()| Config { warnings, ..config })
}

impl<'a> Checker<'a> {
    fn new(text: &'a str, path: &'a Path) -> Self {
        Self { text, path, problems: Vec::new(), warnings: Vec::new() }
    }

    fn done(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError::Problems(self.problems)) }
    }

    fn problem<T>(&mut self, at: &Spanned<T>, text: String) {
        let problem = self.at(at.span(), text);
        self.problems.push(problem);
    }

    fn warning<T>(&mut self, at: &Spanned<T>, text: String) {
        let warning = self.at(at.span(), text);
        self.warnings.push(warning);
    }

    fn at(&self, span: Range<usize>, text: String) -> Problem {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        // Columns are characters, as an editor counts them.
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Problem { path: self.path.into(), line, column, text }
    }

    fn name(&mut self, name: &Spanned<String>, what: &str) -> String {
        let text = name.get_ref();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(plain) {
            let rule = format!("1 to {NAME_MAX} of a-z, 0-9 and -");
            self.problem(name, format!("{text:?} is no {what} name; write {rule}"));
        }
        text.clone()
    }

    fn duration(
        &mut self,
        text: Option<&Spanned<String>>,
        default: Duration,
        allowed: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(text) = text else { return default };
        let wrong = text.get_ref();
        match humantime::parse_duration(wrong) {
            Ok(duration) if allowed.contains(&duration) => duration,
            Ok(_) => {
                let shown = |end: &Duration| humantime::format_duration(*end).to_string();
                let (least, most) = (shown(allowed.start()), shown(allowed.end()));
                self.problem(text, format!("{wrong:?} is out of range; write {least} to {most}"));
                default
            }
            Err(error) => {
                let ways = "write 200ms or 10s";
                self.problem(text, format!("{wrong:?} is no duration ({error}); {ways}"));
                default
            }
        }
    }

    fn size(&mut self, text: &Spanned<String>) -> u64 {
        let parsed = text.get_ref().parse::<bytesize::ByteSize>();
        parsed.map(|size| size.as_u64()).unwrap_or_else(|error| {
            let wrong = text.get_ref();
            self.problem(text, format!("{wrong:?} is no size ({error}); write 64MiB or 1GiB"));
            0
        })
    }

    /// Each resource needs a share that it can work with.
    fn memory(&mut self, text: Option<&Spanned<String>>, resource_count: usize) -> u64 {
        let least = Share::MIN.saturating_mul(u64::try_from(resource_count).unwrap_or(u64::MAX));
        let Some(text) = text else { return MEMORY_DEFAULT.max(least) };
        let size = self.size(text);
        if size < least {
            let least = bytesize::ByteSize(least);
            self.problem(text, format!("too little for {resource_count} resources; write {least}"));
        }
        size
    }

    fn absolute(&mut self, path: &Spanned<PathBuf>) {
        let shown = path.get_ref().display();
        if !path.get_ref().is_absolute() {
            self.problem(path, format!("{shown} is not absolute; write the whole path"));
        }
    }

    fn distinct<'b>(&mut self, names: impl Iterator<Item = &'b Spanned<String>>, what: &str) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name.get_ref().clone()) {
                let text = name.get_ref();
                self.problem(name, format!("{what} {text:?} is used twice; each must differ"));
            }
        }
    }

    fn compression(&mut self, text: Option<&Spanned<String>>) -> Compression {
        match text.map(|text| (text, text.get_ref().as_str())) {
            None | Some((_, "none")) => Compression::None,
            Some((_, "zstd")) => Compression::Zstd,
            Some((at, wrong)) => {
                let ways = "write \"none\" or \"zstd\"";
                self.problem(at, format!("{wrong:?} is no kind of compression; {ways}"));
                Compression::None
            }
        }
    }
}
