//! A thread for each device that does what waits in the kernel.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

use super::control::{Device, DeviceError, Shape};

/// Makes, starts and takes away one device; forgotten, it leaves the device as it is.
#[derive(Debug)]
pub struct Keeper {
    orders: mpsc::Sender<Order>,
}

/// A device that is there and whose queues nobody serves yet.
#[derive(Debug)]
pub struct Opened {
    /// By this its queues are served.
    pub queues: OwnedFd,
    /// What it looks like; the queues may be other ones than were asked for.
    pub shape: Shape,
    /// `/dev/ublkbN`.
    pub path: PathBuf,
    /// It was there before, perhaps with requests that wait.
    pub taken_up: bool,
}

type Result<T> = std::result::Result<T, DeviceError>;

#[derive(Debug)]
enum Order {
    Start(i32, oneshot::Sender<Result<()>>),
    Withdraw(oneshot::Sender<Result<()>>),
    Delete(oneshot::Sender<Result<()>>),
}

impl Keeper {
    /// Takes up the device with the label of `shape`, if one waits for somebody to serve it; makes
    /// one otherwise. One that is larger is of no use, and taken away.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn open(shape: Shape) -> Result<(Self, Opened)> {
        let (orders, received) = mpsc::channel();
        let (opened, open) = oneshot::channel();
        let body = move || keep(shape, opened, &received);
        thread::Builder::new().name("ublk".into()).spawn(body)?;
        let opened = open.await.map_err(|_| gone())??;
        Ok((Self { orders }, opened))
    }

    /// Lets requests come; returns when somebody serves all queues, who must be the calling thread.
    ///
    /// # Errors
    /// [`DeviceError::Refused`].
    pub async fn start(&self) -> Result<()> {
        let me = rustix::thread::gettid().as_raw_nonzero().get();
        self.order(|done| Order::Start(me, done)).await
    }

    /// Takes the device away, for good: whoever has it open gets errors. Its queues must be served
    /// until they end.
    ///
    /// # Errors
    /// [`DeviceError::Refused`].
    pub async fn withdraw(&self) -> Result<()> {
        self.order(Order::Withdraw).await
    }

    /// Forgets a device that was withdrawn, and whose queues have ended.
    ///
    /// # Errors
    /// [`DeviceError::Refused`].
    pub async fn delete(self) -> Result<()> {
        self.order(Order::Delete).await
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<Result<()>>) -> Order) -> Result<()> {
        let (done, result) = oneshot::channel();
        self.orders.send(order(done)).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

fn gone() -> DeviceError {
    DeviceError::Io(std::io::Error::other("the thread that keeps the device has ended"))
}

fn keep(shape: Shape, opened: oneshot::Sender<Result<Opened>>, orders: &mpsc::Receiver<Order>) {
    let device = match Device::open(shape).and_then(|device| Ok((device.describe()?, device))) {
        Ok((description, device)) => {
            let _ = opened.send(Ok(description));
            device
        }
        Err(error) => {
            let _ = opened.send(Err(error));
            return;
        }
    };
    // Who gave an order may have gone away; then nobody needs the answer.
    while let Ok(order) = orders.recv() {
        match order {
            Order::Start(server, done) => drop(done.send(device.start(server))),
            Order::Withdraw(done) => drop(done.send(device.withdraw())),
            Order::Delete(done) => return drop(done.send(device.delete())),
        }
    }
}
