//! An engine between in-memory sockets: the driver that a worker is, without a kernel. Time is tokio's paused clock.

use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use gateway_http::engine::{Accepted, Action, ConnId, DownstreamProtocol, Engine, EngineConfig, Transmitted};
use gateway_http::limits::Limits;
use gateway_http::outcome::Outcome;
use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// A finished request, owned.
#[derive(Clone, Debug)]
pub struct Done {
    pub status: u16,
    pub grpc_status: Option<u32>,
    pub grpc_messages: Option<[u64; 2]>,
    pub fault: Option<gateway_core::fault::Fault>,
    pub endpoint: Option<u32>,
    pub rule: bool,
    pub attempts: u8,
    pub retried: Option<gateway_http::retry::Retried>,
    pub method: String,
    pub path: String,
    pub authority: String,
    pub request_id: String,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub first_byte: bool,
}

impl Done {
    fn of(outcome: &Outcome<'_>) -> Self {
        Self {
            status: outcome.status,
            grpc_status: outcome.grpc_status,
            grpc_messages: outcome.grpc_messages,
            fault: outcome.fault,
            endpoint: outcome.endpoint.map(|endpoint| endpoint.0),
            rule: outcome.rule.is_some(),
            attempts: outcome.attempts,
            retried: outcome.retried,
            method: outcome.method.to_owned(),
            path: outcome.path.to_owned(),
            authority: outcome.authority.to_owned(),
            request_id: outcome.request_id.to_owned(),
            bytes_received: outcome.bytes_received,
            bytes_sent: outcome.bytes_sent,
            first_byte: outcome.first_byte.is_some(),
        }
    }
}

type Order = Box<dyn FnOnce(&mut Driver) + Send>;

/// The driver's side: sockets and what is connected where.
pub struct Driver {
    pub engine: Engine,
    pub done: Vec<Done>,
    /// Where connects go; an address that is not there refuses.
    pub listening: HashMap<SocketAddr, mpsc::UnboundedSender<DuplexStream>>,
    /// Connects to these get no answer at all.
    pub silent: Vec<SocketAddr>,
    sockets: BTreeMap<u32, DuplexStream>,
    /// Connections to endpoints, in the order they were opened.
    connected: Vec<ConnId>,
    start: Instant,
    chunk: Vec<u8>,
    /// Bytes an in-memory socket holds.
    pub socket_bytes: usize,
}

impl Driver {
    pub fn now(&self) -> Moment {
        Moment::from_nanos(self.start.elapsed().as_nanos() as u64)
    }

    fn accept(&mut self, protocol: DownstreamProtocol) -> Option<DuplexStream> {
        let (ours, theirs) = duplex(self.socket_bytes);
        let accepted = Accepted {
            listener: gateway_core::ids::ListenerId(0),
            peer: SocketAddr::from(([198, 18, 1, 2], 40_000)),
            local: SocketAddr::from(([198, 18, 0, 10], 8080)),
            tls: None,
            protocol,
        };
        let now = self.now();
        let conn = self.engine.accept(accepted, now).ok()?;
        self.sockets.insert(conn.0, ours);
        Some(theirs)
    }

