//! What it costs to keep history: clients' writes, and how soon the backing stores have them, of a
//! pair whose members keep before-images beside one whose members do not.

use std::time::Instant;

use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, Side, Spec};

use crate::figures::Figures;
use crate::load::{Load, write};
use crate::{GIB, MIB, Run};

/// All of the volume is filled before: every block has something that history must keep.
const VOLUME: u64 = GIB;

/// Two pairs of daemons, that get the same load one after the other.
pub(crate) fn measure(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    let pair = |settings: &str| {
        let (volume_bytes, log_bytes, settings) = (VOLUME, 2 * GIB, settings.to_owned());
        run.cluster(Spec { volume_bytes, log_bytes, settings, ..Spec::new(Mode::Nearsync) })
    };
    let pairs = [pair("")?, pair("history_size = \"8GiB\"\n")?];
    for cluster in &pairs {
        loaded(cluster, Load::sequential(VOLUME, VOLUME))?;
    }
    let loads = [
        ("blocks of 4 KiB anywhere", Load::scattered(128 * MIB, VOLUME)),
        ("1 MiB one after the other", Load::sequential(GIB, VOLUME)),
    ];
    for (name, load) in loads {
        let (mut written, mut applied) = ([vec![], vec![]], [vec![], vec![]]);
        for _ in 0..run.passes {
            for (of, cluster) in pairs.iter().enumerate() {
                let seconds = loaded(cluster, load)?;
                written[of].push(seconds.0);
                applied[of].push(seconds.1);
            }
        }
        let beside = |of: &[Vec<f64>; 2]| -> Vec<f64> {
            of[1].iter().zip(&of[0]).map(|(with, without)| with / without).collect()
        };
        figures.note(format!("{name}: answered without"), &written[0], "s");
        figures.note(format!("{name}: answered with"), &written[1], "s");
        figures.note(format!("{name}: with beside without"), &beside(&written), "times");
        figures.note(format!("{name}: in the stores without"), &applied[0], "s");
        figures.note(format!("{name}: in the stores with"), &applied[1], "s");
        figures.note(format!("{name}: stores beside without"), &beside(&applied), "times");
    }
    Ok(())
}

/// Seconds until the load was answered, and until it was in the backing stores of both members.
fn loaded(cluster: &Cluster, load: Load) -> anyhow::Result<(f64, f64)> {
    rustix::fs::sync();
    let began = Instant::now();
    let written = write(cluster, Side::Alpha, load)?;
    cluster.await_applied(Side::Alpha)?;
    Ok((written, began.elapsed().as_secs_f64()))
}
