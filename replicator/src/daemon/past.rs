//! What the daemon does with histories: views of them, and their named points.

use std::path::PathBuf;

use hadrian_blockdev::history::Door;
use tokio::sync::oneshot;

use super::Daemon;
use crate::control::{At, Response};
use crate::driver::Ask;
use crate::views;

impl Daemon {
    /// Serves an image as it was.
    pub(super) async fn view(
        &self,
        name: &str,
        at: At,
        size_limit: Option<u64>,
        socket: Option<PathBuf>,
    ) -> Response {
        let Some(resource) = self.config.resource(name) else {
            return Response::refused("unknown", format!("no resource {name:?}"));
        };
        let door = match self.door(name).await {
            Ok(door) => door,
            Err(refused) => return refused,
        };
        let wish = views::Wish {
            resource: name.to_owned(),
            exports: resource.exports(),
            stores: resource.stores(self.me.id),
            at,
            size_limit,
            socket,
            run_dir: self.me.run_dir.clone(),
        };
        self.views.open(door, wish).await
    }

    /// Where the history of a resource is read.
    pub(super) async fn door(&self, name: &str) -> Result<Door, Response> {
        let asks = self.asks(name).map_err(|why| Response::refused("not_running", why))?;
        let (reply, answer) = oneshot::channel();
        let asked = asks.send(Ask::History(reply)).await.is_ok();
        let door = if asked { answer.await.ok().flatten() } else { None };
        door.ok_or_else(|| {
            let text = format!(
                "{name} has no history on this member at the moment; hadrian history {name} says \
                 more, history = \"24h\" in the configuration keeps one from the next start on"
            );
            Response::refused("no_history", text)
        })
    }

    /// The points of its history that have a name.
    pub(super) async fn named_points(&self, name: &str, most: u32) -> Response {
        let door = match self.door(name).await {
            Ok(door) => door,
            Err(refused) => return refused,
        };
        // Of a long history it reads for a while.
        let listed = tokio::task::spawn_blocking(move || views::named_points(&door, most)).await;
        listed.unwrap_or_else(|error| Response::refused("no_history", error.to_string()))
    }
}
