//! `hadrian seed`: a copy of a resource that is carried to another host by hand.

mod export;
mod import;

use super::args::{Args, Seed};

pub(super) fn seed(args: &Args, what: &Seed) -> anyhow::Result<()> {
    match what {
        Seed::Export { resource, file, r#for } => {
            export::export(args, resource, file, r#for.as_deref())
        }
        Seed::Import { resource, file } => import::import(args, resource, file),
    }
}
