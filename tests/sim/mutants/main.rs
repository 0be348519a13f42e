//! Takes one rule after the other out of the code and looks whether the simulator notices. A bug
//! that it does not find is a gap in the simulator. The exploration can be asked the same.
#![expect(clippy::print_stdout, reason = "a program for people")]

mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;
use table::{Mutant, Witness, mutants};

/// Puts each bug of the table into a copy of the sources and runs the simulator over it.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds that are run at most before a bug counts as not found.
    #[arg(long, default_value_t = 6000)]
    seeds: u64,
    /// Only bugs whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Let the exploration of small clusters look for them, not the simulator.
    #[arg(long)]
    explore: bool,
    /// Begin with the bug at this place of the table.
    #[arg(long, default_value_t = 0)]
    from: usize,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let copy = root.join("target/mutants/tree");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    copy_tree(&root, &copy)?;
    let house = House { copy, target: root.join("target/mutants/target") };
    let first = if args.explore { Witness::Exploration } else { Witness::Seeds };
    let chosen: Vec<_> =
        mutants().skip(args.from).filter(|mutant| mutant.name.contains(&args.only)).collect();
    let witness_of = |mutant: &Mutant| match mutant.witness {
        Witness::Seeds => first,
        other => other,
    };
    let mut stories = Vec::new();
    for witness in chosen.iter().map(|mutant| witness_of(mutant)) {
        if !is_by_seeds(witness) && !stories.contains(&witness) {
            stories.push(witness);
        }
    }
    for story in stories {
        house.holds(story, &[])?;
    }
    let (mut caught, mut seeds) = (0, Vec::new());
    for mutant in &chosen {
        let began = Instant::now();
        let witness = witness_of(mutant);
        let asked = ["--until-broken".into(), "--seeds".into(), args.seeds.to_string()];
        let found = house.try_out(mutant, witness, &asked).with_context(|| mutant.name)?;
        let (verdict, line) = match &found {
            Some(line) => ("caught  ", line.as_str()),
            None => ("SURVIVED", "nobody notices"),
        };
        let seconds = began.elapsed().as_secs();
        println!("{verdict}  {} ({}), {seconds} s\n          {line}", mutant.name, mutant.rule);
        caught += usize::from(found.is_some());
        seeds.extend(found.as_deref().and_then(seed_of).map(|seed| (witness, seed)));
    }
    for (witness, seed) in seeds {
        // A seed that breaks without the bug, too, says nothing of it.
        let asked = ["--first".into(), seed.to_string(), "--seeds".into(), "1".into()];
        house.holds(witness, &asked)?;
    }
    println!("mutants={} caught={caught}", chosen.len());
    Ok(if caught == chosen.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether it is asked for so many seeds.
fn is_by_seeds(witness: Witness) -> bool {
    matches!(witness, Witness::Seeds | Witness::Marked)
}

/// Which seed a line tells of.
fn seed_of(line: &str) -> Option<u64> {
    line.strip_prefix("seed ")?.split(':').next()?.parse().ok()
}

/// The sources with the bug in them.
fn spoil(mutant: &Mutant, sound: &str) -> String {
    let spoilt = sound.replacen(mutant.find, mutant.put, 1);
    match mutant.also {
        Some((find, put)) => spoilt.replacen(find, put, 1),
        None => spoilt,
    }
}

/// A copy of the sources, and where it is built.
struct House {
    copy: PathBuf,
    target: PathBuf,
}

impl House {
    /// Without any help, nothing is broken.
    fn holds(&self, witness: Witness, asked: &[String]) -> anyhow::Result<()> {
        match self.run(witness, asked).context("the sources as they are")? {
            Some(line) => bail!("the sources break a promise without any help: {line}"),
            None => Ok(()),
        }
    }

    fn try_out(
        &self,
        mutant: &Mutant,
        witness: Witness,
        asked: &[String],
    ) -> anyhow::Result<Option<String>> {
        let path = self.copy.join(mutant.file);
        let sound = fs::read_to_string(&path)?;
        fs::write(&path, spoil(mutant, &sound))?;
        let found = self.run(witness, asked);
        fs::write(&path, sound)?;
        found
    }

    /// Builds and asks the witness, one that goes by seeds in these words; the first line that
    /// tells of a broken promise.
    fn run(&self, witness: Witness, asked: &[String]) -> anyhow::Result<Option<String>> {
        let mut sim = vec!["run", "--bin", "hadrian-sim", "--"];
        if witness == Witness::Marked {
            sim.push("--marks");
        }
        sim.extend(asked.iter().map(String::as_str));
        let (build, ask): (&[&str], Vec<&str>) = match witness {
            Witness::Seeds | Witness::Marked => (&["build", "--bin", "hadrian-sim"], sim),
            Witness::Exploration => {
                (&["build", "--bin", "hadrian-explore"], vec!["run", "--bin", "hadrian-explore"])
            }
            Witness::Unit(test) | Witness::Disk(test) => {
                (&["test", "--no-run", "--lib"], vec!["test", "--lib", test])
            }
            Witness::Story(file, story) => (
                &["test", "--no-run", "--test", file],
                vec!["test", "--test", file, "--", "--exact", story],
            ),
        };
        let package = match witness {
            Witness::Unit(_) => "hadrian-protocol",
            Witness::Disk(_) => "hadrian-blockdev",
            _ => "hadrian-sim",
        };
        let built = self.cargo(package, build).output()?;
        if !built.status.success() {
            bail!("it does not build:\n{}", String::from_utf8_lossy(&built.stderr));
        }
        let ran = self.cargo(package, &ask).output()?;
        let (out, errors) = (String::from_utf8_lossy(&ran.stdout), ran.stderr);
        if matches!(witness, Witness::Story(..) | Witness::Unit(_) | Witness::Disk(_))
            && !out.contains("running 1 test")
        {
            bail!("there is no such story");
        }
        if ran.status.success() {
            return Ok(None);
        }
        let errors = String::from_utf8_lossy(&errors);
        let tells = |line: &&str| line.starts_with("seed ") || line.ends_with(", after");
        let told = out.lines().find(tells);
        // The core has assertions of its own.
        let line = told.or_else(|| errors.lines().find(|line| !line.contains("panicked at")));
        Ok(Some(line.unwrap_or("it fails").chars().take(160).collect()))
    }

    fn cargo(&self, package: &str, args: &[&str]) -> Command {
        let (what, rest) = args.split_at(1);
        let mut command = Command::new("cargo");
        command.args(what).args(["--quiet", "--package", package]).args(rest);
        command.current_dir(&self.copy).env("CARGO_TARGET_DIR", &self.target);
        command.env("RUST_BACKTRACE", "0");
        command
    }
}

/// Everything but what was built.
fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        let (from, to) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            copy_tree(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
