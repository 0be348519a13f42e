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
    /// Requests in flight.
    pub(crate) depth: u32,
}

/// All rows, in the order of the table.
pub(crate) const ROWS: [Row; 5] = [
    Row { name: "4k-randwrite-1", access: "randwrite", block: "4k", depth: 1 },
    Row { name: "4k-randwrite-16", access: "randwrite", block: "4k", depth: 16 },
    Row { name: "64k-randwrite-16", access: "randwrite", block: "64k", depth: 16 },
    Row { name: "1m-write-4", access: "write", block: "1m", depth: 4 },
    Row { name: "4k-randread-16", access: "randread", block: "4k", depth: 16 },
];

/// Every block is written once before anything is measured: nobody measures allocation.
pub(crate) const FILL: Row = Row { name: "fill", access: "write", block: "1m", depth: 4 };
