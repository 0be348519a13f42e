//! Accept loops: one connection, one local task.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use crate::export::CloseHandle;

use super::conn::{Limits, serve_connection};
use super::export::ExportTable;

const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// Accepts clients on a unix socket until the task is ended; `slots` bounds how many at a time,
/// one more is closed at once. Runs on a `LocalSet`.
pub async fn serve_unix(
    listener: UnixListener,
    table: Rc<dyn ExportTable>,
    server: CloseHandle,
    slots: std::sync::Arc<Semaphore>,
    limits: Limits,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => begin(stream, &table, &server, &slots, limits),
            Err(error) => refused(&error).await,
        }
    }
}

/// The same on TCP, without delay for small answers.
pub async fn serve_tcp(
    listener: TcpListener,
    table: Rc<dyn ExportTable>,
    server: CloseHandle,
    slots: std::sync::Arc<Semaphore>,
    limits: Limits,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it a small answer may wait for the client's delayed acknowledgement.
                if let Err(error) = stream.set_nodelay(true).and_then(|()| keep_alive(&stream)) {
                    tracing::debug!(%error, "a client left before it was served");
                    continue;
                }
                begin(stream, &table, &server, &slots, limits);
            }
            Err(error) => refused(&error).await,
        }
    }
}

/// A client whose host is gone without a word is noticed within a minute, and its place is free.
fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    Ok(())
}

fn begin<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    table: &Rc<dyn ExportTable>,
    server: &CloseHandle,
    slots: &std::sync::Arc<Semaphore>,
    limits: Limits,
) {
    let Ok(permit) = slots.clone().try_acquire_owned() else {
        tracing::warn!("a client was turned away: the limit of connections is reached");
        return;
    };
    let (table, server) = (table.clone(), server.clone());
    spawn_local(async move {
        let permit: Option<Box<dyn std::any::Any>> = Some(Box::new(permit));
        let served = serve_connection(stream, table.as_ref(), &server, limits, permit).await;
        if let Err(error) = served {
            tracing::info!(%error, "an NBD client's connection ended");
        }
    });
}

/// Accepting fails when descriptors run out; others may be freed meanwhile.
async fn refused(error: &std::io::Error) {
    tracing::warn!(%error, "a client could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}
