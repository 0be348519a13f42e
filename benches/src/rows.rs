//! What is measured: the rows of the table.

/// One kind of load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its name in the table and in the results.
    pub(crate) name: &'static str,
    /// fio's word for the kind of access.
    pub(crate) access: &'static str,
    /// Bytes of each request, as fio reads it.
    pub(crate) block: &'static str,
    /// Requests in flight on each connection.
    pub(crate) depth: u32,
    /// Connections.
    pub(crate) connections: u32,
    /// Whether each write is followed by a flush.
    pub(crate) flushes: bool,
    /// Whether the page cache is emptied before.
    pub(crate) cold: bool,
}

const fn row(name: &'static str, access: &'static str, block: &'static str, depth: u32) -> Row {
    Row { name, access, block, depth, connections: 1, flushes: false, cold: false }
}

/// All rows, in the order of the table.
pub(crate) const ROWS: [Row; 11] = [
    row("4k-randwrite-1", "randwrite", "4k", 1),
    row("4k-randwrite-16", "randwrite", "4k", 16),
    row("4k-randwrite-64", "randwrite", "4k", 64),
    row("64k-randwrite-1", "randwrite", "64k", 1),
    row("64k-randwrite-16", "randwrite", "64k", 16),
    row("1m-write-4", "write", "1m", 4),
    row("4k-randread-16", "randread", "4k", 16),
    Row { cold: true, ..row("4k-randread-16-cold", "randread", "4k", 16) },
    row("4k-mix-16", "randrw", "4k", 16),
    Row { flushes: true, ..row("4k-flush-1", "randwrite", "4k", 1) },
    Row { flushes: true, connections: 8, ..row("4k-flush-1x8", "randwrite", "4k", 1) },
];

/// Every block is written once before anything is measured: nobody measures allocation.
pub(crate) const FILL: Row = row("fill", "write", "1m", 4);
