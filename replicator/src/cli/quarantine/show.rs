//! `hadrian quarantine show`: what one file holds, in ranges and frames.

use anyhow::Context as _;
use hadrian_blockdev::quarantine::{Part, summarize};
use hadrian_protocol::divergence::Changed;
use hadrian_protocol::frame::Frame;
use serde_json::json;

use super::super::words;
use super::{Place, as_value, engine, line, wall_time};

/// What is shown of a frame.
struct Seen {
    lsn: String,
    epoch: String,
    wall_us: u64,
    words: String,
}

impl Seen {
    fn new(frame: &Frame) -> Self {
        Self {
            lsn: frame.lsn().to_string(),
            epoch: frame.epoch().to_string(),
            wall_us: frame.wall().as_micros(),
            words: format!("{}, {} long", wall_time(frame.wall()), words::bytes(frame.log_len())),
        }
    }
}

/// Shows at most `limit` ranges and `limit` frames, and how many more there are.
pub(super) fn show(
    place: &Place<'_>,
    name: &str,
    limit: usize,
    as_json: bool,
) -> anyhow::Result<()> {
    let path = place.path(name)?;
    let mut engine = engine()?;
    let mut walk = place.open(&mut engine, &path)?;
    let (mut frames, mut frame_count) = (Vec::new(), 0);
    let read = summarize(&mut engine, &mut walk, &mut |part| {
        if let Part::Frame(frame, _) = part {
            frame_count += 1;
            if frames.len() < limit {
                frames.push(Seen::new(frame));
            }
        }
    });
    let summary = read.with_context(|| format!("{} cannot be read", path.display()))?;
    let ranges = summary.changed.ranges();
    let (shown, more) = (&ranges[..limit.min(ranges.len())], ranges.len().saturating_sub(limit));
    let frames_more = frame_count - frames.len();
    if as_json {
        let mut value = as_value(name, &walk, &summary);
        let range = |range: &Changed| {
            let (volume, len) = (place.volume(range), range.end - range.start);
            json!({ "volume": volume, "offset": range.start, "length": len })
        };
        let frame = |seen: &Seen| {
            let (lsn, epoch) = (&seen.lsn, &seen.epoch);
            json!({ "lsn": lsn, "epoch": epoch, "written_us": seen.wall_us })
        };
        value["ranges"] = shown.iter().map(range).collect();
        value["ranges_more"] = more.into();
        value["rounded_to"] = summary.changed.unit.into();
        value["frames"] = frames.iter().map(frame).collect();
        value["frames_more"] = frames_more.into();
        say!("{value}");
        return Ok(());
    }
    line(name, &walk, &summary);
    for range in shown {
        let len = range.end - range.start;
        let (volume, in_words) = (place.volume(range), words::bytes(len));
        say!("  {volume}: {len} bytes ({in_words}) at {}", range.start);
    }
    tell_more(more, "ranges");
    for Seen { lsn, epoch, words, .. } in &frames {
        say!("  frame {lsn}, epoch {epoch}, written {words}");
    }
    tell_more(frames_more, "frames");
    Ok(())
}

fn tell_more(more: usize, of_what: &str) {
    if more > 0 {
        say!("  and {more} more {of_what}; --limit COUNT shows more of them");
    }
}
