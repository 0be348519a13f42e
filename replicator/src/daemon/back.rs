//! Points of the past, as they are looked for; and a takeover that begins at one.

use hadrian_blockdev::engine::{AnyEngine, EngineChoice};
use hadrian_blockdev::history::{Resolved, Target};
use hadrian_protocol::node::{Command, How};

use super::Daemon;
use crate::control::{At, FoundPoint, PointStatus, Response};

impl Daemon {
    /// Which point is meant.
    pub(super) async fn find(&self, name: &str, at: At) -> Response {
        let called = match &at {
            At::Name(name) => Some(name.to_string()),
            _ => None,
        };
        match self.resolve(name, at).await {
            Ok(Resolved { point, is_ahead }) => {
                let point = PointStatus { name: called, ..PointStatus::from(point) };
                Response::Found(FoundPoint { point, is_ahead })
            }
            Err(refused) => refused,
        }
    }

    async fn resolve(&self, name: &str, at: At) -> Result<Resolved, Response> {
        let (door, target) = (self.door(name).await?, Target::from(at));
        // It reads disks where it stands.
        let found = tokio::task::spawn_blocking(move || {
            let mut engine =
                AnyEngine::choose(EngineChoice::Plain, 1).map_err(|error| error.to_string())?;
            door.resolve(&mut engine, &target).map_err(|error| error.to_string())
        });
        let found = found.await.unwrap_or_else(|error| Err(error.to_string()));
        found.map_err(|why| Response::refused("no_point", why))
    }

    /// A takeover by force at a point of this member's past.
    pub(super) async fn go_back(&self, name: &str, how: How, at: At, test: bool) -> Response {
        let over = match how {
            How::Override { owner, epoch } => Some((owner, epoch)),
            How::Force => None,
            How::Planned(_) | How::PeerWindowOnly => {
                let text = "to go back gives up what was written since the point, on every member: \
                            it is a takeover --force";
                return Response::refused("needs_force", text);
            }
        };
        match self.resolve(name, at).await {
            Ok(found) => {
                let to = found.point.at;
                self.command(name, Command::GoBack { over, to, test }).await
            }
            Err(refused) => refused,
        }
    }
}