    /// Everything that can be done now; `true` when something was.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.now();
        let mut busy = false;
        let ids: Vec<u32> = self.sockets.keys().copied().collect();
        for id in ids {
            self.engine.writable(ConnId(id), now);
            busy |= self.read(ConnId(id), cx);
        }
        while self.engine.next_resumed().is_some() {
            busy = true;
        }
        busy |= self.act();
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
        }
        while let Some(conn) = self.engine.next_dirty() {
            self.transmit(conn, false, cx);
        }
        busy |= self.act();
        let done = &mut self.done;
        self.engine.take_outcomes(|outcome| done.push(Done::of(outcome)));
        busy
    }

    fn read(&mut self, conn: ConnId, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        while self.engine.wants_read(conn) {
            let now = self.now();
            let Some(socket) = self.sockets.get_mut(&conn.0) else {
                return busy;
            };
            let mut bytes = [0; 16 * 1024];
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(socket).poll_read(cx, &mut buf) {
                Poll::Pending => return busy,
                Poll::Ready(Err(_)) => {
                    self.engine.lost(conn, now);
                    return true;
                }
                Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                    let socket = self.sockets.remove(&conn.0);
                    self.engine.ended(conn, now);
                    // A half-closed socket can still be written.
                    if let Some(socket) = socket {
                        self.sockets.insert(conn.0, socket);
                    }
                    // A connection opened now has not been polled yet.
                    return self.act();
                }
                Poll::Ready(Ok(())) => {
                    let lead = self.engine.restore(conn, &mut self.chunk);
                    let len = buf.filled().len();
                    self.chunk[lead..lead + len].copy_from_slice(buf.filled());
                    let chunk = std::mem::take(&mut self.chunk);
                    self.engine.received(conn, &chunk[..lead + len], now);
                    self.chunk = chunk;
                    while let Some(borrower) = self.engine.next_borrower() {
                        self.transmit(borrower, true, cx);
                    }
                    busy = true;
                }
            }
        }
        busy
    }

    fn transmit(&mut self, conn: ConnId, chunk: bool, cx: &mut Context<'_>) {
        let now = self.now();
        let Some(socket) = self.sockets.get_mut(&conn.0) else {
            return;
        };
        let chunk = if chunk { &self.chunk[..] } else { &[] };
        let transmitted = self.engine.transmit(conn, chunk, now, |slices| {
            match Pin::new(&mut *socket).poll_write_vectored(cx, slices) {
                Poll::Ready(result) => result,
                Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        let _: Transmitted = transmitted;
    }

    /// The connection to an endpoint that was opened last breaks.
    pub fn lose_upstream(&mut self) {
        let now = self.now();
        if let Some(conn) = self.connected.pop() {
            self.engine.lost(conn, now);
        }
    }

    fn act(&mut self) -> bool {
        let mut busy = false;
        while let Some(action) = self.engine.next_action() {
            busy = true;
            match action {
                Action::Connect { conn, addr, .. } => self.connect(conn, addr),
                Action::Finish { conn } => {
                    if let Some(socket) = self.sockets.get_mut(&conn.0) {
                        // In memory this is done at once.
                        let _ = Pin::new(socket).poll_shutdown(&mut Context::from_waker(Waker::noop()));
                    }
                }
                Action::Close { conn, .. } => {
                    self.sockets.remove(&conn.0);
                }
            }
        }
        busy
    }

    fn connect(&mut self, conn: ConnId, addr: SocketAddr) {
        if self.silent.contains(&addr) {
            return;
        }
        let now = self.now();
        let (ours, theirs) = duplex(self.socket_bytes);
        let refused = self
            .listening
            .get(&addr)
            .is_none_or(|listener| listener.send(theirs).is_err());
        if refused {
            self.engine.connect_failed(conn, now);
        } else {
            self.sockets.insert(conn.0, ours);
            self.connected.push(conn);
            self.engine.connected(conn, now);
        }
    }
}

/// A running engine.
#[derive(Clone)]
pub struct Rig {
    orders: mpsc::UnboundedSender<Order>,
}

impl Rig {
    pub fn start(snapshot: Arc<Snapshot>, limits: Limits) -> Self {
        let (orders, mut inbox) = mpsc::unbounded_channel::<Order>();
        let config = EngineConfig {
            limits,
            worker: 0,
            request_id_seed: 1,
        };
        let start = Instant::now();
        let mut driver = Driver {
            engine: Engine::new(config, snapshot, Moment::ZERO),
            done: Vec::new(),
            listening: HashMap::new(),
            silent: Vec::new(),
            sockets: BTreeMap::new(),
            connected: Vec::new(),
            start,
            chunk: vec![0; 16 * 1024 + gateway_http::engine::RESTORE_MAX],
            socket_bytes: 64 * 1024,
        };
        tokio::spawn(async move {
            let mut sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
            poll_fn(move |cx| {
                loop {
                    let mut ordered = false;
                    while let Poll::Ready(order) = inbox.poll_recv(cx) {
                        let Some(order) = order else { return Poll::Ready(()) };
                        order(&mut driver);
                        ordered = true;
                    }
                    let mut rounds = 0;
                    while driver.turn(cx) {
                        rounds += 1;
                        assert!(rounds < 100_000, "the engine never comes to rest");
                    }
                    if ordered {
                        continue;
                    }
                    let Some(due) = driver.engine.poll_timeout() else {
                        return Poll::Pending;
                    };
                    let at = driver.start + Duration::from_nanos(due.nanos());
                    if sleep.deadline() != at {
                        sleep.as_mut().reset(at);
                    }
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            })
            .await;
        });
        Self { orders }
    }

    /// Runs `act` on the driver between two turns.
    pub async fn with<R: Send + 'static>(&self, act: impl FnOnce(&mut Driver) -> R + Send + 'static) -> R {
        let (tell, told) = oneshot::channel();
        let order: Order = Box::new(move |driver| {
            let _ = tell.send(act(driver));
        });
        assert!(self.orders.send(order).is_ok(), "the driver runs");
        told.await.expect("the driver answers")
    }

    /// A client's socket.
    pub async fn socket(&self, protocol: DownstreamProtocol) -> DuplexStream {
        self.with(move |driver| driver.accept(protocol))
            .await
            .expect("accepted")
    }

    /// Makes `addr` answer connects.
    pub async fn listen(&self, addr: SocketAddr) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (tx, rx) = mpsc::unbounded_channel();
        self.with(move |driver| driver.listening.insert(addr, tx)).await;
        rx
    }

    /// Requests that finished since the last call, once at least `count` did.
    pub async fn done(&self, count: usize) -> Vec<Done> {
        for _ in 0..10_000 {
            let ready = self.with(move |driver| driver.done.len() >= count).await;
            if ready {
                return self.with(|driver| std::mem::take(&mut driver.done)).await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{count} requests did not finish in ten seconds");
    }
}
