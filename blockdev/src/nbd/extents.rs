//! Extents as the wire wants them.

use crate::export::{EXTENT_COUNT_MAX, Extent};

use super::proto::{Descriptor, Headers, STATE_HOLE, STATE_ZERO};

/// Not empty, joined where alike, ending with the request, in
/// lengths that fit, and not too many.
pub(super) fn describe(
    extents: &[Extent],
    len: u64,
    one: bool,
    headers: Headers,
) -> Vec<Descriptor> {
    let count_max = if one { 1 } else { EXTENT_COUNT_MAX };
    let mut out: Vec<Descriptor> = Vec::with_capacity(extents.len().min(count_max));
    let mut left = len;
    for extent in extents {
        let taken = extent.len.min(left);
        left -= taken;
        let state = state(extent);
        if taken == 0 {
            continue;
        }
        let full = out.len() == count_max;
        match out.last_mut() {
            Some(last) if last.state == state => last.len += taken,
            _ if full => break,
            _ => out.push(Descriptor { len: taken, state }),
        }
    }
    if headers != Headers::Extended {
        fit_compact(&mut out);
    }
    out
}

/// A compact descriptor has 32 bits of length. The map may end early, but not have gaps: the first
/// extent that does not fit is cut to a whole number of large blocks and becomes the last.
fn fit_compact(descriptors: &mut Vec<Descriptor>) {
    const COMPACT_LEN_MAX: u64 = (u32::MAX as u64) & !((1 << 16) - 1);
    let too_long = |descriptor: &Descriptor| descriptor.len > COMPACT_LEN_MAX;
    if let Some(at) = descriptors.iter().position(too_long) {
        descriptors.truncate(at + 1);
        if let Some(last) = descriptors.last_mut() {
            last.len = COMPACT_LEN_MAX;
        }
    }
}

fn state(extent: &Extent) -> u32 {
    let bit = |set, bit| if set { bit } else { 0 };
    bit(extent.hole, STATE_HOLE) | bit(extent.zero, STATE_ZERO)
}
