//! The most memory that a daemon needs for one resource, under each kind of load.

use anyhow::Context as _;
use hadrian_benches::process;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Side, Spec};

use crate::figures::{Bar, Figures};
use crate::load::{self, Load};
use crate::{GIB, Run};

const VOLUME: u64 = GIB;
const PEAK_MAX: Bar = Bar::AtMost(256.0);

/// Each load on a pair of its own, because a peak is that of a whole life.
pub(crate) fn measure(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    let delay = "replay_delay = \"1h\"\n";
    let large = Load::sequential(2 * GIB, VOLUME);
    let middle = Load { block: 64 << 10, bytes: GIB, span: VOLUME, is_random: true };
    let small = Load::scattered(GIB / 2, VOLUME);
    one(run, figures, "1 MiB writes", large, "")?;
    one(run, figures, "64 KiB writes", middle, "")?;
    one(run, figures, "4 KiB writes", small, "")?;
    one(run, figures, "1 MiB writes, applied an hour later", large, delay)?;
    one(run, figures, "4 KiB writes, applied an hour later", small, delay)
}

fn one(
    run: &Run,
    figures: &mut Figures,
    name: &str,
    load: Load,
    settings: &str,
) -> anyhow::Result<()> {
    let settings = settings.into();
    let spec =
        Spec { volume_bytes: VOLUME, log_bytes: 4 * GIB, settings, ..Spec::new(Mode::Nearsync) };
    let cluster = run.cluster(spec)?;
    load::write(&cluster, Side::Alpha, load)?;
    for (who, side) in [("primary", Side::Alpha), ("standby", Side::Beta)] {
        let peak = process::peak_mib(cluster.pid(side).context("it runs")?)?;
        figures.judge(format!("{name}: peak of the {who}"), &[peak], "MiB", PEAK_MAX);
    }
    Ok(())
}
