//! What can be typed. Help, man page and completions all come from here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use hadrian_protocol::node::Limits;
use hadrian_protocol::point::PointName;
use hadrian_protocol::replica::Mode;

use crate::control::At;

/// Mirrors block volumes between hosts: status, takeover, and the rest.
///
/// Exit codes: 0 done, 1 refused or failed, 2 not understood, 3 configuration, 4 no daemon,
/// 5 needs --yes.
#[derive(Debug, Parser)]
#[command(name = "hadrian", version)]
pub(super) struct Args {
    /// The configuration, the same on every member
    #[arg(long, global = true, default_value = "/etc/hadrian/hadrian.toml")]
    pub(super) config: PathBuf,
    /// Which member this host is; its host name unless said otherwise
    #[arg(long, global = true)]
    pub(super) member: Option<String>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make this member's key pair and print its fingerprint
    Keygen {
        /// Name of the member
        #[arg(long = "for")]
        member: String,
        /// Where to put the pair
        #[arg(long, default_value = "/etc/hadrian")]
        out: PathBuf,
    },
    /// Check the configuration
    Check,
    /// Make this member's replica of a resource: superblock and log
    Create {
        /// Which resource
        resource: String,
        /// The backing store holds data already: take it as it is
        #[arg(long)]
        adopt: bool,
        /// What the backing store holds is a copy, or worth nothing: let the primary's content take
        /// its place, of which only what differs is sent. On a standby
        #[arg(long, conflicts_with = "adopt")]
        copy: bool,
    },
    /// Show what is going on
    Status {
        /// One resource only
        resource: Option<String>,
        /// Again every second
        #[arg(long)]
        watch: bool,
        /// Every field, under the names that DB2 HADR has for it
        #[arg(long)]
        hadr: bool,
    },
    /// Say why a resource is not primary, not in peer, or holds its answers, and the way out
    Explain {
        /// Which resource
        resource: String,
    },
    /// Show what happened to a resource, oldest first
    Events {
        /// Which resource
        resource: String,
        /// Go on and show what happens
        #[arg(long)]
        follow: bool,
    },
    /// Give this host's kernel a block device of a volume, for as long as this member serves it
    Attach {
        #[command(subcommand)]
        front: Front,
    },
    /// Ownership marks: make them, show what stands on them
    Mark {
        #[command(subcommand)]
        what: Mark,
    },
    /// Show the watchdog that the configuration names, without starting it
    Watchdog,
    /// Make this member the primary
    Takeover(Takeover),
    /// Change the mode of a resource; on its primary
    Mode {
        /// Which resource
        resource: String,
        /// The new mode
        mode: ModeArg,
    },
    /// Give the point that the history is at now a name; on the primary
    Marker {
        /// A letter, then letters, digits, dots, dashes and underscores
        name: PointName,
        /// Of which resources; of all of which this member is the primary unless said
        resources: Vec<String>,
        /// Pass over resources of which another member is the primary: for a hook that runs on
        /// every host
        #[arg(long)]
        if_primary: bool,
    },
    /// Compare a standby's image with this primary's while clients write; exit code 1 where they
    /// differ
    ///
    /// With --repair what differs is made equal, from the side that --from names: compare first
    /// without it, and find out whose bytes are right. What is replaced goes into the quarantine of
    /// the member that is repaired first (hadrian quarantine list).
    Verify {
        /// Which resource
        resource: String,
        /// Which standby; any that follows unless said
        #[arg(long)]
        standby: Option<String>,
        /// Make equal what differs; together with --from
        #[arg(long)]
        repair: bool,
        /// Whose bytes are right: this primary, or the standby
        #[arg(long, value_name = "MEMBER", requires = "repair")]
        from: Option<String>,
    },
    /// Make a volume larger on every member, while clients use it; on the primary
    Grow(Grow),
    /// Bring a replica that holds writes of its own back to its primary: what is its own is saved
    /// first, then what differs is fetched
    Rejoin {
        /// Which resource
        resource: String,
        /// Only show what the replica would lose
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// A copy of a resource that is carried to another host by hand
    Seed {
        #[command(subcommand)]
        what: Seed,
    },
    /// What a rejoin or a takeover has set aside on this member: list it, show it, get it back.
    /// With or without a running daemon; nothing in quarantine is ever changed, and only `remove`
    /// takes anything out of it
    Quarantine {
        #[command(subcommand)]
        what: Quarantine,
    },
    /// Show how far back the image can be read on this member, the newest points that have a name,
    /// and which views of it are served
    History {
        /// One resource only
        resource: Option<String>,
        /// List every point that has a name
        #[arg(long)]
        all: bool,
    },
    /// Serve the image as it was at a point, read-only, over NBD, until this is stopped by a
    /// signal; replication goes on
    Export(Export),
    /// Serve a copy of the image at a point that may be written to and is thrown away when this is
    /// stopped; neither the image nor replication know of it
    Clone(Clone),
    /// Rehearse: run a command on a clone, and end as it does. It finds each volume under
    /// HADRIAN_NBD_URI_<VOLUME>, the first one also under HADRIAN_NBD_URI
    Drill(Drill),
    /// End replication on this member: everything is brought into the backing stores, which stay as
    /// plain disks, and log and superblock are put aside. The resource is stopped before
    Detach {
        /// Which resource
        resource: String,
        /// Leave out what was received and may not be applied yet
        #[arg(long)]
        discard_log: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Stop a resource on this member, in order
    Stop {
        /// Which resource
        resource: String,
    },
    /// Start a stopped resource on this member
    Start {
        /// Which resource
        resource: String,
        /// As primary, without the members that cannot be heard
        #[arg(long)]
        primary: bool,
        /// Together with --primary
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Show superblock and log of a stopped replica, or what a recording says; changes nothing
    Inspect {
        /// Which resource
        #[arg(required_unless_present = "replay")]
        resource: Option<String>,
        /// Run a recording of a resource's events through the core again; needs no configuration
        #[arg(long, value_name = "FILE", conflicts_with = "resource")]
        replay: Option<PathBuf>,
    },
    /// Watch a volume lose its primary and lose no data: two daemons on this host, a few seconds
    Demo,
    /// Print a completion script, or write it where the shell looks for it
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
        /// Write a file into this folder instead
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Write the pages into this folder instead
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

fn time(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

fn quiesce(text: &str) -> Result<Duration, String> {
    at_most(text, Limits::QUIESCE_MAX)
}

fn total(text: &str) -> Result<Duration, String> {
    at_most(text, Limits::TOTAL_MAX)
}

fn at_most(text: &str, limit: Duration) -> Result<Duration, String> {
    let found = time(text).map_err(|error| error.to_string())?;
    if found <= limit {
        return Ok(found);
    }
    Err(format!("at most {}", humantime::format_duration(limit)))
}

/// What to do with ownership marks.
#[derive(Debug, Subcommand)]
pub(super) enum Mark {
    /// Make markers of blank devices or files, and give places to resources that have none; once,
    /// on one member. What holds anything else is never written
    Format {
        /// How many resources there is to be room for
        #[arg(long, value_name = "COUNT", default_value_t = 64,
              value_parser = clap::value_parser!(u16).range(1..=1000))]
        places: u16,
    },
    /// Show members, leases, and the owner of each resource
    Show,
}

/// A copy of a resource in a file.
#[derive(Debug, Subcommand)]
pub(super) enum Seed {
    /// Write this member's image, as of one position of the log, into a file, while clients write
    ///
    /// Zeroes are left out, and the rest is compressed. Where the daemon runs the resource it
    /// writes the file, and needs a path that it can see; otherwise it is made of the files of the
    /// stopped replica. On a primary or a standby.
    Export {
        /// Which resource
        resource: String,
        /// The file; it must not exist
        file: PathBuf,
        /// On the primary: note from now on what this member lacks, so that it is sent no more than
        /// that when it comes with the copy
        #[arg(long, value_name = "MEMBER")]
        r#for: Option<String>,
    },
    /// Make this member's replica of such a file, with an empty backing store
    ///
    /// When its daemon is started it gets what has changed since: from the primary's log, or what
    /// was noted for it, or by comparing.
    Import {
        /// Which resource
        resource: String,
        /// The file
        file: PathBuf,
    },
}

/// What to do with what is in quarantine.
#[derive(Debug, Subcommand)]
pub(super) enum Quarantine {
    /// Name each file: what it holds, of which time, and whether it is whole
    List {
        /// Of which resource
        resource: String,
    },
    /// Show the ranges that a file holds, and when its frames were written
    Show {
        /// Of which resource
        resource: String,
        /// Name of the file, as `quarantine list` has it
        name: String,
        /// Most ranges and frames that are shown
        #[arg(long, value_name = "COUNT", default_value_t = 20,
              value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        limit: u32,
    },
    /// Get a volume back as it was: as a file, or for NBD clients to read
    ///
    /// Of a file of blocks (image-….blocks) this is the volume as this member's log ended, before
    /// it rejoined: the blocks that were replaced, and over them the frames saved with them. Of a
    /// file of frames (tail-….frames) it is what those frames wrote. Everything else is as the
    /// backing store has it NOW: it is the volume as it was only where nothing else has changed
    /// since. With --blocks-only everything else is left out.
    Export(QuarantineExport),
    /// Remove files that nobody will ask for any more
    ///
    /// Refused while one of them is exported, while it may still be written, and as long as a
    /// rejoin of this member has not come to its end.
    Remove {
        /// Of which resource
        resource: String,
        /// Names of the files, as `quarantine list` has them
        #[arg(required = true)]
        names: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// A view of a volume, and where it goes.
#[derive(Debug, clap::Args)]
pub(super) struct QuarantineExport {
    /// Of which resource
    pub(super) resource: String,
    /// Name of the file, as `quarantine list` has it
    pub(super) name: String,
    /// Which volume; needed where the resource has several
    #[arg(long, value_name = "NAME")]
    pub(super) volume: Option<String>,
    /// Write a raw image here, with holes where there is nothing; the file must not exist
    #[arg(long, value_name = "FILE", required_unless_present = "socket")]
    pub(super) out: Option<PathBuf>,
    /// Serve it read-only over NBD on this unix socket, until this is stopped by a signal
    #[arg(long, value_name = "PATH", conflicts_with = "out")]
    pub(super) socket: Option<PathBuf>,
    /// Only what is in quarantine; everything else is a hole
    #[arg(long)]
    pub(super) blocks_only: bool,
    /// Of a file of blocks, the image alone, without the frames that were saved with it
    #[arg(long)]
    pub(super) no_frames: bool,
}

/// A larger volume.
///
/// Backing stores that are files are made larger. A device has to be larger before, on each member
/// (lvextend, or a larger disk): what it holds beyond the volume is overwritten with zeroes.
/// Nothing is changed unless every member is connected and has room. Clients find the new size when
/// they connect again. Volumes do not become smaller.
#[derive(Debug, clap::Args)]
pub(super) struct Grow {
    /// Of which resource
    pub(super) resource: String,
    /// Which volume
    pub(super) volume: String,
    /// How large it is to be in all: 20GiB
    #[arg(long, value_name = "SIZE")]
    pub(super) size: bytesize::ByteSize,
    /// Only say whether every member has room; files are made larger for that, volumes are not
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// What makes the block device.
#[derive(Debug, Subcommand)]
pub(super) enum Front {
    /// The kernel's NBD driver, as /dev/nbdN; stays until it is stopped by a signal
    Nbd {
        /// RESOURCE/VOLUME, or RESOURCE where it has one volume
        volume: String,
        /// Number of the device; the first that is free unless said
        #[arg(long, value_name = "N")]
        device: Option<u32>,
        /// Connections to the daemon
        #[arg(long, value_name = "COUNT", default_value_t = 1,
              value_parser = clap::value_parser!(u32).range(1..=16))]
        connections: u32,
        /// How long requests wait for a daemon that is away; then they fail
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
        hold: Duration,
    },
}

/// The image as it was.
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Of which resource
    pub(super) resource: String,
    /// Which point: a name (hadrian marker), or the last at or before an LSN, a moment (RFC 3339),
    /// "10m ago", or now; the newest that is in the image unless said
    #[arg(long, value_name = "POINT", value_parser = super::history::at)]
    pub(super) at: Option<At>,
    /// Where to listen; at a place of hadriand's choice unless said
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

/// A copy of it that is thrown away.
#[derive(Debug, clap::Args)]
pub(super) struct Clone {
    /// Of which resource
    pub(super) resource: String,
    /// Which point: a name (hadrian marker), or the last at or before an LSN, a moment (RFC 3339),
    /// "10m ago", or now; the newest that is in the image unless said
    #[arg(long, value_name = "POINT", value_parser = super::history::at)]
    pub(super) at: Option<At>,
    /// Most that may be written to it; what is more fails with "no space left"
    #[arg(long, value_name = "SIZE", default_value = "10GiB")]
    pub(super) size_limit: bytesize::ByteSize,
    /// Where to listen; at a place of hadriand's choice unless said
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

/// A rehearsal.
#[derive(Debug, clap::Args)]
pub(super) struct Drill {
    /// Of which resource
    pub(super) resource: String,
    /// Which point: a name (hadrian marker), or the last at or before an LSN, a moment (RFC 3339),
    /// or "10m ago"; everything that this member has received unless said, as a takeover has it
    #[arg(long, value_name = "POINT", value_parser = super::history::at)]
    pub(super) at: Option<At>,
    /// Most that the command may write; what is more fails with "no space left"
    #[arg(long, value_name = "SIZE", default_value = "10GiB")]
    pub(super) size_limit: bytesize::ByteSize,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(super) command: Vec<String>,
}

/// A takeover, in all its strengths.
#[derive(Debug, clap::Args)]
pub(super) struct Takeover {
    /// Of which resource
    pub(super) resource: String,
    /// Without the old primary's agreement; may lose writes
    #[arg(long)]
    pub(super) force: bool,
    /// First have the owner stopped by the configured fence command, instead of waiting its lease
    /// out; together with --force
    #[arg(long, requires = "force", conflicts_with = "test")]
    pub(super) fence: bool,
    /// Without the old primary's agreement, but only while this standby can prove that no
    /// answered write is missing here
    #[arg(long, conflicts_with = "force")]
    pub(super) peer_window_only: bool,
    /// With ownership marks, against what they say: MEMBER:EPOCH of the owner, as status shows
    #[arg(long, value_name = "MEMBER:EPOCH", conflicts_with_all = ["force", "peer_window_only"])]
    pub(super) r#override: Option<String>,
    /// Longest that clients may be held; at most 10m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = quiesce)]
    pub(super) max_quiesce: Duration,
    /// Longest until clients are held; the standby catches up meanwhile; at most 1d
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = total)]
    pub(super) max_total: Duration,
    /// At a point of this member's past, to undo what was written everywhere since: a name (hadrian
    /// marker), or the last point at or before an LSN, a moment (RFC 3339) or "10m ago"; together
    /// with --force or --override
    #[arg(long, value_name = "POINT", value_parser = super::history::at,
        conflicts_with = "peer_window_only")]
    pub(super) to: Option<At>,
    /// Only say whether it would be granted, and with --to what would be given up
    #[arg(long, visible_alias = "dry-run")]
    pub(super) test: bool,
    /// Give up a takeover that is under way
    #[arg(long, conflicts_with_all = ["force", "test", "peer_window_only", "override", "to"])]
    pub(super) cancel: bool,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ModeArg {
    /// A flush is answered when it is durable on both
    Sync,
    /// A flush is answered when it is durable here and received there
    Nearsync,
    /// An answer waits until the write was handed to the connection
    Async,
    /// Shipping never holds a client back
    Superasync,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Sync => Self::Sync,
            ModeArg::Nearsync => Self::Nearsync,
            ModeArg::Async => Self::Async,
            ModeArg::Superasync => Self::Superasync,
        }
    }
}
