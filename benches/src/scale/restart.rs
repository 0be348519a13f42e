//! A restart with much of the log not applied yet: what waited there is brought into the stores
//! before the daemon serves.

use std::time::Instant;

use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Side, Spec};

use crate::figures::Figures;
use crate::load::{self, Load};
use crate::{GIB, MIB, Run, machine};

const VOLUME: u64 = 2 * GIB;

/// The primary is killed behind a burst that its log still holds for the most part.
pub(crate) fn measure(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    for burst in [256 * MIB, GIB, 2 * GIB - 64 * MIB] {
        let spec = Spec { volume_bytes: VOLUME, log_bytes: 6 * GIB, ..Spec::new(Mode::Nearsync) };
        let mut cluster = run.cluster(spec)?;
        load::write(&cluster, Side::Alpha, Load::sequential(burst, VOLUME))?;
        let node = cluster.status(Side::Alpha).and_then(|status| status.node);
        let waiting = node.map_or(0, |node| node.end.since(node.checkpointed));
        cluster.kill(Side::Alpha)?;
        let began = Instant::now();
        cluster.start(Side::Alpha)?;
        let mut client = cluster.client(Side::Alpha)?;
        client.write(0, &[1; 4096])?;
        let seconds = began.elapsed().as_secs_f64();
        drop(client);
        [Side::Alpha, Side::Beta].into_iter().try_for_each(|side| cluster.kill(side))?;
        let dirs = [Side::Alpha, Side::Beta].map(|side| cluster.replica_dir(side));
        let [from, to] = [machine::segments(&dirs[0])?, machine::segments(&dirs[1])?];
        let disk = machine::move_directly(&from, &to, waiting)?;
        let name = format!("{} MiB behind the checkpoint", waiting / MIB);
        figures.note(format!("{name}: until a write is answered"), &[seconds], "s");
        figures.note(format!("{name}: the disk alone"), &[disk], "s");
    }
    Ok(())
}
